//! Queues and pipes: between threads, between processes, and with processes that die over them.

use crate::{
    suite::future::OnlyEven,
    support::{DEADLINE, Gate, Key, Log, append, eventually, pass, promptly, state, stop},
};
use concurrent_futures::{
    Connection, Executor, JoinableQueue, Process, ProcessHandle, ProcessPoolExecutor, PutError, Queue, QueueError,
    Value, one_way_pipe, pipe,
};
use serde::{Deserialize, Serialize, Serializer};
use std::{
    collections::BTreeMap,
    fs, iter, process,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

const MOMENT: Duration = Duration::from_millis(5);

/// Calls `check` in the process that made the queue, and in another one.
#[track_caller]
fn here_and_there<Q: Value>(make: impl Fn() -> Q, check: fn(Q)) {
    check(make());
    let pool = ProcessPoolExecutor::new(1).unwrap();
    if let Err(error) = pool.submit(check, make()).result() {
        panic!("in another process: {error}");
    }
}

/// Whether a process sleeps in a system call, which for those here means that it waits for a queue.
fn waits(process: &ProcessHandle) -> bool {
    state(process.pid()) == Some('S')
}

/// QUE-01: each producer's items come in their order, through whichever process they are taken.
#[test]
fn items_come_in_the_order_in_which_each_producer_put_them() {
    const ITEMS: u32 = 200;
    type Ranked = Queue<(u32, u32)>;
    fn produce((rank, queue): (u32, Ranked)) {
        for number in 0..ITEMS {
            queue.put((rank, number)).unwrap();
        }
    }
    fn consume((queue, taken): (Ranked, Queue<Vec<(u32, u32)>>)) {
        let mut mine = Vec::new();
        while let Ok(item) = queue.get() {
            mine.push(item);
        }
        taken.put(mine).unwrap();
    }
    let (queue, taken) = (Queue::new(), Queue::new());
    let pool = ProcessPoolExecutor::new(2).unwrap();
    let consumer = Process::new(consume, (queue.clone(), taken.clone())).start().unwrap();
    thread::scope(|scope| {
        scope.spawn(|| consume((queue.clone(), taken.clone())));
        let threads = [2, 3].map(|rank| {
            let queue = queue.clone();
            scope.spawn(move || produce((rank, queue)))
        });
        for done in pool.map(produce, (0..2).map(|rank| (rank, queue.clone()))).chunk_size(1) {
            done.unwrap();
        }
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        queue.close();
    });
    consumer.join().unwrap();
    let mut last = BTreeMap::new();
    let mut total = 0;
    for mine in [taken.get().unwrap(), taken.get().unwrap()] {
        last.clear();
        total += mine.len();
        for (rank, number) in mine {
            assert!(last.insert(rank, number).is_none_or(|before| before < number), "{rank}: {number}");
        }
    }
    assert_eq!(total as u32, 4 * ITEMS);
}

/// QUE-01, in the tutorials' form: results with their rank, from calls of a pool.
#[test]
fn results_come_with_their_rank() {
    let pool = ProcessPoolExecutor::new(2).unwrap();
    let results = Queue::new();
    let work = |(rank, results): (u64, Queue<(u64, u64)>)| results.put((rank, rank * rank)).unwrap();
    let calls: Vec<_> = (0..20).map(|rank| pool.submit(work, (rank, results.clone()))).collect();
    let mut found: Vec<_> = calls.iter().map(|_| results.get().unwrap()).collect();
    found.sort_unstable();
    assert!(found.into_iter().eq((0..20).map(|rank| (rank, rank * rank))));
}

/// QUE-02, QUE-03, QUE-04, QUE-05, QUE-06: at once, in time, or not; and the length is true as soon as `put` has returned.
#[test]
fn room_and_items_are_waited_for_as_long_as_is_said() {
    here_and_there(
        || Queue::with_maxsize(2),
        |queue: Queue<u32>| {
            assert!(queue.is_empty());
            assert!(
                queue.try_get().unwrap_err().is_empty() && queue.get_timeout(Duration::ZERO).unwrap_err().is_empty()
            );
            assert!(queue.get_timeout(MOMENT).unwrap_err().is_empty());
            queue.try_put(1).unwrap();
            assert!(!queue.is_empty());
            queue.put_timeout(2, Duration::ZERO).unwrap();
            assert_eq!(queue.len(), 2);
            let full: [Result<(), PutError<u32>>; 3] =
                [queue.try_put(3), queue.put_timeout(4, Duration::ZERO), queue.put_timeout(5, MOMENT)];
            for (outcome, number) in full.into_iter().zip(3..) {
                let error = outcome.unwrap_err();
                assert_eq!((error.to_string().as_str(), error.is_full()), ("the queue is full", true));
                assert_eq!(error.into_value(), number);
            }
            assert_eq!([queue.get().unwrap(), queue.try_get().unwrap()], [1, 2]);
            assert_eq!((queue.len(), queue.try_get().unwrap_err().is_empty()), (0, true));
        },
    );
    here_and_there(
        || Queue::with_maxsize(0),
        |queue: Queue<u32>| {
            (0..1000).for_each(|number| queue.try_put(number).unwrap());
            assert_eq!(queue.len(), 1000);
            assert!((0..1000).all(|number| queue.try_get().unwrap() == number));
        },
    );
}

/// QUE-02, QUE-03: who waits goes on when somebody makes it possible, wherever both are.
#[test]
fn who_waits_goes_on() {
    fn put_behind(queue: Queue<u32>) {
        queue.put(2).unwrap();
    }
    fn get_and_tell((queue, got): (Queue<u32>, Queue<u32>)) {
        got.put(queue.get().unwrap()).unwrap();
    }
    for remote in [false, true] {
        let (queue, got) = (Queue::with_maxsize(1), Queue::new());
        queue.put(1).unwrap();
        let putter = Process::new(put_behind, queue.clone());
        let getter = Process::new(get_and_tell, (queue.clone(), got.clone()));
        if remote {
            let putter = putter.start().unwrap();
            eventually("it waits for room", || waits(&putter));
            assert_eq!((queue.get().unwrap(), queue.get().unwrap()), (1, 2));
            putter.join().unwrap();
            let getter = getter.start().unwrap();
            eventually("it waits for an item", || waits(&getter));
            queue.put(3).unwrap();
            getter.join().unwrap();
        } else {
            thread::scope(|scope| {
                scope.spawn(|| put_behind(queue.clone()));
                assert_eq!((queue.get().unwrap(), queue.get().unwrap()), (1, 2));
                scope.spawn(|| get_and_tell((queue.clone(), got.clone())));
                queue.put(3).unwrap();
            });
        }
        assert_eq!(got.get().unwrap(), 3);
    }
}

/// QUE-07, QUE-08: what cannot be encoded, or decoded, is an error of that one item, which comes back.
#[test]
fn bad_items_are_errors_of_their_own() {
    here_and_there(
        || Queue::with_maxsize(1),
        |queue: Queue<OnlyEven>| {
            for bad in [1, 100] {
                let error = queue.put(OnlyEven(bad)).unwrap_err();
                assert!(error.error().failure().is_some() && !error.is_full(), "{error}");
                assert_eq!(error.into_value(), OnlyEven(bad));
            }
            assert!(queue.is_empty());
            queue.try_put(OnlyEven(2)).unwrap();
            assert_eq!(queue.get().unwrap(), OnlyEven(2));
        },
    );
}

/// QUE-09: a closed queue takes nothing, gives what it has, and then says so, also to those who wait.
#[test]
fn a_closed_queue_gives_what_it_has() {
    here_and_there(
        || {
            let queue = Queue::with_maxsize(1);
            queue.put(1).unwrap();
            queue
        },
        |queue: Queue<u32>| {
            thread::scope(|scope| {
                let waiting = scope.spawn(|| queue.put(2));
                queue.close();
                assert!(waiting.join().unwrap().unwrap_err().error().is_closed());
            });
            queue.close();
            for refused in [queue.put(3), queue.try_put(4), queue.put_timeout(5, MOMENT)] {
                assert_eq!(refused.unwrap_err().to_string(), "the queue is closed");
            }
            assert_eq!((queue.len(), queue.get().unwrap(), queue.len()), (1, 1, 0));
            for outcome in [queue.get(), queue.try_get(), queue.get_timeout(MOMENT)] {
                assert!(outcome.unwrap_err().is_closed());
            }
        },
    );
    here_and_there(Queue::new, |queue: Queue<u32>| {
        thread::scope(|scope| {
            let waiting = scope.spawn(|| queue.get());
            queue.close();
            assert!(waiting.join().unwrap().unwrap_err().is_closed());
        });
    });
}

/// QUE-09: a queue ends with the process that made it, and those who wait for it learn of that.
#[test]
fn a_queue_ends_with_its_process() {
    let (handles, theirs) = one_way_pipe().unwrap();
    let gate = Gate::new();
    let make = |(handles, key): (Connection<Queue<u32>, concurrent_futures::Never>, Key)| {
        let queue = Queue::new();
        queue.put(7).unwrap();
        handles.send(queue.clone()).unwrap();
        pass(key);
    };
    let owner = Process::new(make, (theirs, gate.key())).start().unwrap();
    let queue = handles.recv().unwrap();
    gate.await_arrivals(1);
    assert_eq!((queue.len(), queue.get().unwrap()), (1, 7));
    assert!(format!("{queue:?}").contains("is_remote"));
    thread::scope(|scope| {
        let waiting = scope.spawn(|| queue.get());
        owner.kill();
        assert!(waiting.join().unwrap().unwrap_err().is_disconnected());
    });
    assert!(queue.put(1).unwrap_err().error().is_disconnected());
    assert_eq!(queue.len(), 0);
}

/// QUE-10, DL-13: a process that has put more than any pipe holds can be joined before that is taken.
#[test]
fn a_process_is_joined_before_its_items_are_taken() {
    const SIZE: usize = 8 << 20;
    let results = Queue::new();
    let put = |results: Queue<Vec<u8>>| (0..3).for_each(|byte| results.put(vec![byte; SIZE]).unwrap());
    let process = Process::new(put, results.clone()).start().unwrap();
    promptly(move || process.join()).unwrap();
    assert_eq!(results.len(), 3);
    for byte in 0..3 {
        assert!(results.get().unwrap() == vec![byte; SIZE]);
    }
}

/// QUE-11.
#[test]
fn a_joinable_queue_waits_for_what_is_done() {
    here_and_there(JoinableQueue::new, |queue: JoinableQueue<u32>| {
        queue.join().unwrap();
        (0..3).for_each(|item| queue.put(item).unwrap());
        assert!(queue.join_timeout(MOMENT).unwrap_err().is_unfinished());
        assert_eq!(queue.get().unwrap(), 0);
        queue.task_done().unwrap();
        let mut task = queue.get_task().unwrap();
        *task += 1;
        assert_eq!((*task, queue.len()), (2, 1));
        drop(queue.get_task_timeout(MOMENT).unwrap());
        assert!(queue.get_task_timeout(MOMENT).unwrap_err().is_empty());
        assert!(queue.join_timeout(Duration::ZERO).unwrap_err().is_unfinished(), "one is being worked on");
        thread::scope(|scope| {
            let joined = scope.spawn(|| queue.join());
            drop(task);
            joined.join().unwrap().unwrap();
        });
        let error = queue.task_done().unwrap_err();
        assert_eq!(error.to_string(), "more items are said to be done than were put into the queue");
    });
}

/// QUE-11, QUE-13: what was being worked on by a process that died is the next again, and `join` does not wait for the dead.
#[test]
fn a_dead_workers_task_goes_to_the_next() {
    let queue = JoinableQueue::new();
    let gate = Gate::new();
    (0..2).for_each(|item| queue.put(item).unwrap());
    let work = |(queue, key): (JoinableQueue<u32>, Key)| {
        let _task = queue.get_task().unwrap();
        pass(key);
    };
    let process = Process::new(work, (queue.clone(), gate.key())).start().unwrap();
    gate.await_arrivals(1);
    assert_eq!(queue.len(), 1);
    process.kill();
    drop(process);
    eventually("it is back", || queue.len() == 2);
    assert_eq!((*queue.get_task().unwrap(), *queue.get_task().unwrap()), (0, 1));
    promptly(move || queue.join()).unwrap();
}

/// QUE-12: a queue needs no thread that feeds it, nor a size; what is put is there.
#[test]
fn a_plain_queue_is_simple() {
    here_and_there(Queue::new, |queue: Queue<String>| {
        assert!(queue.is_empty());
        queue.put("one".into()).unwrap();
        assert!(!queue.is_empty());
        assert_eq!(queue.get().unwrap(), "one");
        assert!(queue.is_empty());
    });
}

/// QUE-13: a process that is killed in the middle of a `put` has put nothing, and is in nobody's way.
#[test]
fn a_process_killed_as_it_puts_has_put_nothing() {
    const SIZE: usize = 4 << 20;
    let queue = Queue::new();
    let put = |queue: Queue<Vec<u8>>| loop {
        queue.put(vec![7; SIZE]).unwrap();
    };
    for kills in 1..=10 {
        let process = Process::new(put, queue.clone()).start().unwrap();
        let before = queue.len();
        eventually("it has begun", || queue.len() > before);
        // Somewhere in the next item, each time elsewhere.
        thread::sleep(Duration::from_micros(kills * 300));
        process.kill();
        assert!(process.join().is_err());
        queue.put(vec![8; 8]).unwrap();
        let mut items = std::iter::from_fn(|| queue.try_get().ok()).collect::<Vec<_>>();
        assert_eq!(items.pop().map(|item| item == [8; 8]), Some(true));
        assert!(items.into_iter().all(|item| item == [7; SIZE]));
    }
    let fine = Process::new(|queue: Queue<Vec<u8>>| queue.put(vec![1]).unwrap(), queue.clone()).start().unwrap();
    fine.join().unwrap();
    eventually("what was on its way is forgotten", || queue.try_get().is_ok_and(|item| item == [1]));
}

/// QUE-13: what a process was being given when it was killed goes to the next, and what it only waited for as well.
#[test]
fn a_process_killed_as_it_gets_has_got_nothing() {
    const SIZE: usize = 8 << 20;
    let queue = Queue::new();
    let get = |queue: Queue<Vec<u8>>| drop(queue.get());
    let waiting = Process::new(get, queue.clone()).start().unwrap();
    let stopped = Process::new(get, queue.clone()).start().unwrap();
    eventually("both wait", || waits(&waiting) && waits(&stopped));
    waiting.kill();
    assert!(waiting.join().is_err());
    stop(stopped.pid());
    queue.put(vec![9; SIZE]).unwrap();
    // Far more than its socket takes: so it is on its way until the process goes on.
    eventually("it is on its way", || queue.is_empty());
    queue.close();
    assert!(queue.get_timeout(MOMENT).unwrap_err().is_empty(), "it may come back");
    stopped.kill();
    assert!(stopped.join().is_err());
    assert!(queue.get().unwrap() == [9; SIZE]);
    assert!(queue.get().unwrap_err().is_closed());
}

/// QUE-13: dying processes cost those items that they had, and nobody else anything.
#[test]
fn deaths_among_many_cost_nothing_else() {
    const ITEMS: u32 = 300;
    let log = Log::new();
    let queue: JoinableQueue<u32> = JoinableQueue::new();
    (0..ITEMS).for_each(|item| queue.put(item).unwrap());
    queue.close();
    let work = |(queue, log): (JoinableQueue<u32>, String)| {
        while let Ok(task) = queue.get_task() {
            // Each of some is too much for the first that takes it.
            let grave = format!("{log}-{}", *task);
            if *task % 50 == 7 && fs::exists(&grave).is_ok_and(|dug| !dug) {
                fs::File::create(grave).unwrap();
                process::abort();
            }
            append(&log, &task.to_string());
        }
    };
    let mut crew = Vec::new();
    let joined = {
        let queue = queue.clone();
        thread::spawn(move || queue.join())
    };
    let began = Instant::now();
    while !joined.is_finished() {
        assert!(began.elapsed() < DEADLINE, "done: {:?}", log.lines().len());
        crew.retain(ProcessHandle::is_alive);
        while crew.len() < 3 && !queue.is_empty() {
            crew.push(Process::new(work, (queue.clone(), log.path())).start().unwrap());
        }
        thread::sleep(Duration::from_millis(1));
    }
    joined.join().unwrap().unwrap();
    let mut done: Vec<u32> = log.lines().iter().map(|line| line.parse().unwrap()).collect();
    done.sort_unstable();
    assert!(done.into_iter().eq(0..ITEMS), "each once");
}

/// QUE-14: an item is what it was as it was put.
#[test]
fn items_are_encoded_as_they_are_put() {
    #[derive(Clone)]
    struct Counter(Arc<AtomicU32>);
    impl Serialize for Counter {
        fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            self.0.load(Ordering::SeqCst).serialize(serializer)
        }
    }
    impl<'de> Deserialize<'de> for Counter {
        fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            u32::deserialize(deserializer).map(|count| Counter(Arc::new(count.into())))
        }
    }
    here_and_there(Queue::new, |queue: Queue<Counter>| {
        let counter = Counter(Arc::new(1.into()));
        queue.put(counter.clone()).unwrap();
        counter.0.store(2, Ordering::SeqCst);
        assert_eq!(queue.get().unwrap().0.load(Ordering::SeqCst), 1);
    });
}

/// QUE-15: in both directions and in one, with whole values of any size, and an end that is noticed.
#[test]
fn pipes_keep_what_is_sent_apart() {
    fn answer(connection: Connection<Vec<u8>>) {
        while let Ok(bytes) = connection.recv() {
            connection.send(bytes.into_iter().rev().collect()).unwrap();
        }
    }
    let (ours, theirs) = pipe::<Vec<u8>, Vec<u8>>().unwrap();
    let process = Process::new(answer, theirs).start().unwrap();
    assert!(!ours.poll(Duration::ZERO) && !ours.poll(MOMENT));
    assert!(ours.recv_timeout(MOMENT).unwrap_err().is_empty());
    for size in [0, 1, 100, 1 << 20, 5] {
        let bytes: Vec<u8> = (0..size).map(|place| place as u8).collect();
        ours.send(bytes.clone()).unwrap();
        assert!(ours.poll(Duration::from_secs(60)));
        assert!(ours.recv().unwrap().into_iter().rev().eq(bytes));
    }
    ours.send(vec![1]).unwrap();
    ours.send(vec![2, 3]).unwrap();
    assert_eq!([ours.recv().unwrap(), ours.recv().unwrap()], [vec![1], vec![3, 2]]);
    drop(ours);
    process.join().unwrap();

    let (receiver, sender) = one_way_pipe::<String>().unwrap();
    sender.send("text".into()).unwrap();
    drop(sender);
    assert_eq!(receiver.recv().unwrap(), "text");
    // A process that some other test is about to start has all ends for a moment, as it has whatever is open here.
    assert!(receiver.poll(Duration::from_secs(60)));
    assert!(receiver.recv().unwrap_err().is_disconnected());
    let (receiver, sender) = one_way_pipe::<String>().unwrap();
    drop(receiver);
    let error = iter::repeat_with(|| sender.send("lost".into())).find_map(Result::err).unwrap();
    assert!(error.error().is_disconnected());
    assert_eq!(error.into_value(), "lost");
}

/// QUE-15, QUE-16: handles go through pipes and queues, and further on from there; one that comes home is at home.
#[test]
fn handles_travel_in_items() {
    type Post = Queue<(Queue<u32>, Connection<u32>)>;
    fn forward(post: Post) {
        let (queue, connection) = post.get().unwrap();
        connection.send(connection.recv().unwrap() + 1).unwrap();
        let process = Process::new(|queue: Queue<u32>| queue.put(8).unwrap(), queue.clone()).start().unwrap();
        process.join().unwrap();
        queue.put(9).unwrap();
        post.put((queue, connection)).unwrap();
    }
    let (post, queue) = (Post::new(), Queue::new());
    let (ours, theirs) = pipe().unwrap();
    post.put((queue.clone(), theirs)).unwrap();
    ours.send(6).unwrap();
    let process = Process::new(forward, post.clone()).start().unwrap();
    assert_eq!(ours.recv().unwrap(), 7);
    process.join().unwrap();
    let (home, connection) = post.get().unwrap();
    assert!(format!("{home:?}").contains("len: 2"), "{home:?}");
    assert_eq!((home.get().unwrap(), queue.get().unwrap()), (8, 9));
    connection.send(1).unwrap();
    assert_eq!(ours.recv().unwrap(), 1);
}

/// A queue is there as long as somebody has it, and no longer.
#[test]
fn a_queue_that_nobody_has_is_gone() {
    let gate = Gate::new();
    let work = |(queue, key): (Queue<u32>, Key)| {
        pass(key);
        queue.put(1).unwrap();
        assert_eq!(queue.get().unwrap(), 1);
    };
    let process = Process::new(work, (Queue::new(), gate.key())).start().unwrap();
    gate.await_arrivals(1);
    gate.open();
    process.join().unwrap();
    // In a process of its own, where nobody else opens anything.
    let pool = ProcessPoolExecutor::new(1).unwrap();
    let checked = |()| {
        let open = || fs::read_dir("/proc/self/fd").unwrap().count();
        let use_one = || {
            let queue = Queue::new();
            Process::new(|queue: Queue<u32>| queue.put(1).unwrap(), queue.clone()).start().unwrap().join().unwrap();
            assert_eq!(queue.get().unwrap(), 1);
        };
        use_one(); // what starts with the first use stays
        let before = open();
        (0..3).for_each(|_| use_one());
        eventually("all is closed", || open() <= before);
    };
    pool.submit(checked, ()).result().unwrap();
}

/// An error says what it is about, and no more than it must.
#[test]
fn errors_have_sentences() {
    let queue = Queue::<u32>::with_maxsize(1);
    let error: QueueError = queue.try_get().unwrap_err();
    assert_eq!(error.to_string(), "the queue is empty");
    queue.put(1).unwrap();
    assert_eq!(format!("{:?}", queue.try_put(2).unwrap_err()), "PutError { error: QueueError(Full), .. }");
}
