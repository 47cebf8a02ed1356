//! Image files to RGB, as Pillow's `Image.open(file).convert("RGB")` reads them.
//!
//! That is what torchvision's `ImageFolder` does, so:
//! - the format is told by the content, whatever the extension (ImageNet has a PNG
//!   named `.JPEG`);
//! - transparency is dropped, not blended;
//! - the orientation in EXIF is ignored unless it is asked for; that of a TIFF is
//!   followed always;
//! - samples of 16 bits keep their upper byte. (Pillow does so too, except for
//!   grey images without alpha, which it clips at 255: nearly all white. That is not
//!   copied.)
//!
//! Unlike there, whatever is seen to be broken is an error: a truncated JPEG, one
//! without an end marker, a PNG whose checksum is wrong. JPEG has no checksum, so
//! changed bytes in it may go unnoticed.
//!
//! A format is a row of `FORMATS` and a file in `decode/`.

mod bmp;
mod exif;
mod foreign;
mod gif;
mod jpeg;
mod png;
mod pnm;
mod samples;
mod tiff;
mod webp;

use crate::config::Orientation;
use crate::pixels::RgbImage;
pub(super) use foreign::{is_unread_image, kind};
use std::path::PathBuf;

/// Larger images are refused before their pixels are allocated: from here on Pillow warns of decompression bombs. As RGB
/// that is a quarter of a gigabyte, for each thread that loads images.
pub const MAX_PIXELS: usize = 89_478_485;

/// Longer files are refused before they are read.
pub(super) const MAX_BYTES: u64 = 1 << 30;

/// An image file that is missing, broken, or of a kind that is not read.
#[derive(Debug, thiserror::Error)]
#[error("{} cannot be used: {reason}; replace or remove the file, or leave out all such files with --bad-images skip", path.display())]
pub struct BadImage {
    pub path: PathBuf,
    pub reason: String,
}

/// What the header of an image says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Look {
    /// Its format: `JPEG`.
    pub format: &'static str,
    /// As stored, in pixels.
    pub width: usize,
    pub height: usize,
    /// Its samples have more than eight bits.
    pub deep: bool,
    /// It has a palette with transparency.
    pub clear_palette: bool,
    /// Its colours are those of a printer.
    pub cmyk: bool,
    /// As EXIF has it, 1 to 8; 1 is upright.
    pub orientation: u8,
}

impl Look {
    fn new(format: &'static str, width: usize, height: usize) -> Self {
        Look { format, width, height, deep: false, clear_palette: false, cmyk: false, orientation: 1 }
    }
}

/// Why a header cannot be told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unseen {
    /// It goes on behind these bytes; of a whole file: it is truncated.
    Short,
    /// What it is instead of an image that is read, in words.
    Broken(String),
}

impl std::fmt::Display for Unseen {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Unseen::Short => f.write_str("it is truncated"),
            Unseen::Broken(reason) => f.write_str(reason),
        }
    }
}

/// A format that is read.
struct Format {
    name: &'static str,
    /// Of its files, in lower case, the usual one first.
    extensions: &'static str,
    /// Whether a file that begins so is one, as far as anybody can tell.
    is: fn(&[u8]) -> bool,
    look: fn(&[u8]) -> Result<Look, Unseen>,
    /// Decodes a whole file whose header has been looked at.
    decode: fn(&[u8], &mut RgbImage) -> Result<(), String>,
}

/// The most frequent first.
const FORMATS: [Format; 7] = [
    Format {
        name: "JPEG",
        extensions: "jpg jpeg jpe jif jfif pjpeg",
        is: |bytes| bytes.starts_with(&[0xff, 0xd8]),
        look: jpeg::look,
        decode: jpeg::decode,
    },
    Format {
        name: "PNG",
        extensions: "png",
        is: |bytes| bytes.starts_with(b"\x89PNG"),
        look: png::look,
        decode: png::decode,
    },
    Format { name: "WebP", extensions: "webp", is: webp::is, look: webp::look, decode: webp::decode },
    Format { name: "TIFF", extensions: "tif tiff", is: tiff::is, look: tiff::look, decode: tiff::decode },
    Format {
        name: "GIF",
        extensions: "gif",
        is: |bytes| bytes.starts_with(b"GIF8"),
        look: gif::look,
        decode: gif::decode,
    },
    Format { name: "BMP", extensions: "bmp dib", is: bmp::is, look: bmp::look, decode: bmp::decode },
    Format { name: "PNM", extensions: "pnm pbm pgm ppm", is: pnm::is, look: pnm::look, decode: pnm::decode },
];

fn format_of(bytes: &[u8]) -> Option<&'static Format> {
    FORMATS.iter().find(|format| (format.is)(bytes))
}

/// Decodes an image file in memory into `out`, whose memory is reused: 8 bits a channel, `[height, width, 3]`.
///
/// Greyscale is repeated; palettes, CMYK and YCCK are converted; 16-bit samples keep their upper byte; of an animation
/// the first picture counts. The error is the reason, in words. `out` is unspecified after an error.
pub fn decode_bytes(bytes: &[u8], orientation: Orientation, out: &mut RgbImage) -> Result<(), String> {
    let (format, look) = seen(bytes).map_err(|(format, unseen)| match unseen {
        Unseen::Short => format!("broken {format} (truncated)"),
        Unseen::Broken(reason) => reason,
    })?;
    (format.decode)(bytes, out).map_err(|reason| format!("broken {} ({reason})", format.name))?;
    if orientation == Orientation::Exif {
        exif::upright(out, look.orientation);
    }
    Ok(())
}

/// What the header of an image says, of which at least the beginning is given.
///
/// Errors: the header is longer; no image of a format that is read, or one too large.
pub fn look(beginning: &[u8]) -> Result<Look, Unseen> {
    seen(beginning).map(|(_, look)| look).map_err(|(_, unseen)| unseen)
}

fn seen(bytes: &[u8]) -> Result<(&'static Format, Look), (&'static str, Unseen)> {
    let Some(format) = format_of(bytes) else {
        let reason = match bytes {
            [] => "it is empty".to_owned(),
            _ => format!("it is {}, and {} are read", kind(bytes), readable()),
        };
        return Err(("", Unseen::Broken(reason)));
    };
    let look = (format.look)(bytes).map_err(|unseen| (format.name, unseen))?;
    check_size(look.width, look.height).map_err(|reason| (format.name, Unseen::Broken(reason)))?;
    Ok((format, look))
}

/// The formats, for people.
fn readable() -> String {
    let names: Vec<&str> = FORMATS.iter().map(|format| format.name).collect();
    let (last, others) = names.split_last().expect("there are formats");
    format!("{} and {last}", others.join(", "))
}

/// Whether a name with this extension, in any case, promises an image, be it in a format that is read or not.
pub fn promises_image(extension: &[u8]) -> bool {
    let all = FORMATS.iter().map(|format| format.extensions).chain([foreign::EXTENSIONS]);
    all.flat_map(str::split_ascii_whitespace).any(|known| known.as_bytes().eq_ignore_ascii_case(extension))
}

/// The usual extension of an image that begins with these bytes; `None` of what is not read.
pub fn usual_extension(beginning: &[u8]) -> Option<&'static str> {
    format_of(beginning)?.extensions.split_ascii_whitespace().next()
}

/// Whether a file that begins with these bytes is in a format that is read.
pub(super) fn is_read(beginning: &[u8]) -> bool {
    format_of(beginning).is_some()
}

/// Refuses images that are empty or too large, before their pixels are allocated.
fn check_size(width: usize, height: usize) -> Result<(), String> {
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

/// The `length` bytes at `at`, or that they are not here yet.
fn field(bytes: &[u8], at: usize, length: usize) -> Result<&[u8], Unseen> {
    bytes.get(at..at.saturating_add(length)).ok_or(Unseen::Short)
}

/// What an error of the `image` crate over a header means.
fn unseen(format: &str, error: image::ImageError) -> Unseen {
    match error {
        image::ImageError::IoError(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => Unseen::Short,
        other => Unseen::Broken(format!("broken {format} ({other})")),
    }
}
