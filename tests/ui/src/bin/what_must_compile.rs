//! The other programs fail for the reason that they name, not because nothing compiles here.
use concurrent_futures::{Executor, ThreadPoolExecutor};

fn main() {
    let pool = ThreadPoolExecutor::new(1).unwrap();
    let _ = pool.submit(|x: u32| x, 1).result();
}
