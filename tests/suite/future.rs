use crate::support::{Backend, Gate, Key, Log, Noted, append, eventually, pass};
use concurrent_futures::{
    ALL_COMPLETED, Executor, FIRST_EXCEPTION, Shutdown, TaskError, WaitError, as_completed, wait,
};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de, ser};
use std::{
    collections::{HashMap, HashSet},
    num::NonZeroU8,
    panic::panic_any,
    pin::pin,
    ptr,
    sync::{Arc, Barrier},
    task::{Context, Poll, Wake, Waker},
    thread::{self, Thread},
    time::Duration,
};

/// FUT-01, FUT-08, FUT-12, FUT-13.
pub(crate) fn a_future_tells_where_its_call_is<B: Backend>() {
    let pool = B::pool(1);
    let gate = Gate::new();
    let running = pool.submit(pass, gate.key());
    gate.await_arrivals(1);
    let waiting = pool.submit(|x: u32| x, 5);
    assert_eq!((running.done(), running.running(), running.cancelled()), (false, true, false));
    assert_eq!((waiting.done(), waiting.running(), waiting.cancelled()), (false, false, false));
    assert!(format!("{running:?}").ends_with(", running)"), "{running:?}");
    assert!(running.id() < waiting.id());
    gate.open();
    waiting.wait();
    assert_eq!((waiting.done(), waiting.running(), waiting.cancelled()), (true, false, false));
    assert_eq!(format!("{waiting:?}"), format!("Future<u32>({}, done)", waiting.id()), "not the value");
    let fails = pool.submit(|()| -> u32 { panic!("a secret") }, ());
    fails.wait();
    assert_eq!(format!("{fails:?}"), format!("Future<u32>({}, failed)", fails.id()), "nor the error");
    let gate = Gate::new();
    let running = pool.submit(pass, gate.key());
    let cancelled = pool.submit(|x: u32| x, 5);
    assert!(cancelled.cancel());
    assert_eq!(format!("{cancelled:?}"), format!("Future<u32>({}, cancelled)", cancelled.id()));
    gate.open();
    running.result().unwrap();
}

/// RES-02, RES-03, RES-05, RES-08.
pub(crate) fn a_wait_can_end_before_the_call<B: Backend>() {
    let pool = B::pool(1);
    let gate = Gate::new();
    let future = pool.submit(pass, gate.key());
    assert!(!future.wait_timeout(Duration::ZERO));
    let error = future.result_timeout(Duration::from_millis(5)).unwrap_err();
    assert!(error.is_timeout());
    let WaitError::Timeout(future) = error else { unreachable!("it is a timeout") };
    assert!(!future.cancelled() && !future.done());
    gate.open();
    assert!(future.wait_timeout(Duration::MAX));
    future.result_timeout(Duration::ZERO).unwrap();
    let failed = pool.submit(|()| -> () { panic!("timed out") }, ());
    failed.wait();
    let error = failed.result_timeout(Duration::ZERO).unwrap_err();
    assert!(matches!(&error, WaitError::Task(error) if error.is_panic()), "{error}");
    let gate = Gate::new();
    let running = pool.submit(pass, gate.key());
    let pending = pool.submit(|()| (), ());
    let WaitError::Timeout(pending) = pending.result_timeout(Duration::ZERO).unwrap_err() else { unreachable!() };
    assert!(pending.cancel());
    let error = pending.result_timeout(Duration::ZERO).unwrap_err();
    assert!(matches!(&error, WaitError::Task(error) if error.is_cancelled()), "{error}");
    gate.open();
    running.result().unwrap();
}

/// RES-04, RES-07: six ways to wait, three endings. The last one comes of a shutdown, which cancels both futures.
pub(crate) fn every_ending_wakes_whoever_waits<B: Backend>() {
    let pool = B::pool(1);
    for ending in ["value", "panic", "cancellation"] {
        let gate = Gate::new();
        let blocker = pool.submit(pass, gate.key());
        gate.await_arrivals(1);
        let [awaited, given] = [(); 2].map(|()| pool.submit(|fails: bool| assert!(!fails, "panic"), ending == "panic"));
        let waits: [&(dyn Fn() + Sync); 5] = [
            &|| awaited.wait(),
            &|| assert!(awaited.wait_timeout(Duration::MAX)),
            &|| assert_eq!(awaited.exception().is_none(), ending == "value"),
            &|| assert_eq!(wait([&awaited], ALL_COMPLETED).done.len(), 1),
            &|| assert_eq!(as_completed([&awaited]).count(), 1),
        ];
        let ready = Barrier::new(waits.len() + 2);
        let outcome = thread::scope(|scope| {
            for wait in waits {
                let ready = &ready;
                scope.spawn(move || {
                    ready.wait();
                    wait();
                });
            }
            let result = scope.spawn(|| {
                ready.wait();
                given.result()
            });
            ready.wait();
            thread::sleep(Duration::from_millis(1)); // so that they block, as a rule
            if ending == "cancellation" {
                pool.shutdown(Shutdown::no_wait().cancel_pending());
            } else {
                gate.open();
            }
            result.join().unwrap()
        });
        let told = match &outcome {
            Ok(()) => "value",
            Err(error) if error.is_cancelled() => "cancellation",
            Err(error) => error.panic_message().unwrap(),
        };
        assert_eq!(told, ending);
        gate.open();
        blocker.result().unwrap();
    }
}

/// FUT-10: several threads look while the call ends. Once it is there, the outcome stays, and is the same for all.
pub(crate) fn readers_at_once_see_the_same<B: Backend>() {
    let pool = B::pool(1);
    let call = |(key, fails): (Key, bool)| {
        pass(key);
        assert!(!fails, "as asked");
        "value".to_owned()
    };
    for fails in [false, true] {
        let gate = Gate::new();
        let future = pool.submit(call, (gate.key(), fails));
        let read = || loop {
            let done = future.done();
            match future.peek() {
                Some(Ok(value)) => return ptr::from_ref(value).addr(),
                Some(Err(error)) => return ptr::from_ref(error).addr(),
                None => assert!(!done, "done, and nothing there"),
            }
            thread::yield_now();
        };
        let places: HashSet<usize> = thread::scope(|scope| {
            let readers: Vec<_> = (0..3).map(|_| scope.spawn(read)).collect();
            gate.open();
            readers.into_iter().map(|reader| reader.join().unwrap()).collect()
        });
        assert_eq!(places, [read()].into());
        assert_eq!(future.peek().unwrap().is_err(), fails);
    }
}

/// FUT-09.
pub(crate) fn a_failure_without_content_is_one<B: Backend>() {
    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Nothing;
    let pool = B::pool(1);
    assert_eq!(pool.submit(|()| Err::<u8, Nothing>(Nothing), ()).result().unwrap(), Err(Nothing));
    assert_eq!(pool.submit(|()| Err::<(), Vec<u8>>(Vec::new()), ()).result().unwrap(), Err(Vec::new()));
    let panics: [fn(()); 2] = [|()| panic!(""), |()| panic_any(())];
    for call in panics {
        let failed = pool.submit(call, ());
        assert!(failed.exception().is_some());
        assert_eq!(wait([&failed], FIRST_EXCEPTION).done, [&failed]);
        assert!(failed.result().unwrap_err().is_panic());
    }
}

/// RES-15: data of any shape, a type that only its own function makes, and values that say nothing of themselves.
pub(crate) fn errors_of_any_shape_arrive<B: Backend>() {
    #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
    enum Refusal {
        Blocked,
        Late { by: Duration, limit: Option<Duration> },
        Because(Box<Refusal>, Vec<String>),
    }
    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Finicky {
        code: NonZeroU8,
        words: String,
    }
    impl Finicky {
        fn new(code: NonZeroU8, words: &str) -> Finicky {
            Finicky { code, words: format!("{words} ({code})") }
        }
    }
    let pool = B::pool(1);
    let late = Refusal::Late { by: Duration::from_millis(3), limit: None };
    let because = Refusal::Because(Box::new(late.clone()), vec!["no".into(), String::new()]);
    for refusal in [Refusal::Blocked, late, because] {
        let future = pool.submit(Err::<(), Refusal>, refusal.clone());
        assert_eq!(future.result().unwrap(), Err(refusal));
    }
    let finicky = pool.submit(|code| Err::<(), _>(Finicky::new(code, "no")), NonZeroU8::MAX);
    assert_eq!(finicky.result().unwrap().unwrap_err().words, "no (255)");
    let travels = pool.submit(|()| std::process::id(), ()).result().unwrap() != std::process::id();
    match pool.submit(|x: u32| Err::<(), _>(OnlyEven(x)), 1).result() {
        Ok(value) => assert!(!travels && value == Err(OnlyEven(1))),
        Err(error) => assert!(travels && error.is_codec() && error.to_string().contains("OnlyEven"), "{error}"),
    }
    let thrown = pool.submit(|()| -> () { panic_any(Refusal::Blocked) }, ());
    assert!(thrown.result().unwrap_err().is_panic());
}

/// RES-01, RES-06, FUT-10.
pub(crate) fn looking_leaves_the_value<B: Backend>() {
    let pool = B::pool(1);
    let gate = Gate::new();
    let blocked = pool.submit(pass, gate.key());
    let future = pool.submit(|n: usize| "x".repeat(n), 3);
    assert!(future.peek().is_none());
    gate.open();
    assert!(future.exception().is_none(), "it waits, and there is none");
    assert_eq!(future.peek().unwrap().unwrap(), "xxx");
    assert_eq!(future.peek().unwrap().unwrap(), "xxx");
    assert_eq!(future.result().unwrap(), "xxx");
    blocked.result().unwrap();
    let failed = pool.submit(|()| -> u8 { panic!("no") }, ());
    assert_eq!(failed.exception().unwrap().panic_message(), Some("no"));
    assert!(failed.peek().unwrap().is_err());
    assert!(failed.result().is_err());
}

/// FUT-14.
pub(crate) fn futures_are_keys<B: Backend>() {
    let pool = B::pool(2);
    let names: HashMap<_, _> = ["a", "bb", "ccc"]
        .map(|word| (pool.submit(|word: String| word.len(), word.into()), word))
        .into_iter()
        .collect();
    let mut seen = 0;
    for future in as_completed(names.keys()) {
        assert_eq!(*future.peek().unwrap().unwrap(), names[future].len());
        seen += 1;
    }
    assert_eq!(seen, 3);
    let (one, other) = (pool.submit(|x: u8| x, 1), pool.submit(|x: u8| x, 1));
    let same = &one;
    assert_eq!(&one, same);
    assert_ne!(one, other);
}

/// RES-09, RES-13, RES-11: the panic is one call's outcome, and the worker lives on.
pub(crate) fn a_panic_is_told_and_contained<B: Backend>() {
    let pool = B::pool(1);
    let before = pool.submit(|()| std::process::id(), ()).result().unwrap();
    let line = line!() + 1;
    let future = pool.submit(|x: u32| if x > 1 { panic!("boom {x}") } else { x }, 5);
    let look = || future.exception().unwrap().to_string();
    let looks: HashSet<String> = thread::scope(|scope| {
        let readers: Vec<_> = (0..3).map(|_| scope.spawn(look)).collect();
        readers.into_iter().map(|reader| reader.join().unwrap()).chain([look(), look()]).collect()
    });
    let error = future.result().unwrap_err();
    assert_eq!(looks, [error.to_string()].into(), "it does not grow");
    assert!(error.is_panic() && !error.is_worker_lost());
    assert_eq!(error.panic_message(), Some("boom 5"));
    let location = error.panic_location().unwrap();
    assert!(location.starts_with(&format!("{}:{line}:", file!())), "{location}");
    assert_eq!(error.clone().to_string(), error.to_string());
    assert_eq!(pool.submit(|()| std::process::id(), ()).result().unwrap(), before, "the same worker");
    let odd = pool.submit(|()| -> () { std::panic::panic_any(7_u8) }, ()).result().unwrap_err();
    assert_eq!(odd.panic_message(), Some("a value that is no text"));
}

/// FUT-16.
pub(crate) fn a_dropped_future_does_not_cancel<B: Backend>() {
    let log = Log::new();
    let pool = B::pool(1);
    for x in 0..3 {
        drop(pool.submit(|(log, x): (String, u8)| append(&log, &x.to_string()), (log.path(), x)));
    }
    eventually("three lines", || log.lines().len() == 3);
}

/// FUT-17: arguments with their call, or with its cancellation; results with who has them.
pub(crate) fn what_nobody_wants_is_dropped<B: Backend>() {
    let log = Log::new();
    let left = || {
        let lines = log.lines();
        let count = |what: &str| lines.iter().filter(|line| line.starts_with(what)).count();
        count("made") - count("dropped")
    };
    let pool = B::pool(1);
    let gate = Gate::new();
    let blocker = pool.submit(pass, gate.key());
    gate.await_arrivals(1);
    let cancelled = pool.submit(|_: Noted| (), Noted::new(log.path()));
    assert!(cancelled.cancel());
    assert_eq!(left(), 0, "the call is never made");
    gate.open();
    blocker.result().unwrap();
    for fails in [false, true] {
        let call = |(_noted, fails): (Noted, bool)| assert!(!fails, "with an argument");
        let future = pool.submit(call, (Noted::new(log.path()), fails));
        assert_eq!(future.result().is_err(), fails);
        assert_eq!(left(), 0, "the call is over");
    }
    let unread = pool.submit(Noted::new, log.path());
    unread.wait();
    drop(unread);
    eventually("nobody can read it", || left() == 0);
    let read = pool.submit(Noted::new, log.path()).result().unwrap();
    eventually("only this one", || left() == 1);
    drop(read);
    assert_eq!(left(), 0);
}

/// AIO-01: in a runtime of one thread that sleeps between polls, so that only the waker can end the wait.
pub(crate) fn it_can_be_awaited<B: Backend>() {
    struct Unpark(Thread);
    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    fn block_on<T>(future: impl Future<Output = T>) -> (T, usize) {
        let waker = Waker::from(Arc::new(Unpark(thread::current())));
        let mut context = Context::from_waker(&waker);
        let mut future = pin!(future);
        let mut polls = 1;
        loop {
            match future.as_mut().poll(&mut context) {
                Poll::Ready(output) => return (output, polls),
                Poll::Pending => thread::park(),
            }
            polls += 1;
        }
    }
    let pool = B::pool(2);
    let (sum, _) = block_on(async {
        let one = pool.submit(|x: u32| x + 1, 1);
        let two = pool.submit(|x: u32| x + 1, 2);
        one.await.unwrap() + two.await.unwrap()
    });
    assert_eq!(sum, 5);
    let gate = Gate::new();
    let future = pool.submit(pass, gate.key());
    gate.await_arrivals(1);
    thread::scope(|scope| {
        scope.spawn(|| gate.open());
        block_on(future).0.unwrap();
    });
    let (failed, _) = block_on(pool.submit(|()| -> () { panic!("awaited") }, ()));
    assert_eq!(failed.unwrap_err().panic_message(), Some("awaited"));
    let done = pool.submit(|x: u8| x, 1);
    done.wait();
    let (value, polls) = block_on(done);
    assert_eq!((value.unwrap(), polls), (1, 1));
}

/// Refuses to be encoded when it is odd.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct OnlyEven(pub(crate) u32);

impl Serialize for OnlyEven {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if self.0 % 2 == 1 {
            return Err(ser::Error::custom("odd"));
        }
        assert!(self.0 != 100, "one hundred panics");
        self.0.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for OnlyEven {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        u32::deserialize(deserializer).map(OnlyEven)
    }
}

/// PP-01, PP-02, PP-03, PP-04, SHD-13. Where nothing is encoded, nothing fails: the outcome is the value.
pub(crate) fn values_that_do_not_encode_fail_alone<B: Backend>() {
    let pool = B::pool(2);
    let travels = pool.submit(|()| std::process::id(), ()).result().unwrap() != std::process::id();
    let arguments: Vec<_> = (0..50).map(|x| pool.submit(|x: OnlyEven| x.0, OnlyEven(x))).collect();
    for (x, future) in (0..50).zip(arguments) {
        match future.result() {
            Ok(value) => assert!(value == x && (x % 2 == 0 || !travels)),
            Err(error) => assert!(error.is_codec() && travels && x % 2 == 1, "{x}: {error}"),
        }
    }
    for x in [1, 2, 100] {
        match pool.submit(OnlyEven, x).result() {
            Ok(value) => assert!(value == OnlyEven(x) && (x == 2 || !travels)),
            Err(error) if x == 100 => assert_eq!(error.panic_message(), Some("one hundred panics")),
            Err(error) => assert!(error.is_codec() && error.to_string().contains("OnlyEven"), "{error}"),
        }
    }
}

/// Refuses to be decoded when it is odd.
#[derive(Debug, PartialEq, Serialize)]
pub(crate) struct DecodesEven(u32);

impl<'de> Deserialize<'de> for DecodesEven {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match u32::deserialize(deserializer)? {
            100 => panic!("one hundred panics"),
            even if even % 2 == 0 => Ok(DecodesEven(even)),
            _ => Err(de::Error::custom("odd")),
        }
    }
}

/// PP-05, PP-06, RES-16: in the worker or here, one future fails and the pool goes on.
pub(crate) fn values_that_do_not_decode_fail_alone<B: Backend>() {
    let pool = B::pool(1);
    let travels = pool.submit(|()| std::process::id(), ()).result().unwrap() != std::process::id();
    let check = |x: u32, outcome: Result<u32, TaskError>| match outcome {
        Ok(value) => assert!(value == x && (x == 2 || !travels)),
        Err(error) if x == 100 => assert_eq!(error.panic_message(), Some("one hundred panics")),
        Err(error) => assert!(travels && error.is_codec() && error.to_string().contains("DecodesEven"), "{error}"),
    };
    for x in [1, 2, 100, 2] {
        check(x, pool.submit(|x: DecodesEven| x.0, DecodesEven(x)).result());
        check(x, pool.submit(DecodesEven, x).result().map(|value| value.0));
    }
}
