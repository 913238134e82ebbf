//~ E0277
//~ `ThreadPoolExecutor` cannot be an argument or a result of a submitted call
//~ `concurrent_futures::Future<u32>` cannot be an argument or a result of a submitted call
// NEST-04, PP-30: a call has no handle but those that it makes.
use concurrent_futures::{Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor};

fn main() {
    let pool = ProcessPoolExecutor::new(1).unwrap();
    let inner = ThreadPoolExecutor::new(1).unwrap();
    let future = inner.submit(|x: u32| x, 1);
    let _ = pool.submit(|future: Future<u32>| future.done(), future).result();
    let _ = pool.submit(|inner: ThreadPoolExecutor| inner.max_workers().get(), inner).result();
}
