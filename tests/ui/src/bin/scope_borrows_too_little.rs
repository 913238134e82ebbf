//~ E0373
use concurrent_futures::ThreadPoolExecutor;

fn main() {
    let pool = ThreadPoolExecutor::new(1).unwrap();
    let total = pool.scope(|scope| {
        let inside = 5;
        // `inside` is gone when the body returns, and the call may still run.
        scope.spawn(|| inside + 1).result()
    });
    assert!(total.is_ok());
}
