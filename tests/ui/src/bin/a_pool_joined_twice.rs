//~ E0382
//~ use of moved value: `pool`
// POOL-17: who joins a pool has it no more.
use concurrent_futures::Pool;

fn main() {
    let pool = Pool::new(1).unwrap();
    pool.join();
    pool.join();
}
