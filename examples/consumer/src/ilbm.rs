//! A decoder for the Amiga's pictures, such as one inherits: it was written for files that were all well-formed. Two of its
//! faults are left as they were, since what they do is what this program has to live with.

use image::RgbImage;

#[derive(Default)]
struct Picture<'a> {
    width: u32,
    height: u32,
    planes: u32,
    compressed: bool,
    colours: &'a [u8],
    body: &'a [u8],
}

pub(crate) fn decode(file: &[u8]) -> Result<RgbImage, String> {
    let mut picture = Picture::default();
    read_chunks(file, &mut picture)?;
    if picture.planes == 0 || picture.planes > 8 {
        return Err("it has no header that can be read".into());
    }
    draw(&picture)
}

/// First fault: goes as deep as the file says, until the stack is used up. Second: a size near 4 GiB leads back to where
/// it was read, again and again.
fn read_chunks<'a>(bytes: &'a [u8], picture: &mut Picture<'a>) -> Result<(), String> {
    let mut at = 0_u32;
    while let Some((head, rest)) = bytes.get(at as usize..).and_then(|rest| rest.split_first_chunk::<8>()) {
        let (kind, size) = (&head[..4], u32::from_be_bytes([head[4], head[5], head[6], head[7]]));
        let body = &rest[..rest.len().min(size as usize)];
        match kind {
            b"FORM" | b"LIST" | b"CAT " => read_chunks(body.get(4..).unwrap_or_default(), picture)?,
            b"BMHD" => {
                let [w0, w1, h0, h1, _, _, _, _, planes, _, compression, ..] = body else {
                    return Err("its header is too short".into());
                };
                picture.width = u16::from_be_bytes([*w0, *w1]).into();
                picture.height = u16::from_be_bytes([*h0, *h1]).into();
                picture.planes = (*planes).into();
                picture.compressed = *compression == 1;
            }
            b"CMAP" => picture.colours = body,
            b"BODY" => picture.body = body,
            _ => {}
        }
        at = at.wrapping_add(8).wrapping_add(size).wrapping_add(size % 2);
    }
    Ok(())
}

/// A row is a row of bits for each plane, and the bits of a point are the number of its colour.
fn draw(picture: &Picture) -> Result<RgbImage, String> {
    let mut image = RgbImage::new(picture.width, picture.height);
    let row_bytes = picture.width.div_ceil(16) as usize * 2;
    let mut body = picture.body;
    for y in 0..picture.height {
        let mut numbers = vec![0_usize; picture.width as usize];
        for plane in 0..picture.planes {
            let row = take_row(&mut body, row_bytes, picture.compressed).ok_or("it ends too early")?;
            for (x, number) in numbers.iter_mut().enumerate() {
                *number |= usize::from(row[x / 8] >> (7 - x % 8) & 1) << plane;
            }
        }
        for (x, number) in numbers.into_iter().enumerate() {
            let colour = picture.colours.get(3 * number..3 * number + 3).ok_or("it lacks a colour")?;
            image.get_pixel_mut(x as u32, y).0.copy_from_slice(colour);
        }
    }
    Ok(image)
}

fn take_row(body: &mut &[u8], length: usize, compressed: bool) -> Option<Vec<u8>> {
    if !compressed {
        return body.split_off(..length).map(<[u8]>::to_vec);
    }
    let mut row = Vec::with_capacity(length);
    while row.len() < length {
        match *body.split_off_first()? as i8 {
            i8::MIN => {}
            count @ 0.. => row.extend_from_slice(body.split_off(..=count as usize)?),
            count => row.extend(std::iter::repeat_n(*body.split_off_first()?, 1 + usize::from(count.unsigned_abs()))),
        }
    }
    Some(row)
}
