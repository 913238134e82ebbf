//! How many processors there are to use, why no more, and what pools make of it. Try it under `taskset -c 0`, in a
//! container, or with `CONCURRENT_FUTURES_CPU_COUNT=7`.

use concurrent_futures::{Executor, ProcessPoolExecutor, ThreadPoolExecutor, cpu::CpuCount};
use std::num::NonZeroUsize;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let cpus = CpuCount::detect();
    let known = |count: Option<NonZeroUsize>| count.map_or("unknown".into(), |count| count.to_string());
    println!("logical: {}", cpus.logical());
    println!("physical: {}", known(cpus.physical()));
    println!("affinity: {}", known(cpus.affinity()));
    println!("quota: {}", cpus.quota().map_or("none".into(), |quota| quota.to_string()));
    println!("usable: {}", cpus.usable());
    println!("reason: {}", cpus.reason());
    println!("usable cores: {}", cpus.usable_physical());
    println!("workers of a thread pool: {}", ThreadPoolExecutor::builder().build()?.max_workers());
    println!("workers of a process pool: {}", ProcessPoolExecutor::builder().build()?.max_workers());
    Ok(())
}
