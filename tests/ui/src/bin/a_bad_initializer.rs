//~ E0277
//~ `Licence` cannot be a context or the argument of an initializer
//~ derive `serde::Serialize` and `serde::Deserialize` for it
//~ expected fn pointer, found `&str`
// INI-04, INI-05
use concurrent_futures::{ProcessPoolExecutor, ThreadPoolExecutor};

#[derive(Clone)]
struct Licence;

fn main() {
    let _ = ProcessPoolExecutor::builder().initializer(|_: Licence| (), Licence).build();
    // The same rule on threads.
    let _ = ThreadPoolExecutor::builder().initializer(|_: Licence| (), Licence).build();
    let _ = ThreadPoolExecutor::builder().initializer("setup", 1).build();
}
