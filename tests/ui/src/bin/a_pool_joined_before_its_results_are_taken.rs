//~ E0505
//~ cannot move out of `pool` because it is borrowed
// POOL-17: nobody would pull the input.
use concurrent_futures::Pool;

fn main() {
    let pool = Pool::new(1).unwrap();
    let results = pool.imap(|x: u32| x, 0..1000);
    pool.join();
    results.for_each(drop);
}
