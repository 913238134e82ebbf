//! The program, as a user runs it, on pictures that are made here: good ones, broken ones, and some that end or hold up their
//! decoder.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{self, Command},
};

/// Long enough for a picture of a few points on a busy machine, and no longer than a test may take.
const LIMIT: &str = "--limit=3";

/// A folder of this test's own, with two good pictures and one that is none.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Folder {
        let folder = Folder(env::temp_dir().join(format!("consumer-{name}-{}", process::id())));
        fs::create_dir_all(folder.0.join("in")).unwrap();
        let picture = image::RgbImage::from_fn(300, 200, |x, y| image::Rgb([x as u8, y as u8, 7]));
        picture.save(folder.file("photo.JPG")).unwrap();
        picture.save(folder.file("drawing.png")).unwrap();
        folder.add("amiga.iff", &form(&[chunk(b"BMHD", &header(16, 2)), chunk(b"CMAP", &[0; 6]), body()].concat()));
        folder.add("letter.png", b"Dear all, no picture this time.");
        folder.add("notes.txt", b"not looked at");
        folder
    }

    fn file(&self, name: &str) -> PathBuf {
        self.0.join("in").join(name)
    }

    fn add(&self, name: &str, bytes: &[u8]) {
        fs::write(self.file(name), bytes).unwrap();
    }

    /// What the program exits with and prints, and the thumbnails that there are then.
    fn run(&self, arguments: &[&str]) -> (Option<i32>, String, Vec<String>) {
        let to = self.0.join("out");
        let mut program = Command::new(env!("CARGO_BIN_EXE_consumer"));
        let output = program.args(arguments).args([&self.0.join("in"), &to]).output().unwrap();
        // What decoders write to standard error as they end is beside the point.
        let said = if output.stdout.is_empty() { output.stderr } else { output.stdout };
        let said = String::from_utf8(said).unwrap();
        let entries = fs::read_dir(to).into_iter().flatten();
        let mut made: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        made.sort();
        (output.status.code(), said.replace(self.0.to_str().unwrap(), ""), made)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

const GOOD: [&str; 3] = ["amiga.iff.png", "drawing.png.png", "photo.JPG.png"];

fn chunk(kind: &[u8; 4], body: &[u8]) -> Vec<u8> {
    [&kind[..], &(body.len() as u32).to_be_bytes(), body].concat()
}

fn form(body: &[u8]) -> Vec<u8> {
    chunk(b"FORM", &[b"ILBM", body].concat())
}

/// One plane, whose rows are compressed.
fn header(width: u16, height: u16) -> Vec<u8> {
    [&width.to_be_bytes()[..], &height.to_be_bytes(), &[0, 0, 0, 0, 1, 0, 1, 0]].concat()
}

/// Two rows of two bytes: one as it is, one repeated.
fn body() -> Vec<u8> {
    chunk(b"BODY", &[1, 0xaa, 0x55, 0xff, 0xaa])
}

/// A form in a form in a form, deeper than any stack.
#[cfg(feature = "processes")]
fn nested() -> Vec<u8> {
    let depth = 1 << 19;
    let forms =
        (0..depth).rev().map(|inside: u32| [&b"FORM"[..], &(4 + 12 * inside).to_be_bytes()[..], b"ILBM"].concat());
    forms.collect::<Vec<_>>().concat()
}

/// A chunk whose size leads back to its own beginning.
fn endless() -> Vec<u8> {
    form(&[&b"JUNK"[..], &(8_u32.wrapping_neg()).to_be_bytes()].concat())
}

#[test]
#[cfg(feature = "processes")]
fn a_file_that_ends_its_decoder_costs_only_itself() {
    let folder = Folder::new("processes");
    folder.add("bottomless.lbm", &nested());
    folder.add("endless.lbm", &endless());
    folder.add("enormous.lbm", &form(&chunk(b"BMHD", &header(65_535, 65_535))));
    let (code, said, made) = folder.run(&[LIMIT, "--workers=2"]);
    let lines: Vec<_> = said.lines().collect();
    assert_eq!(lines[0], "3 thumbnails in /out", "{said}");
    assert_eq!(lines[1], "/in/bottomless.lbm: its decoder was ended by SIGSEGV", "{said}");
    assert_eq!(lines[2], "/in/endless.lbm: not done after 3s", "{said}");
    assert_eq!(lines[3], "/in/enormous.lbm: needs more memory than a picture should", "{said}");
    assert!(lines[4].starts_with("/in/letter.png: ") && lines.len() == 5, "{said}");
    assert_eq!((code, made), (Some(1), GOOD.map(String::from).to_vec()));
}

/// A crash would take the program along; a picture that hangs keeps its thread, and the others go on.
#[test]
fn on_threads_a_file_that_hangs_is_named() {
    let folder = Folder::new("threads");
    folder.add("endless.lbm", &endless());
    let (code, said, made) = folder.run(&["--threads", LIMIT, "--workers=2"]);
    let lines: Vec<_> = said.lines().collect();
    assert_eq!(lines[..2], ["3 thumbnails in /out", "/in/endless.lbm: not done after 3s"], "{said}");
    assert!(lines[2].starts_with("/in/letter.png: ") && lines.len() == 3, "{said}");
    assert_eq!((code, made), (Some(1), GOOD.map(String::from).to_vec()));
}

#[test]
fn thumbnails_show_what_the_pictures_show() {
    let folder = Folder::new("shown");
    let (code, said, _) = folder.run(&[]);
    assert_eq!(code, Some(1), "{said}");
    let open = |name: &str| image::open(folder.0.join("out").join(name)).unwrap().into_rgb8();
    assert_eq!(open("drawing.png.png").dimensions(), (128, 85));
    fs::remove_file(folder.file("letter.png")).unwrap();
    let (code, said, made) = folder.run(&["--threads"]);
    assert_eq!((code, said.as_str(), made.len()), (Some(0), "3 thumbnails in /out\n", 3));
}

#[test]
#[cfg(not(feature = "processes"))]
fn processes_that_are_not_there_are_refused() {
    let (code, said, made) = Folder::new("refused").run(&["--processes"]);
    assert_eq!((code, said.as_str(), made.len()), (Some(2), "consumer: this program was built with threads only\n", 0));
}

#[test]
fn what_cannot_be_done_is_said_in_one_line() {
    for arguments in [&["only-one"][..], &["--limit=0", "a", "b"], &["/no/such/folder", "b"], &["--gpu", "a", "b"]] {
        let output = Command::new(env!("CARGO_BIN_EXE_consumer")).args(arguments).output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.code() == Some(2) && said.lines().count() == 1, "{arguments:?}: {said}");
        assert!(!Path::new("b").exists());
    }
}
