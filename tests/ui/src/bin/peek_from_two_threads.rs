//~ `Cell<u32>` cannot be shared between threads safely
use concurrent_futures::ThreadPoolExecutor;
use std::cell::Cell;

fn main() {
    let pool = ThreadPoolExecutor::new(1).unwrap();
    let future = pool.spawn(|| Cell::new(1_u32));
    // A value that threads cannot share must not be looked at through a future, which they can.
    let _ = future.peek();
}
