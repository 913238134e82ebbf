//! What runs in workers: the same functions for all pools of this language.

use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_bytes::ByteBuf;
use std::{
    cell::RefCell,
    fs::{self, File},
    io,
    marker::PhantomData,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    process, thread,
    time::{Duration, Instant},
};

/// A function, with what a pool made by hand needs to send it.
pub(crate) trait Task: 'static {
    type In: Value;
    type Out: Value;
    fn run(input: Self::In) -> Self::Out;
    fn pack(input: Self::In) -> Call;
    /// `None`: this is the reply to something else.
    fn unpack(reply: Reply) -> Option<Self::Out>;
}

pub(crate) trait Value: Serialize + DeserializeOwned + Send + 'static {}
impl<T: Serialize + DeserializeOwned + Send + 'static> Value for T {}

/// Bytes in the form that a pool takes best.
pub(crate) trait Bytes: Value + Clone + AsRef<[u8]> + From<Vec<u8>> {
    fn into_vec(self) -> Vec<u8>;
}

impl Bytes for Vec<u8> {
    fn into_vec(self) -> Vec<u8> {
        self
    }
}

impl Bytes for ByteBuf {
    fn into_vec(self) -> Vec<u8> {
        ByteBuf::into_vec(self)
    }
}

/// What a pool made by hand sends.
#[derive(Serialize, Deserialize)]
pub(crate) enum Call {
    Square(u64),
    EchoBytes(ByteBuf),
    EchoFloats(Vec<f64>),
    CountChunk(ByteBuf),
    CountSpan(Span),
    Hold((PathBuf, u32)),
    WhoIsIt,
}

/// What it is answered.
#[derive(Serialize, Deserialize)]
pub(crate) enum Reply {
    Number(u64),
    Bytes(ByteBuf),
    Floats(Vec<f64>),
    Counts(Counts),
    Process(u32),
}

impl Call {
    pub(crate) fn answer(self) -> Reply {
        match self {
            Call::Square(x) => Reply::Number(Square::run(x)),
            Call::EchoBytes(bytes) => Reply::Bytes(EchoBytes::run(bytes)),
            Call::EchoFloats(floats) => Reply::Floats(EchoFloats::run(floats)),
            Call::CountChunk(chunk) => Reply::Counts(CountChunk::run(chunk)),
            Call::CountSpan(span) => Reply::Counts(CountSpan::run(span)),
            Call::Hold(place) => Reply::Process(Hold::run(place)),
            Call::WhoIsIt => Reply::Process(WhoIsIt::run(())),
        }
    }
}

macro_rules! task {
    ($name:ident $(<$b:ident>)?: $in:ty => $out:ty, $run:expr, $pack:expr, $reply:pat => $unpacked:expr) => {
        pub(crate) struct $name $(<$b>(PhantomData<$b>))?;
        impl $(<$b: Bytes>)? Task for $name $(<$b>)? {
            type In = $in;
            type Out = $out;
            fn run(input: $in) -> $out {
                $run(input)
            }
            fn pack(input: $in) -> Call {
                $pack(input)
            }
            fn unpack(reply: Reply) -> Option<$out> {
                match reply {
                    $reply => Some($unpacked),
                    _ => None,
                }
            }
        }
    };
}

task!(Square: u64 => u64, square, Call::Square, Reply::Number(number) => number);
task!(EchoBytes<B>: B => B, |bytes| bytes, |bytes: B| Call::EchoBytes(bytes.into_vec().into()),
      Reply::Bytes(bytes) => bytes.into_vec().into());
task!(EchoFloats: Vec<f64> => Vec<f64>, |floats| floats, Call::EchoFloats, Reply::Floats(floats) => floats);
task!(CountChunk<B>: B => Counts, |chunk: B| count(chunk.as_ref()), |chunk: B| Call::CountChunk(chunk.into_vec().into()),
      Reply::Counts(counts) => counts);
task!(CountSpan: Span => Counts, count_span, Call::CountSpan, Reply::Counts(counts) => counts);
task!(Hold: (PathBuf, u32) => u32, hold, Call::Hold, Reply::Process(id) => id);
task!(WhoIsIt: () => u32, |()| process::id(), |()| Call::WhoIsIt, Reply::Process(id) => id);

pub(crate) fn square(x: u64) -> u64 {
    x.wrapping_mul(x)
}

/// Wraps around.
pub(crate) fn sum(numbers: &[u64]) -> u64 {
    numbers.iter().fold(0, |sum, number| sum.wrapping_add(*number))
}

pub(crate) const WORDS: [&str; 4] = ["dog", "cat", "girl", "boy"];

/// How often each of the words was found.
pub(crate) type Counts = [u64; WORDS.len()];

/// What a user would write.
pub(crate) fn count(text: &[u8]) -> Counts {
    let mut counts = Counts::default();
    for word in text.split(u8::is_ascii_whitespace) {
        match word {
            b"dog" => counts[0] += 1,
            b"cat" => counts[1] += 1,
            b"girl" => counts[2] += 1,
            b"boy" => counts[3] += 1,
            _ => {}
        }
    }
    counts
}

/// Part of a file that begins and ends between words.
#[derive(Serialize, Deserialize, Clone)]
pub(crate) struct Span {
    pub(crate) path: PathBuf,
    pub(crate) start: u64,
    pub(crate) length: usize,
}

fn count_span(span: Span) -> Counts {
    // A worker counts many spans, one after the other.
    thread_local!(static BUFFER: RefCell<Vec<u8>> = RefCell::default());
    BUFFER.with_borrow_mut(|buffer| {
        buffer.resize(span.length, 0);
        let read = File::open(&span.path).and_then(|file| file.read_exact_at(buffer, span.start));
        read.expect("the parent holds the text open");
        count(buffer)
    })
}

/// Says in `folder` which process it is, and stays until it may leave.
fn hold((folder, index): (PathBuf, u32)) -> u32 {
    const PATIENCE: Duration = Duration::from_secs(30);
    let (unfinished, name) = (folder.join(format!("{index}.part")), folder.join(index.to_string()));
    let written = fs::write(&unfinished, process::id().to_string()).and_then(|()| fs::rename(&unfinished, name));
    written.expect("the parent made the folder");
    let (began, leave) = (Instant::now(), folder.join("leave"));
    while !leave.exists() && began.elapsed() < PATIENCE {
        thread::sleep(Duration::from_millis(1));
    }
    process::id()
}

/// Where calls that [`Hold`] say that they have begun, and learn that they may end.
pub(crate) struct Folder(PathBuf);

impl Folder {
    pub(crate) fn new() -> io::Result<Self> {
        let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        let path = std::env::temp_dir().join(format!("rivals-{}-{}", process::id(), since.as_nanos()));
        fs::create_dir(&path)?;
        Ok(Folder(path))
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    /// The process in which the call `index` has begun, once it has.
    pub(crate) fn process(&self, index: u32) -> Result<u32, String> {
        let began = Instant::now();
        while began.elapsed() < Duration::from_secs(20) {
            if let Ok(id) = fs::read_to_string(self.0.join(index.to_string())) {
                return id.parse().map_err(|_| format!("{id:?} is no process"));
            }
            thread::sleep(Duration::from_millis(1));
        }
        Err("a call has not begun in 20 seconds".into())
    }

    pub(crate) fn let_go(&self) -> Result<(), String> {
        File::create(self.0.join("leave")).map_err(|error| error.to_string()).map(drop)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // Whoever still waits may go. What is left is in the temporary directory.
        let _ = self.let_go();
        let _ = fs::remove_dir_all(&self.0);
    }
}
