//! Who drives: moves calls from the queue to workers and replies from workers to their futures.
//!
//! There is one [`Driver`], behind a lock, and whoever has the lock drives. So between a caller and a worker there is no other
//! thread, which would have to be woken twice for each call:
//!
//! - who *submits* gives the call to a worker at once, if he gets the lock. Else it stays in the inbox, and whoever has the lock
//!   finds it there: he looks once more after he has let go.
//! - who *waits* takes replies, for a short while, before he sleeps.
//! - the *driver thread* does it when nobody else does; and whatever has to do with processes and time, always. It sleeps
//!   on everything that can happen.
//!
//! # Who looks at the rings
//! A worker rings for a reply only if it was told that nobody would look. So whoever lets go of the lock either says
//! that, and looks once more (see `ring.md`); or he relies on the *lookout*: while callers keep coming by, the driver thread
//! looks every [`LOOKOUT`], and the workers need not ring. Whoever sleeps for a result is counted in `sleepers`, and then
//! nobody relies on the lookout.
//!
//! # No call is left behind
//! Who submits puts the call into the inbox, and tries the lock; if it is taken, he says so in `calls_came`, and tries once
//! more. Who drives lets go of the lock, then reads `calls_came`. All of these are sequentially consistent, so either the submitter finds the lock free, or he who had
//! it sees that a call came, and tries the lock again himself. A sleeper counts himself in `sleepers` and then does the
//! same, so the last one to let go of the lock has seen him.

use executor_core::{
    drive::Drive,
    sync::{Mutex, MutexGuard},
    task::Parcel,
};
use std::{
    fmt, hint, process,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use crate::{
    driver::Driver,
    inbox::Shared,
    ring::this_cpu,
    watch::{Source, Watch},
};

/// How often the driver thread looks while callers drive. Bounds how late a callback can be that nobody waits for.
const LOOKOUT: Duration = Duration::from_millis(1);

/// How long a waiter looks before he sleeps: a bit more than it takes to wake a worker.
const WAITER_SPIN: Duration = Duration::from_micros(100);

/// How long a waiter looks now and then, where looking all the time would take a processor from a worker.
const WAITER_NAPS: Duration = Duration::from_millis(2);

/// Who has to sleep for longer would better have slept at once.
const SHORT: Duration = Duration::from_micros(400);

/// How long the driver thread looks before it sleeps.
const THREAD_SPIN: Duration = Duration::from_micros(20);

/// With all channels full, so many calls are put into the queue before their submitter looks whether there is room.
const BATCH: usize = 8;

/// A pool's driver, and what decides who drives.
pub(crate) struct Engine {
    pub(crate) shared: Arc<Shared>,
    watch: Arc<Watch>,
    driver: Mutex<Turns>,
    /// Threads that sleep until a result is there.
    sleepers: AtomicUsize,
    /// Threads that want to drive, and not to sleep.
    waiters: AtomicUsize,
    /// How long a waiter looks: in nanoseconds.
    patience: AtomicU32,
    /// The driver thread waits for the lock, which a waiter may keep for long.
    thread_waits: AtomicBool,
}

/// The driver, and who came by.
struct Turns {
    driver: Driver,
    /// How often somebody else than the driver thread drove, now and when that looked last.
    visits: u64,
    visits_seen: u64,
    /// The driver thread looks soon.
    on_lookout: bool,
    /// Calls that were submitted since their submitter looked whether there is room.
    unseen: usize,
}

impl Engine {
    pub(crate) fn new(shared: Arc<Shared>) -> std::io::Result<Engine> {
        let watch = Arc::new(Watch::new()?);
        watch.add(0, Source::Order, &shared.wake)?;
        let turns =
            Turns { driver: Driver::new(&shared, &watch), visits: 0, visits_seen: 0, on_lookout: false, unseen: 0 };
        Ok(Engine {
            shared,
            watch,
            driver: Mutex::new(turns),
            sleepers: AtomicUsize::new(0),
            waiters: AtomicUsize::new(0),
            patience: AtomicU32::new(WAITER_SPIN.as_nanos() as u32),
            thread_waits: AtomicBool::new(false),
        })
    }

    /// The driver thread.
    pub(crate) fn run(&self) {
        let guard = AbortIfPanic;
        let mut happened = Vec::new();
        self.driver.lock().driver.begin();
        loop {
            self.thread_waits.store(true, Ordering::Relaxed);
            let mut turns = self.driver.lock();
            self.thread_waits.store(false, Ordering::Relaxed);
            self.shared.take_news();
            if !turns.driver.turn(&happened) {
                break;
            }
            turns.driver.take_need(); // all that was needed has been done
            let sleeps = self.shared.prepare_to_sleep();
            // ORDERING: Relaxed; who comes a little later finds the lock taken for a little longer.
            let others_wait = || self.waiters.load(Ordering::Relaxed) > 0;
            let mut visited = turns.visits != turns.visits_seen || others_wait();
            turns.visits_seen = turns.visits;
            if !visited && turns.driver.is_engaged() {
                self.look(&mut turns, THREAD_SPIN, None, &others_wait);
                visited = others_wait();
            }
            let has_need = turns.driver.take_need();
            let alarm = turns.driver.set_alarm();
            turns.on_lookout = visited && turns.driver.is_engaged();
            let has_news = self.leave(&mut turns);
            let now = Instant::now();
            let timeout = match alarm.map(|at| at.saturating_duration_since(now)) {
                _ if has_news || has_need || !sleeps => Some(Duration::ZERO),
                timeout if turns.on_lookout || turns.driver.holds_back => Some(timeout.unwrap_or(LOOKOUT).min(LOOKOUT)),
                timeout => timeout,
            };
            drop(turns);
            if self.shared.has_news() {
                // As everybody who drives. If the lock is taken again, this is somebody else's affair.
                self.drive(|turns| _ = turns.driver.pump(true));
            }
            self.watch.wait(timeout, &mut happened);
            self.shared.awake(happened.iter().any(|(_, source)| *source == Source::Order));
        }
        // Outside of the lock, which callbacks may want that run meanwhile.
        let (announcer, mut echo, fork_server) = self.driver.lock().driver.take_apart();
        fork_server.into_iter().for_each(|server| server.end(&mut echo));
        drop((announcer, echo)); // waits for the callbacks
        self.shared.tell(|inbox| inbox.driver_is_over = true);
        std::mem::forget(guard);
    }

    /// Takes in a task that was admitted, or fails it.
    pub(crate) fn accept(&self, parcel: Parcel) {
        self.shared.accept(parcel);
        self.drive(|turns| {
            turns.unseen += 1;
            if !turns.driver.is_saturated() {
                turns.driver.hand_out();
            } else if turns.unseen >= BATCH {
                turns.unseen = 0;
                turns.driver.pump(true);
            }
        });
    }

    /// Performs a wait for something that comes of calls, which others may have to drive meanwhile.
    pub(crate) fn while_asleep<T>(&self, wait: impl FnOnce() -> T) -> T {
        self.sleepers.fetch_add(1, Ordering::SeqCst);
        self.drive(|turns| _ = turns.driver.pump(true));
        let result = wait();
        self.sleepers.fetch_sub(1, Ordering::SeqCst);
        result
    }

    /// Drives, if nobody else does; and once more for whatever came meanwhile.
    fn drive(&self, mut drive: impl FnMut(&mut Turns)) {
        while let Some(mut turns) = self.lock_or_tell() {
            let guard = AbortIfPanic;
            turns.visits += 1;
            self.shared.take_news();
            drive(&mut turns);
            self.let_go(turns);
            std::mem::forget(guard);
            if !self.shared.has_news() {
                break;
            }
        }
    }

    /// The lock, unless somebody has it: then he is told that there is something for him.
    fn lock_or_tell(&self) -> Option<MutexGuard<'_, Turns>> {
        self.driver.try_lock().or_else(|| {
            self.shared.call_came();
            self.driver.try_lock()
        })
    }

    /// Looks until `is_over`, or nothing has happened for so long, or the driver thread is to have its turn.
    fn look(&self, turns: &mut Turns, patience: Duration, deadline: Option<Instant>, is_over: &dyn Fn() -> bool) {
        turns.driver.stay_awake();
        let mut since = None;
        // ORDERING: Relaxed; a little later is soon enough.
        while !is_over() && !self.thread_waits.load(Ordering::Relaxed) {
            let calls_came = self.shared.take_news();
            if turns.driver.pump(calls_came) {
                turns.driver.stay_awake();
                since = None;
                if deadline.is_some_and(|deadline| deadline <= Instant::now()) {
                    return;
                }
                continue;
            }
            let now = Instant::now();
            let late = deadline.is_some_and(|deadline| deadline <= now);
            let nap = turns.driver.nap();
            let patience = if nap.is_some() { WAITER_NAPS } else { patience };
            if late || now.duration_since(*since.get_or_insert(now)) >= patience {
                return;
            }
            match nap {
                Some(nap) => thread::sleep(nap),
                // As workers do (`ring.rs`).
                None if turns.driver.is_in_the_way(this_cpu()) => thread::yield_now(),
                None => (0..8).for_each(|_| hint::spin_loop()),
            }
        }
    }

    /// A caller lets go of the lock.
    fn let_go(&self, mut turns: MutexGuard<'_, Turns>) {
        let has_news = self.leave(&mut turns);
        // On lookout the driver thread comes by anyway.
        let holds_back = turns.driver.holds_back && !turns.on_lookout;
        let summons = turns.driver.take_need() || has_news || holds_back;
        drop(turns);
        if summons {
            self.shared.order(|_| ());
        }
    }

    /// Says who will look from now on. Returns whether there is something to look at now.
    fn leave(&self, turns: &mut Turns) -> bool {
        let relies = turns.on_lookout && self.sleepers.load(Ordering::SeqCst) == 0;
        !relies && turns.driver.fall_asleep()
    }
}

impl Drive for Engine {
    fn wait(&self, deadline: Option<Instant>, is_over: &dyn Fn() -> bool, sleep: &mut dyn FnMut()) {
        let mut began = Instant::now();
        // ORDERING: Relaxed, here and below: only how long to look.
        let patience = self.patience.load(Ordering::Relaxed);
        let most = WAITER_SPIN.as_nanos() as u32;
        if deadline.is_none_or(|deadline| deadline > began) {
            let limit = Duration::from_nanos(u64::from(patience));
            self.waiters.fetch_add(1, Ordering::Relaxed);
            while !is_over() {
                if !self.thread_waits.load(Ordering::Relaxed)
                    && let Some(mut turns) = self.driver.try_lock()
                {
                    let guard = AbortIfPanic;
                    turns.visits += 1;
                    self.look(&mut turns, limit, deadline, is_over);
                    self.let_go(turns);
                    std::mem::forget(guard);
                    if self.shared.has_news() {
                        self.drive(|turns| _ = turns.driver.pump(true));
                    }
                    if !self.thread_waits.load(Ordering::Relaxed) {
                        break;
                    }
                    began = Instant::now(); // its turn is short
                }
                if began.elapsed() >= limit {
                    break;
                }
                for _ in 0..32 {
                    hint::spin_loop();
                }
            }
            self.waiters.fetch_sub(1, Ordering::Relaxed);
            if is_over() {
                if patience < most {
                    self.patience.store((patience * 2).min(most), Ordering::Relaxed);
                }
                return;
            }
        }
        let slept_at = Instant::now();
        self.while_asleep(sleep);
        let patience = if slept_at.elapsed() < SHORT { most } else { (patience / 2).max(most / 32) };
        self.patience.store(patience, Ordering::Relaxed);
    }
}

impl fmt::Debug for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Engine").finish_non_exhaustive()
    }
}

/// A driver that is gone leaves futures that nobody will ever complete. Forgotten when all went well.
struct AbortIfPanic;

impl Drop for AbortIfPanic {
    fn drop(&mut self) {
        eprintln!("concurrent-futures: the driver of a process pool panicked; aborting");
        process::abort();
    }
}
