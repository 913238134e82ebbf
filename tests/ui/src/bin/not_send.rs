//~ cannot be sent between threads safely
//~ Rc<u32>
use concurrent_futures::{Executor, ThreadPoolExecutor};
use serde::{Deserialize, Serialize};
use std::{marker::PhantomData, rc::Rc};

#[derive(Serialize, Deserialize)]
struct Local(PhantomData<Rc<u32>>);

fn main() {
    let pool = ThreadPoolExecutor::new(1).unwrap();
    let _ = pool.submit(|_: Local| 1, Local(PhantomData)).result();
}
