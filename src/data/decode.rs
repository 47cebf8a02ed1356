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
use crate::pixels::RgbImage;
use image::codecs::png::PngDecoder;
use image::{ColorType, ImageDecoder, Limits};
use std::io::Cursor;
use std::path::{Path, PathBuf};

/// Larger images are refused before their pixels are allocated: Pillow's limit for decompression bombs.
pub const MAX_PIXELS: usize = 178_956_970;

/// An image file that is missing, broken, or of a kind that is not read.
#[derive(Debug, thiserror::Error)]
#[error("{} cannot be used: {reason}; replace the file or remove it", path.display())]
pub struct BadImage {
    pub path: PathBuf,
    pub reason: String,
}

/// Decodes a JPEG or PNG file into `out`, whose memory is reused.
pub fn decode_file(path: &Path, out: &mut RgbImage) -> Result<(), BadImage> {
    let bad = |reason| BadImage { path: path.to_path_buf(), reason };
    let bytes = std::fs::read(path).map_err(|error| bad(error.to_string()))?;
    decode_bytes(&bytes, out).map_err(bad)
}

/// Decodes a JPEG or PNG in memory into `out`: 8 bits a channel, `[height, width, 3]`.
///
/// Greyscale is repeated; palettes, CMYK and YCCK are converted; 16-bit samples keep their upper byte.
/// The error is the reason, in words. `out` is unspecified after an error.
pub fn decode_bytes(bytes: &[u8], out: &mut RgbImage) -> Result<(), String> {
    match bytes {
        [0xff, 0xd8, ..] => decode_jpeg(bytes, out),
        [0x89, b'P', b'N', b'G', ..] => decode_png(bytes, out),
        [] => Err("it is empty".to_owned()),
        _ => Err(format!("it is {}, and JPEG and PNG are read", kind(bytes))),
    }
}

/// What a file is that is neither JPEG nor PNG.
fn kind(bytes: &[u8]) -> &'static str {
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
        return Err(format!("{width}x{height} is more than the {MAX_PIXELS} pixels that are read"));
    }
    Ok(())
}

fn decode_png(bytes: &[u8], out: &mut RgbImage) -> Result<(), String> {
    let broken = |error: image::ImageError| format!("broken PNG ({error})");
    let mut limits = Limits::no_limits();
    // 16 bits, four channels, and the decoder's own needs.
    limits.max_alloc = Some(MAX_PIXELS as u64 * 9);
    let decoder = PngDecoder::with_limits(Cursor::new(bytes), limits).map_err(broken)?;
    let (width, height) = decoder.dimensions();
    let (width, height) = (width as usize, height as usize);
    check_size(width, height)?;
    let color = decoder.color_type();
    let mut raw = vec![0; width * height * usize::from(color.bytes_per_pixel())];
    decoder.read_image(&mut raw).map_err(broken)?;
    (out.width, out.height) = (width, height);
    out.pixels.resize(width * height * 3, 0);
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
    for (pixel, samples) in out.pixels.chunks_exact_mut(3).zip(raw.chunks_exact(stride)) {
        for (value, offset) in pixel.iter_mut().zip(channels) {
            *value = samples[offset];
        }
    }
    Ok(())
}
