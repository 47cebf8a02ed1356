//! JPEG and PNG files to RGB, as Pillow's `Image.open(file).convert("RGB")` reads them.
//!
//! That is what torchvision's `ImageFolder` does, so:
//! - transparency is dropped, not blended;
//! - the orientation in EXIF is ignored: a rotated photograph stays as stored;
//! - the format is told by the first bytes, whatever the extension (ImageNet has
//!   a PNG named `.JPEG`);
//! - samples of 16 bits keep their upper byte. (Pillow does so too, except for
//!   grey images without alpha, which it clips at 255: nearly all white. That is not
//!   copied.)
//!
//! Unlike there, whatever is seen to be broken is an error: a truncated JPEG, one
//! without an end marker, a PNG whose checksum is wrong. JPEG has no checksum, so
//! changed bytes in it may go unnoticed.

use super::jpeg::decode_jpeg;
use crate::config::Orientation;
use crate::pixels::RgbImage;
use image::codecs::png::PngDecoder;
use image::{ColorType, ImageDecoder, Limits};
use std::io::Cursor;
use std::path::PathBuf;

/// Larger images are refused before their pixels are allocated: from here on Pillow warns of decompression bombs. As RGB
/// that is a quarter of a gigabyte, for each thread that loads images.
pub const MAX_PIXELS: usize = 89_478_485;

/// Longer files are refused before they are read.
pub(super) const MAX_BYTES: u64 = 1 << 30;

/// An image file that is missing, broken, or of a kind that is not read.
#[derive(Debug, thiserror::Error)]
#[error("{} cannot be used: {reason}; replace the file or remove it", path.display())]
pub struct BadImage {
    pub path: PathBuf,
    pub reason: String,
}

/// Decodes a JPEG or PNG in memory into `out`, whose memory is reused: 8 bits a channel, `[height, width, 3]`.
///
/// Greyscale is repeated; palettes, CMYK and YCCK are converted; 16-bit samples keep their upper byte.
/// The error is the reason, in words. `out` is unspecified after an error.
pub fn decode_bytes(bytes: &[u8], _orientation: Orientation, out: &mut RgbImage) -> Result<(), String> {
    match bytes {
        [0xff, 0xd8, ..] => decode_jpeg(bytes, out),
        [0x89, b'P', b'N', b'G', ..] => decode_png(bytes, out),
        [] => Err("it is empty".to_owned()),
        _ => Err(format!("it is {}, and JPEG and PNG are read", kind(bytes))),
    }
}

/// Whether a file that begins with these bytes is in a format that is read.
pub(super) fn is_read(beginning: &[u8]) -> bool {
    matches!(beginning, [0xff, 0xd8, ..] | [0x89, b'P', b'N', b'G', ..])
}

/// What a file is that is neither JPEG nor PNG.
pub(super) fn kind(bytes: &[u8]) -> &'static str {
    match bytes {
        [b'G', b'I', b'F', b'8', ..] => "a GIF",
        [b'R', b'I', b'F', b'F', _, _, _, _, b'W', b'E', b'B', b'P', ..] => "a WebP image",
        [b'B', b'M', ..] => "a BMP image",
        [b'I', b'I', 42, 0, ..] | [b'M', b'M', 0, 42, ..] => "a TIFF image",
        [_, _, _, _, b'f', b't', b'y', b'p', ..] => "an AVIF, HEIC or video file",
        [b'<', ..] => "a text in HTML or XML (a failed download?)",
        _ => "no image of a known kind",
    }
}

/// Refuses images that are empty or too large, before their pixels are allocated.
pub(super) fn check_size(width: usize, height: usize) -> Result<(), String> {
    if width == 0 || height == 0 {
        return Err("it has no pixels".to_owned());
    }
    if width.saturating_mul(height) > MAX_PIXELS {
        return Err(format!(
            "its {width}x{height} pixels are more than the {MAX_PIXELS} that are read: make it smaller"
        ));
    }
    Ok(())
}

fn decode_png(bytes: &[u8], out: &mut RgbImage) -> Result<(), String> {
    let broken = |error: image::ImageError| format!("broken PNG ({error})");
    let mut limits = Limits::no_limits();
    // Of the decoder itself: two rows, and what describes the picture.
    limits.max_alloc = Some(128 << 20);
    let decoder = PngDecoder::with_limits(Cursor::new(bytes), limits).map_err(broken)?;
    let (width, height) = decoder.dimensions();
    let (width, height) = (width as usize, height as usize);
    check_size(width, height)?;
    let color = decoder.color_type();
    (out.width, out.height) = (width, height);
    // Where the byte of each channel lies in a pixel; the upper byte of a 16-bit sample, which is in native order.
    let high = usize::from(cfg!(target_endian = "little"));
    let (stride, channels) = match color {
        ColorType::L8 => (1, [0; 3]),
        ColorType::La8 => (2, [0; 3]),
        ColorType::Rgb8 => (3, [0, 1, 2]),
        ColorType::Rgba8 => (4, [0, 1, 2]),
        ColorType::L16 => (2, [high; 3]),
        ColorType::La16 => (4, [high; 3]),
        ColorType::Rgb16 => (6, [high, high + 2, high + 4]),
        ColorType::Rgba16 => (8, [high, high + 2, high + 4]),
        other => return Err(format!("PNG of an unknown kind ({other:?})")),
    };
    // Unpacked where the pixels are to lie, so that there is one copy of them.
    out.pixels.resize(width * height * stride.max(3), 0);
    decoder.read_image(&mut out.pixels[..width * height * stride]).map_err(broken)?;
    let mut place = |pixel: usize| {
        let samples = channels.map(|offset| out.pixels[pixel * stride + offset]);
        out.pixels[3 * pixel..][..3].copy_from_slice(&samples);
    };
    // Each pixel moves to a place that none of those to come lies in.
    if stride < 3 {
        (0..width * height).rev().for_each(&mut place);
    } else if color != ColorType::Rgb8 {
        (0..width * height).for_each(&mut place);
    }
    out.pixels.truncate(width * height * 3);
    Ok(())
}
