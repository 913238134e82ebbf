//~ E0277
//~ `Order` cannot be an argument or a result of a submitted call
//~ what cannot be serialised stays on threads: `ThreadPoolExecutor::spawn`
use concurrent_futures::{Executor, ProcessPoolExecutor};

struct Order(u32);

fn main() {
    let pool = ProcessPoolExecutor::new(1).unwrap();
    let _ = pool.submit(|order: Order| order.0, Order(1)).result();
}
