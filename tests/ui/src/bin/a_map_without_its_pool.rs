//~ E0505
//~ cannot move out of `pool` because it is borrowed
// MAP-09: so there is no map whose executor is gone.
use concurrent_futures::{Executor, ThreadPoolExecutor};

fn main() {
    let pool = ThreadPoolExecutor::new(1).unwrap();
    let map = pool.map(|x: u32| x, 0..10);
    drop(pool);
    let _ = map.count();
}
