//! What no pool can beat by much: two threads that count over a mapping of the text.
#![expect(unsafe_code, reason = "a file is mapped")]

use memmap2::Mmap;
use rivals::contest::{Contestant, Sample};
use std::{fs::File, thread, time::Instant};

use crate::{
    WORKERS,
    job::Job,
    task::{Counts, count},
    text::digest,
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
        let Job::Text { text, .. } = job else { return Err("it has no pool".into()) };
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
