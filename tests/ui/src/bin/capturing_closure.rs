//~ expected fn pointer, found closure
//~ closures can only be coerced to `fn` types if they do not capture any variables
//~ expected fn pointer, found `usize`
// SUB-03, DILL-02: nor is a number a function.
use concurrent_futures::{Executor, ThreadPoolExecutor};

fn main() {
    let pool = ThreadPoolExecutor::new(1).unwrap();
    let factor = 3;
    let _ = pool.submit(|x: u32| x * factor, 7).result();
    let _ = pool.submit(7, 7).result();
}
