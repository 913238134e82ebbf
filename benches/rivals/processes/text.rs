//! The text whose words are counted.

use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create};
use std::{
    fs::File,
    io::{self, Write},
    os::{fd::AsRawFd, unix::fs::FileExt},
    path::PathBuf,
    process,
    sync::OnceLock,
};

use crate::task::{Counts, Span, WORDS};

/// Drawn from evenly. The last line is what must not be counted with the first.
const VOCABULARY: &str = "
    dog cat girl boy
    the the of of and to a in he that was it his her with as had for she at not but on be him they which all said have
    there from one were whale little garden window through morning something come dark give good before nevertheless
    dogs dog. Dog hotdog cats cat, concat category girls schoolgirl girlish boys cowboy boyish do ca gir";

/// How much of the text is drawn; the rest says it again.
const DRAWN: usize = 8 << 20;
const COLUMNS: usize = 70;
const CHUNK: usize = 256 << 10;

/// Made when somebody first needs it. It is in memory, and sealed: nobody can change it, so all count the same, and it
/// may be mapped.
pub(crate) struct Text {
    bytes: usize,
    made: OnceLock<Made>,
}

struct Made {
    file: File,
    /// By which workers find it.
    path: PathBuf,
    /// Where chunks begin and end: between words.
    cuts: Vec<usize>,
    counts: Counts,
}

impl Text {
    /// Of about as many bytes, in whole lines.
    pub(crate) fn of(bytes: usize) -> Self {
        Text { bytes, made: OnceLock::new() }
    }

    fn made(&self) -> &Made {
        self.made.get_or_init(|| make(self.bytes))
    }

    pub(crate) fn file(&self) -> &File {
        &self.made().file
    }

    pub(crate) fn spans(&self) -> impl Iterator<Item = Span> + Send {
        let Made { path, cuts, .. } = self.made();
        cuts.windows(2).map(move |cut| Span { path: path.clone(), start: cut[0] as u64, length: cut[1] - cut[0] })
    }

    pub(crate) fn chunks(&self) -> impl Iterator<Item = Vec<u8>> + Send {
        let Made { file, cuts, .. } = self.made();
        cuts.windows(2).map(move |cut| {
            let mut chunk = vec![0; cut[1] - cut[0]];
            file.read_exact_at(&mut chunk, cut[0] as u64).expect("the text cannot shrink");
            chunk
        })
    }

    pub(crate) fn expected(&self) -> u64 {
        digest(&self.made().counts)
    }
}

/// All counts in one number.
pub(crate) fn digest(counts: &Counts) -> u64 {
    counts.iter().fold(0, |digest: u64, count| digest.wrapping_mul(1_000_003).wrapping_add(*count))
}

/// A file in memory, which nobody can change after `write` has.
pub(crate) fn sealed(name: &str, write: impl FnOnce(&mut File) -> io::Result<()>) -> io::Result<File> {
    let mut file = File::from(memfd_create(name, MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?);
    write(&mut file)?;
    fcntl_add_seals(&file, SealFlags::WRITE | SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL)?;
    Ok(file)
}

fn make(bytes: usize) -> Made {
    let drawn = draw(bytes.min(DRAWN));
    let times = bytes.div_ceil(drawn.len());
    let file = sealed("text", |file| (0..times).try_for_each(|_| file.write_all(&drawn))).expect("memory for the text");

    // Cut behind the end of a line, as often as chunks fit.
    let length = drawn.len() * times;
    let cut = |at: usize| {
        let within = &drawn[at % drawn.len()..];
        at + within.iter().position(|byte| *byte == b'\n').map_or(within.len(), |end| end + 1)
    };
    let mut cuts: Vec<usize> = [0].into_iter().chain((CHUNK..length).step_by(CHUNK).map(cut)).collect();
    cuts.push(length);
    cuts.dedup();

    // By other means than workers count.
    let words: Vec<&str> = str::from_utf8(&drawn).expect("it is ASCII").split_ascii_whitespace().collect();
    let counts = WORDS.map(|wanted| (words.iter().filter(|word| **word == wanted).count() * times) as u64);
    let path = format!("/proc/{}/fd/{}", process::id(), file.as_raw_fd()).into();
    Made { file, path, cuts, counts }
}

fn draw(bytes: usize) -> Vec<u8> {
    let vocabulary: Vec<&str> = VOCABULARY.split_whitespace().collect();
    let mut random = fastrand::Rng::with_seed(1971);
    let mut text = Vec::with_capacity(bytes + COLUMNS);
    let mut line = 0;
    while text.len() < bytes {
        text.extend_from_slice(vocabulary[random.usize(..vocabulary.len())].as_bytes());
        let full = text.len() - line > COLUMNS;
        text.push(if full { b'\n' } else { b' ' });
        if full {
            line = text.len();
        }
    }
    text.push(b'\n');
    text
}
