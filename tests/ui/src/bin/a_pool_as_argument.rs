//~ E0277
//~ `Pool` cannot be an argument or a result of a submitted call
//~ derive `serde::Serialize` and `serde::Deserialize`
// POOL-25: nor can a pool.
use concurrent_futures::Pool;

fn main() {
    let pool = Pool::new(1).unwrap();
    pool.apply(|_: Pool| (), Pool::new(1).unwrap()).unwrap();
}
