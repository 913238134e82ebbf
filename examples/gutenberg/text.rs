//! A text to count in, for those who have none at hand.

use std::{
    env,
    fs::{self, File},
    io::{self, Write},
    path::{Path, PathBuf},
    process,
};

/// Whoever changes what is generated changes the seed with it: the file's name is made from it.
const SEED: u64 = 1971;

/// Bytes that are written at a time.
const PIECE: usize = 1 << 20;

/// A line ends with the first word behind this column.
const COLUMNS: usize = 68;

/// Drawn from evenly, so that each of the four in the first line is about three words in a hundred. The last two lines
/// are what must not be counted with them: a search for their bytes would find it.
const VOCABULARY: &str = "
    dog dog dog cat cat cat girl girl girl boy boy boy
    the the the the the of of of and and and to to a a in in he that was it his her with as had for she at not but on
    be him they which all said have there from one were whale little garden window through morning something I can
    come do dark give good before both nevertheless
    dogs dog. dog, Dog dogged hotdog dog's cats cat, Cat concat category cat-like scat girls girl. Girl girlish
    schoolgirl girl's boys boy, Boy boyish cowboy \"boy\" do-g ca";

/// The text of `bytes` bytes in the temporary directory. It is made if it is not there yet.
///
/// # Errors
/// It cannot be written.
pub(crate) fn make_once(bytes: u64, written: impl FnMut(u64)) -> Result<PathBuf, String> {
    let path = env::temp_dir().join(format!("gutenberg-{SEED}-{bytes}.txt"));
    if fs::metadata(&path).is_ok_and(|found| found.is_file() && found.len() == bytes) {
        return Ok(path);
    }
    // Under another name until it is complete: whoever finds the text finds all of it.
    let unfinished = path.with_extension(format!("{}.part", process::id()));
    let made = generate(&unfinished, bytes, written).and_then(|()| fs::rename(&unfinished, &path));
    made.map_err(|error| {
        let _ = fs::remove_file(&unfinished); // it may not even have been created
        format!("{path:?} cannot be made: {error}")
    })?;
    Ok(path)
}

fn generate(path: &Path, bytes: u64, mut written: impl FnMut(u64)) -> io::Result<()> {
    let mut file = File::create_new(path)?;
    let vocabulary = VOCABULARY.split_whitespace().collect();
    let mut words = Words { vocabulary, random: fastrand::Rng::with_seed(SEED), column: 0 };
    let mut piece = Vec::with_capacity(PIECE + 2 * COLUMNS);
    let mut left = bytes;
    while left > 0 {
        while piece.len() < PIECE {
            words.put_next(&mut piece);
        }
        let length = left.min(PIECE as u64);
        file.write_all(&piece[..length as usize])?;
        piece.drain(..length as usize); // the last word may go on
        left -= length;
        written(length);
    }
    Ok(())
}

/// Words in lines, without end.
struct Words {
    vocabulary: Vec<&'static str>,
    random: fastrand::Rng,
    column: usize,
}

impl Words {
    fn put_next(&mut self, text: &mut Vec<u8>) {
        let word = self.vocabulary[self.random.usize(..self.vocabulary.len())];
        text.extend_from_slice(word.as_bytes());
        self.column += word.len() + 1;
        if self.column < COLUMNS {
            text.push(b' ');
        } else {
            text.push(b'\n');
            self.column = 0;
        }
    }
}
