//~ does not live long enough
use concurrent_futures::{Executor, ThreadPoolExecutor};

fn main() {
    let pool = ThreadPoolExecutor::new(1).unwrap();
    let text = "text".to_owned();
    let _ = pool.submit(|text: &str| text.len(), text.as_str()).result();
}
