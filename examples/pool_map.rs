//! The tutorials' `cube`, with each of the pool's maps.
//!
//! `cargo run --example pool_map`

use concurrent_futures::Pool;
use std::time::Duration;

fn cube(x: u64) -> u64 {
    x.pow(3)
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let pool = Pool::new(4)?;
    println!("map: {:?}", pool.map(cube, 1..=6)?);
    println!("map in chunks of 2: {:?}", pool.chunk_size(2).map(cube, 1..=6)?);
    println!("map_async: {:?}", pool.map_async(cube, 1..=6).get()?);

    // One by one, in the order of the items; an endless input will do.
    for result in pool.imap(cube, 1..).take(6) {
        println!("imap: {}", result?);
    }

    // Each as soon as it is there.
    let mut results = pool.imap_unordered(cube, 1..=6);
    let mut cubes = Vec::new();
    while let Some(result) = results.next_timeout(Duration::from_secs(60))? {
        cubes.push(result?);
    }
    cubes.sort();
    println!("imap_unordered, sorted: {cubes:?}");

    println!("starmap: {:?}", pool.starmap(u64::pow, [(2, 5), (3, 2), (10, 3)])?);
    println!("several arguments: {:?}", pool.map(|(x, y, z): (u64, u64, u64)| x * y + z, [(1, 2, 3), (4, 5, 6)])?);
    Ok(())
}
