//! The pool that all of a program shares, as long as it is asked for with the same choices.

use executor_core::{BuildError, DropPolicy, Executor, Shutdown, WhenFull, portable::CallName, sync::Mutex};
use std::{ffi::OsString, io, num::NonZeroUsize, sync::Arc, time::Duration};

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
    initializer: Option<(CallName, Arc<Vec<u8>>)>,
    finalizer: Option<(CallName, Arc<Vec<u8>>)>,
    recycling: Recycling,
    limits: Limits,
    kill_grace: Option<Duration>,
    env: Vec<(OsString, OsString)>,
    queue_capacity: Option<(usize, WhenFull)>,
    drop_policy: DropPolicy,
    inner_threads: Option<NonZeroUsize>,
    output: Output,
    start_method: StartMethod,
    preload: Option<(CallName, Arc<Vec<u8>>)>,
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
        } = builder;
        let call = |call: &Option<_>| {
            let parcel = call.as_ref().map(packed).transpose()?;
            Ok::<_, io::Error>(parcel.map(|parcel| (parcel.call().name, Arc::clone(&parcel.call().args))))
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
    let mut shared = SHARED.lock();
    if let Some(Shared { choices: before, pool }) = &*shared
        && *before == choices
        && !pool.is_closed()
    {
        if let Some(max_workers) = builder.max_workers {
            pool.resize(max_workers)?;
        }
        return Ok(Arc::clone(pool));
    }
    let pool = Arc::new(builder.build()?);
    let before = shared.replace(Shared { choices, pool: Arc::clone(&pool) });
    drop(shared);
    // Others may still use it. If not, what was submitted is done in the background: nobody waits for that here.
    if let Some(unused) = before.and_then(|before| Arc::into_inner(before.pool)) {
        unused.shutdown(Shutdown::no_wait());
    }
    Ok(pool)
}
