//! One call: reads a picture and writes its thumbnail. Whatever is wrong with the file happens in here.

use image::DynamicImage;
use std::{ffi::OsString, fs, path::Path};

use crate::ilbm;

/// Thumbnails fit into a square of so many points.
const SIDE: u32 = 128;

const EXTENSIONS: [&str; 5] = ["jpg", "jpeg", "png", "iff", "lbm"];

pub(crate) fn is_picture(path: &Path) -> bool {
    let extension = path.extension().unwrap_or_default();
    EXTENSIONS.iter().any(|known| extension.eq_ignore_ascii_case(known))
}

/// Where a thumbnail is until it is whole.
pub(crate) fn unfinished(to: &Path) -> std::path::PathBuf {
    to.with_extension("part")
}

/// What is submitted: a function, whose argument says all that it needs. Paths need not be text, so they come as the
/// system's strings.
pub(crate) fn make((from, to): (OsString, OsString)) -> Result<(), String> {
    let (from, to) = (Path::new(&from), Path::new(&to));
    let extension = from.extension().unwrap_or_default();
    let picture = if extension.eq_ignore_ascii_case("iff") || extension.eq_ignore_ascii_case("lbm") {
        let file = fs::read(from).map_err(|error| error.to_string())?;
        DynamicImage::from(ilbm::decode(&file)?)
    } else {
        image::open(from).map_err(|error| error.to_string())?
    };
    let unfinished = unfinished(to);
    let saved = picture.thumbnail(SIDE, SIDE).save_with_format(&unfinished, image::ImageFormat::Png);
    saved.map_err(|error| error.to_string())?;
    fs::rename(&unfinished, to).map_err(|error| error.to_string())
}
