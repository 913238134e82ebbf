//~ cannot assign to data in dereference of `Shared<[f64]>`
//~ E0594
// MEM-02: not an error in the middle of a call, but none that could be made.
use concurrent_futures::{Executor, ProcessPoolExecutor, Shared};

fn main() {
    let pool = ProcessPoolExecutor::new(1).unwrap();
    let data = Shared::new([0.5_f64; 100]).unwrap();
    let scale = |mut data: Shared<[f64]>| {
        data[0] = 1.0;
        data
    };
    let _ = pool.submit(scale, data).result();
}
