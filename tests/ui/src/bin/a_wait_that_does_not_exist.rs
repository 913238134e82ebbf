//~ expected `ReturnWhen`, found `&str`
// WAIT-11
use concurrent_futures::{Future, wait};

fn main() {
    let _ = wait(Vec::<Future<u32>>::new(), "SOME_COMPLETED");
}
