//! Which way up a photograph was taken: tag 274 of the first directory of EXIF data (CIPA DC-008, 4.6.4).

use crate::pixels::RgbImage;

const ORIENTATION: u16 = 0x0112;

/// The orientation that EXIF data (a small TIFF, whatever stands before it) notes, 1 to 8; 1 where none is to be found.
pub fn orientation(exif: &[u8]) -> u8 {
    let tiff = exif.strip_prefix(b"Exif\0\0").unwrap_or(exif);
    find(tiff).filter(|value| (1..=8).contains(value)).map_or(1, |value| value as u8)
}

fn find(tiff: &[u8]) -> Option<u16> {
    let header = Header::of(tiff)?;
    let at = header.entry(ORIENTATION)?;
    // Some write it as a number of four bytes.
    match header.two(at + 2)? {
        4 => u16::try_from(header.four(at + 8)?).ok(),
        _ => header.two(at + 8),
    }
}

/// The header of a TIFF, which knows the order of bytes.
pub struct Header<'a> {
    tiff: &'a [u8],
    little: bool,
}

impl<'a> Header<'a> {
    /// `None` where these bytes are no TIFF.
    pub fn of(tiff: &'a [u8]) -> Option<Self> {
        match tiff.get(..4)? {
            [b'I', b'I', 42, 0] => Some(Header { tiff, little: true }),
            [b'M', b'M', 0, 42] => Some(Header { tiff, little: false }),
            _ => None,
        }
    }

    /// Where the entry of a tag lies, 12 bytes, in the first directory.
    pub fn entry(&self, tag: u16) -> Option<usize> {
        let directory = self.four(4)? as usize;
        let entries = usize::from(self.two(directory)?);
        (0..entries).map(|entry| directory + 2 + 12 * entry).find(|&at| self.two(at) == Some(tag))
    }

    pub fn two(&self, at: usize) -> Option<u16> {
        let bytes = self.tiff.get(at..at.checked_add(2)?)?.try_into().ok()?;
        Some(if self.little { u16::from_le_bytes(bytes) } else { u16::from_be_bytes(bytes) })
    }

    fn four(&self, at: usize) -> Option<u32> {
        let [first, second] = [self.two(at)?, self.two(at + 2)?].map(u32::from);
        Some(if self.little { second << 16 | first } else { first << 16 | second })
    }
}

/// Turns an image upright whose orientation is `orientation`, 1 to 8.
pub fn upright(image: &mut RgbImage, orientation: u8) {
    let (width, height) = (image.width, image.height);
    // Which stored pixel (column, row) belongs at a column and row of the upright image.
    let from: fn(usize, usize, usize, usize) -> (usize, usize) = match orientation {
        2 => |x, y, width, _| (width - 1 - x, y),
        3 => |x, y, width, height| (width - 1 - x, height - 1 - y),
        4 => |x, y, _, height| (x, height - 1 - y),
        5 => |x, y, _, _| (y, x),
        6 => |x, y, _, height| (y, height - 1 - x),
        7 => |x, y, width, height| (width - 1 - y, height - 1 - x),
        8 => |x, y, width, _| (width - 1 - y, x),
        _ => return,
    };
    if orientation >= 5 {
        (image.width, image.height) = (height, width);
    }
    let stored = std::mem::take(&mut image.pixels);
    image.pixels.reserve_exact(stored.len());
    for y in 0..image.height {
        for x in 0..image.width {
            let (column, row) = from(x, y, width, height);
            image.pixels.extend_from_slice(&stored[3 * (row * width + column)..][..3]);
        }
    }
}
