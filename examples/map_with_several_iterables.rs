//! `map` with several iterables, with named arguments, and in chunks; in order, or as results come.
//!
//! `cargo run --example map_with_several_iterables`

use concurrent_futures::{Executor, ProcessPoolExecutor};
use serde::{Deserialize, Serialize};

/// Named arguments, some of which have a default.
#[derive(Clone, Serialize, Deserialize)]
struct Line {
    text: String,
    width: usize,
    fill: char,
}

impl Default for Line {
    fn default() -> Self {
        Line { text: String::new(), width: 8, fill: '.' }
    }
}

fn pad(line: Line) -> String {
    let missing = line.width.saturating_sub(line.text.len());
    line.text + &line.fill.to_string().repeat(missing)
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let pool = ProcessPoolExecutor::new(2)?; // or ThreadPoolExecutor::new(2)?
    let (bases, exponents) = ([2_u64, 3, 10], [5, 2, 3]);

    // `map(pow, bases, exponents)`. The shorter one ends it, as in Python.
    let powers = pool.starmap(u64::pow, bases.into_iter().zip(exponents));
    println!("{:?}", powers.collect::<Result<Vec<_>, _>>()?);

    // Three of them are zipped to tuples, which a closure takes apart.
    let sums = pool.map(|((a, b), c): ((u64, u64), u64)| a * b + c, bases.into_iter().zip([1, 2, 3]).zip([7, 8, 9]));
    println!("{:?}", sums.collect::<Result<Vec<_>, _>>()?);

    // `map(partial(pow, exp=2), bases)`
    println!("{:?}", pool.map(|base: u64| base.pow(2), bases).collect::<Result<Vec<_>, _>>()?);

    // `pad(text="one", width=5)`
    let lines = [
        Line { text: "one".into(), width: 5, ..Line::default() },
        Line { text: "two".into(), ..Line::default() },
        Line { text: "three".into(), fill: '-', ..Line::default() },
    ];
    for line in pool.map(pad, lines) {
        println!("{}", line?);
    }

    // `chunksize=`. Unless told, chunks fit themselves to how long items take.
    println!("{}", pool.map(|x: u64| x + 1, 0..1000).chunk_size(100).sum::<Result<u64, _>>()?);

    // An endless input is fine: no more of it is taken than there is room for.
    println!("{:?}", pool.map(|x: u64| x * x, 1..).take(5).collect::<Result<Vec<_>, _>>()?);

    // As they come.
    let mut squares = pool.map(|x: u64| x * x, 1..=5).unordered().collect::<Result<Vec<_>, _>>()?;
    squares.sort();
    println!("{squares:?}");
    Ok(())
}
