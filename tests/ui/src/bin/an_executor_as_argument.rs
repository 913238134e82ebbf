//~ E0277
//~ `ThreadPoolExecutor` cannot be an argument or a result of a submitted call
use concurrent_futures::{Executor, ProcessPoolExecutor, ThreadPoolExecutor};

fn main() {
    let pool = ProcessPoolExecutor::new(1).unwrap();
    let inner = ThreadPoolExecutor::new(1).unwrap();
    let _ = pool.submit(|inner: ThreadPoolExecutor| inner.max_workers().get(), inner).result();
}
