//! Lambdas on a process pool, where Python's cannot go: a closure that captures nothing is as good as a function.
//!
//! `cargo run --example lambdas`

use concurrent_futures::{Context, Executor, ProcessPoolExecutor, ThreadPoolExecutor};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let pool = ProcessPoolExecutor::new(2)?;
    println!("{}", pool.submit(|x: u64| x * x, 12).result()?);
    let doubled: Vec<u32> = pool.map(|x| 2 * x, 0..6).collect::<Result<_, _>>()?;
    println!("{doubled:?}");

    // `lambda x: x * factor` captures: what it needs goes along as an argument.
    let factor = 10;
    let scaled: Vec<u32> = pool.map(|(x, factor)| x * factor, (0..6).map(|x| (x, factor))).collect::<Result<_, _>>()?;
    println!("{scaled:?}");

    // If that is large, it is sent once to each worker, and not with each call.
    let words = Context::new(["zero", "one", "two", "three"].map(String::from).to_vec());
    let named: Vec<String> =
        pool.map_with(&words, |words, i: usize| words[i].clone(), [3, 1, 2]).collect::<Result<_, _>>()?;
    println!("{named:?}");

    // A function can be chosen while the program runs.
    let functions: [fn(f64) -> f64; 3] = [f64::sqrt, |x| x / 2.0, |x| x * x];
    for (name, function) in ["root", "half", "square"].into_iter().zip(functions) {
        println!("{name} of 16: {}", pool.submit(function, 16.0).result()?);
    }

    // Threads share this process's memory. There, and only there, a closure may capture.
    let threads = ThreadPoolExecutor::new(2)?;
    let greeting = String::from("hello");
    println!("{}", threads.spawn(move || greeting.to_uppercase()).result()?);
    Ok(())
}
