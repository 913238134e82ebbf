//! The pool that all of a program shares, as long as it is asked for with the same choices.

use executor_core::{
    BuildError, Call, DropPolicy, Executor, Shutdown, WhenFull, observe::ObserverList, payload::Payload,
    portable::CallName, sync::Mutex,
};
use rustix::fs::fstat;
use std::{ffi::OsString, io, num::NonZeroUsize, os::fd::OwnedFd, sync::Arc, time::Duration};

use crate::{
    builder::ProcessPoolExecutorBuilder,
    forkserver::StartMethod,
    inbox::Recycling,
    limits::Limits,
    output::Output,
    pool::{ProcessPoolExecutor, packed},
};

static SHARED: Mutex<Option<Shared>> = Mutex::new(None);

struct Shared {
    choices: Choices,
    pool: Arc<ProcessPoolExecutor>,
}

/// All that two builders may differ in, but for the number of workers.
#[derive(PartialEq)]
struct Choices {
    name_prefix: Option<String>,
    initializer: Option<Told>,
    finalizer: Option<Told>,
    recycling: Recycling,
    limits: Limits,
    kill_grace: Option<Duration>,
    env: Vec<(OsString, OsString)>,
    queue_capacity: Option<(usize, WhenFull)>,
    drop_policy: DropPolicy,
    inner_threads: Option<NonZeroUsize>,
    output: Output,
    start_method: StartMethod,
    preload: Option<Told>,
    observers: ObserverList,
}

/// A call that workers make, as it travels.
#[derive(PartialEq)]
struct Told {
    name: CallName,
    args: Arc<Payload>,
    /// Which files go with it, such as the memory of a `Shared` slice: by device and number.
    files: Vec<(u64, u64)>,
}

impl Told {
    fn of(call: &Call) -> io::Result<Told> {
        let file = |descriptor: &Arc<OwnedFd>| {
            let found = fstat(descriptor)?;
            Ok((found.st_dev, found.st_ino))
        };
        let files = call.attachments.iter().map(file).collect::<io::Result<_>>()?;
        Ok(Told { name: call.name, args: Arc::clone(&call.args), files })
    }
}

impl Choices {
    /// Encodes arguments, which runs user code.
    fn of(builder: &ProcessPoolExecutorBuilder) -> io::Result<Choices> {
        // Without `..`, so that no choice is forgotten.
        let ProcessPoolExecutorBuilder {
            max_workers: _,
            name_prefix,
            initializer,
            finalizer,
            recycling,
            limits,
            kill_grace,
            env,
            queue_capacity,
            drop_policy,
            inner_threads,
            output,
            start_method,
            preload,
            observers,
        } = builder;
        let call = |call: &Option<_>| {
            let parcel = call.as_ref().map(packed).transpose()?;
            parcel.map(|parcel| Told::of(parcel.call())).transpose()
        };
        Ok(Choices {
            name_prefix: name_prefix.clone(),
            initializer: call(initializer)?,
            finalizer: call(finalizer)?,
            recycling: *recycling,
            limits: *limits,
            kill_grace: *kill_grace,
            env: env.clone(),
            queue_capacity: *queue_capacity,
            drop_policy: *drop_policy,
            inner_threads: *inner_threads,
            output: output.clone(),
            start_method: *start_method,
            preload: call(preload)?,
            observers: observers.clone(),
        })
    }
}

/// The shared pool, if it is there and takes calls.
pub(crate) fn present() -> Option<Arc<ProcessPoolExecutor>> {
    let shared = SHARED.lock();
    shared.as_ref().filter(|shared| !shared.pool.is_closed()).map(|shared| Arc::clone(&shared.pool))
}

/// The shared pool if it was made with these choices, and otherwise one that takes its place.
pub(crate) fn with(builder: ProcessPoolExecutorBuilder) -> Result<Arc<ProcessPoolExecutor>, BuildError> {
    let Ok(choices) = Choices::of(&builder) else {
        return builder.build().map(Arc::new); // which says what is wrong
    };
    let max_workers = builder.max_workers;
    if let Some(pool) = equal_one(&SHARED.lock(), &choices) {
        return resized(pool, max_workers);
    }
    // Not under the lock: it runs user code.
    let pool = Arc::new(builder.build()?);
    let mut shared = SHARED.lock();
    let (pool, unused) = match equal_one(&shared, &choices) {
        Some(other) => (other, Some(pool)), // somebody was quicker
        None => {
            let before = shared.replace(Shared { choices, pool: Arc::clone(&pool) });
            (pool, before.map(|before| before.pool))
        }
    };
    drop(shared);
    // Others may still use it. If not, what was submitted is done in the background: nobody waits for that here.
    if let Some(unused) = unused.and_then(Arc::into_inner) {
        unused.shutdown(Shutdown::no_wait());
    }
    resized(pool, max_workers)
}

fn equal_one(shared: &Option<Shared>, choices: &Choices) -> Option<Arc<ProcessPoolExecutor>> {
    let equal = |shared: &&Shared| shared.choices == *choices && !shared.pool.is_closed();
    shared.as_ref().filter(equal).map(|shared| Arc::clone(&shared.pool))
}

fn resized(pool: Arc<ProcessPoolExecutor>, max_workers: Option<usize>) -> Result<Arc<ProcessPoolExecutor>, BuildError> {
    if let Some(max_workers) = max_workers {
        pool.resize(max_workers)?;
    }
    Ok(pool)
}
