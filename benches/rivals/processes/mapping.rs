//! What no pool can beat by much: loops over mapped memory, in this process. Two threads count the words of the text; one sums numbers.
#![expect(unsafe_code, reason = "a file is mapped")]

use memmap2::Mmap;
use rivals::contest::{Contestant, Sample};
use std::{error::Error, fs::File, hint, io::Write, thread, time::Instant};

use crate::{
    WORKERS,
    job::{Job, numbers},
    pool::sum_shared,
    task::{Counts, count, sum},
    text::{digest, sealed},
};

pub(crate) struct Loop;

impl Loop {
    pub(crate) fn new() -> Self {
        Loop
    }
}

impl Contestant<Job> for Loop {
    fn name(&self) -> &'static str {
        "loop"
    }

    fn open(&mut self) -> Result<(), String> {
        Ok(())
    }

    fn measure(&mut self, job: &Job) -> Result<Sample, String> {
        let text = match job {
            Job::Text { text, .. } => text,
            Job::SumShared { bytes, n } => return sum_mapped(*bytes, *n).map_err(|error| error.to_string()),
            _ => return Err("it has no pool".into()),
        };
        let began = Instant::now();
        let counts = count_mapped(text.file()).map_err(|error| error.to_string())?;
        let seconds = began.elapsed().as_secs_f64();
        Ok(Sample::new(seconds, [("seconds", seconds)], digest(&counts)))
    }

    fn close(&mut self) {}
}

/// `text` is that of [`Text::file`](crate::text::Text::file).
fn count_mapped(text: &File) -> std::io::Result<Counts> {
    // SAFETY: bytes of a mapping must not change while they are borrowed, and must be there. This file is memory that
    // `text.rs` has sealed against writing, shrinking and the removal of seals before anybody else could see it, and
    // it has no other kind of file to give.
    let text = unsafe { Mmap::map(text)? };
    let share = |index: usize| {
        // Between words: at the beginning, or before the next whitespace.
        let cut = |at: usize| match at {
            0 => 0,
            _ => at + text[at..].iter().position(u8::is_ascii_whitespace).unwrap_or(text.len() - at),
        };
        &text[cut(text.len() * index / WORKERS)..cut(text.len() * (index + 1) / WORKERS)]
    };
    let mut sum = Counts::default();
    thread::scope(|scope| {
        let threads: Vec<_> = (0..WORKERS).map(|index| scope.spawn(move || count(share(index)))).collect();
        for thread in threads {
            let counts = thread.join().expect("counting cannot fail");
            sum.iter_mut().zip(counts).for_each(|(sum, count)| *sum += count);
        }
    });
    Ok(sum)
}

/// The first reading meets fresh pages, as a worker's does.
fn sum_mapped(bytes: usize, n: u64) -> Result<Sample, Box<dyn Error>> {
    let file = sealed("numbers", |file| file.write_all(bytemuck::cast_slice(&numbers(bytes))))?;
    // SAFETY: as for the text.
    let mapped = unsafe { Mmap::map(&file)? };
    let mapped = bytemuck::try_cast_slice(&mapped).map_err(|error| error.to_string())?;
    Ok(sum_shared(|| Ok(sum(hint::black_box(mapped))), n)?)
}
