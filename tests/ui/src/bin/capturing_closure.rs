//~ expected fn pointer, found closure
//~ closures can only be coerced to `fn` types if they do not capture any variables
use concurrent_futures::{Executor, ThreadPoolExecutor};

fn main() {
    let pool = ThreadPoolExecutor::new(1).unwrap();
    let factor = 3;
    let _ = pool.submit(|x: u32| x * factor, 7).result();
}
