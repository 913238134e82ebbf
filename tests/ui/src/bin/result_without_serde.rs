//~ E0277
//~ `Receipt` cannot be an argument or a result of a submitted call
//~ derive `serde::Serialize` and `serde::Deserialize` for it
use concurrent_futures::{Executor, ThreadPoolExecutor};

struct Receipt(u32);

fn main() {
    let pool = ThreadPoolExecutor::new(1).unwrap();
    // The same rule on threads, so that what compiles here compiles for processes.
    let _ = pool.submit(Receipt, 1).result();
}
