//! TIFF: the first picture; grey, colour, palettes, CMYK and YCbCr, in strips and in tiles, by pixel and by plane.

use super::{Look, MAX_PIXELS, Unseen, check_size, exif};
use crate::pixels::RgbImage;
use std::borrow::Cow;
use std::io::{Cursor, ErrorKind};
use tiff::decoder::{BufferLayoutPreference, ChunkType, DecodingResult, Limits};
use tiff::tags::{SampleFormat, Tag};
use tiff::{ColorType, TiffError, TiffUnsupportedError as Unsupported};

type Decoder<'a> = tiff::decoder::Decoder<Cursor<Cow<'a, [u8]>>>;

/// Most bytes of the tables in a file.
const LARGEST_TABLE: usize = 16 << 20;
/// Most bytes of a pixel: five samples of 16 bits.
const PIXEL_BYTES: usize = 10;
/// Values of the tag that says what samples mean.
const PALETTE: u16 = 3;
const BLACK_IS_ZERO: u8 = 1;

/// TIFF and BigTIFF, in both orders of bytes.
pub fn is(bytes: &[u8]) -> bool {
    matches!(bytes, [b'I', b'I', 42 | 43, 0, ..] | [b'M', b'M', 0, 42 | 43, ..])
}

/// How samples become a colour.
#[derive(Clone, Copy)]
enum Colors {
    Grey,
    Rgb,
    /// Colours that have been multiplied with the alpha behind them.
    Premultiplied,
    Cmyk,
    YCbCr,
    Palette,
}

/// What is in a file: its colours, and the bits of a sample.
struct Kind {
    colors: Colors,
    bits: u8,
}

/// Begins to read a file. The decoder knows no palettes: it is told that their indices are shades of grey, in a copy.
fn open(bytes: &[u8]) -> Result<(Decoder<'_>, Kind), TiffError> {
    let photometric = exif::Header::of(bytes).and_then(|header| {
        let at = header.entry(Tag::PhotometricInterpretation.to_u16())? + 8;
        Some((at, header.two(at)?))
    });
    let mut bytes = Cow::Borrowed(bytes);
    let palette = photometric.filter(|(_, what)| *what == PALETTE).map(|(at, _)| at);
    if let Some(at) = palette {
        let both = &mut bytes.to_mut()[at..at + 2];
        both.iter_mut().filter(|byte| **byte == PALETTE as u8).for_each(|byte| *byte = BLACK_IS_ZERO);
    }
    let mut decoder = Decoder::new(Cursor::new(bytes))?;
    let kind = match kind(&mut decoder)? {
        Kind { colors: Colors::Grey, bits: bits @ ..=8 } if palette.is_some() => Kind { colors: Colors::Palette, bits },
        kind => kind,
    };
    Ok((decoder, kind))
}

fn kind(decoder: &mut Decoder) -> Result<Kind, TiffError> {
    let color = decoder.colortype()?;
    let extra = decoder.find_tag_unsigned_vec::<u16>(Tag::ExtraSamples)?;
    let associated = extra.is_some_and(|extra| extra.first() == Some(&1));
    let (colors, bits) = match color {
        ColorType::Gray(bits @ (1 | 2 | 4 | 8 | 16)) => (Colors::Grey, bits),
        ColorType::Multiband { bit_depth: bits @ (8 | 16), .. } => (Colors::Grey, bits),
        ColorType::RGBA(bits @ (8 | 16)) if associated => (Colors::Premultiplied, bits),
        ColorType::RGB(bits @ (8 | 16)) | ColorType::RGBA(bits @ (8 | 16)) => (Colors::Rgb, bits),
        ColorType::CMYK(bits @ (8 | 16)) | ColorType::CMYKA(bits @ (8 | 16)) => (Colors::Cmyk, bits),
        ColorType::YCbCr(8) => (Colors::YCbCr, 8),
        other => return Err(TiffError::UnsupportedError(Unsupported::UnsupportedColorType(other))),
    };
    let layout = decoder.image_buffer_layout()?;
    if layout.sample_format != SampleFormat::Uint {
        return Err(TiffError::UnsupportedError(Unsupported::UnsupportedSampleFormat(vec![layout.sample_format])));
    }
    // The decoder gives bits of reversed order as they are, and panics at tiles that are sorted by plane.
    let reversed = decoder.find_tag_unsigned::<u16>(Tag::FillOrder)? == Some(2);
    if reversed || layout.planes > 1 && decoder.get_chunk_type() == ChunkType::Tile {
        return Err(TiffError::UnsupportedError(Unsupported::UnknownInterpretation));
    }
    Ok(Kind { colors, bits })
}

pub fn look(bytes: &[u8]) -> Result<Look, Unseen> {
    let unseen = |error: TiffError| match error {
        TiffError::IoError(error) if error.kind() == ErrorKind::UnexpectedEof => Unseen::Short,
        TiffError::UnsupportedError(what) => {
            Unseen::Broken(format!("it is a TIFF of a kind that is not read ({what})"))
        }
        other => Unseen::Broken(format!("broken TIFF ({other})")),
    };
    let (mut decoder, kind) = open(bytes).map_err(unseen)?;
    let (width, height) = decoder.dimensions().map_err(unseen)?;
    // Its orientation is followed always.
    let look = Look::new("TIFF", width as usize, height as usize);
    Ok(Look { deep: kind.bits == 16, cmyk: matches!(kind.colors, Colors::Cmyk), ..look })
}

/// Decodes into `out`; the error is the reason, in words.
pub fn decode(bytes: &[u8], out: &mut RgbImage) -> Result<(), String> {
    let broken = |error: TiffError| error.to_string();
    let (decoder, kind) = open(bytes).map_err(broken)?;
    let mut limits = Limits::default();
    limits.decoding_buffer_size = MAX_PIXELS * PIXEL_BYTES;
    limits.intermediate_buffer_size = MAX_PIXELS * PIXEL_BYTES;
    limits.ifd_value_size = LARGEST_TABLE;
    let mut decoder = decoder.with_limits(limits);
    let (width, height) = decoder.dimensions().map_err(broken)?;
    (out.width, out.height) = (width as usize, height as usize);
    check_size(out.width, out.height)?;
    let palette = match kind.colors {
        Colors::Palette => decoder.get_tag_u16_vec(Tag::ColorMap).map_err(broken)?,
        _ => Vec::new(),
    };
    let orientation = decoder.find_tag_unsigned::<u8>(Tag::Orientation).ok().flatten().unwrap_or(1);
    let mut read = DecodingResult::U8(Vec::new());
    let layout = decoder.read_image_to_buffer(&mut read).map_err(broken)?;
    let buffer = read.as_buffer(0);
    if buffer.byte_len() < layout.complete_len {
        return Err("a plane is missing".to_owned());
    }
    let samples = Samples::new(buffer.as_bytes(), &layout, out.width, kind.bits)?;
    convert(&samples, &kind, &palette, out)?;
    exif::upright(out, orientation);
    Ok(())
}

/// The samples of a picture as they were unpacked.
struct Samples<'a> {
    bytes: &'a [u8],
    bits: u8,
    /// Bytes from a row to the next, from a pixel to the next, from a sample of a pixel to the next.
    row: usize,
    pixel: usize,
    sample: usize,
    /// So many a pixel.
    count: usize,
}

impl<'a> Samples<'a> {
    fn new(bytes: &'a [u8], layout: &BufferLayoutPreference, width: usize, bits: u8) -> Result<Self, String> {
        let row = layout.row_stride.ok_or("rows of no length")?.get();
        let size = usize::from(bits.div_ceil(8));
        if layout.planes > 1 {
            let sample = layout.plane_stride.ok_or("planes of no length")?.get();
            return Ok(Samples { bytes, bits, row, pixel: size, sample, count: layout.planes });
        }
        let count = row / (width * size);
        Ok(Samples { bytes, bits, row, pixel: count * size, sample: size, count: count.max(1) })
    }

    /// Sample `sample` of a pixel: its upper byte where it has two, its bits where it is smaller than one.
    fn get(&self, x: usize, y: usize, sample: usize) -> u8 {
        let row = y * self.row;
        if self.bits < 8 {
            let bit = x * usize::from(self.bits);
            let shift = 8 - usize::from(self.bits) - bit % 8;
            return self.bytes[row + bit / 8] >> shift & ((1 << self.bits) - 1);
        }
        let high = usize::from(self.bits == 16 && cfg!(target_endian = "little"));
        self.bytes[row + x * self.pixel + sample * self.sample + high]
    }
}

fn convert(samples: &Samples, kind: &Kind, palette: &[u16], out: &mut RgbImage) -> Result<(), String> {
    let needed = match kind.colors {
        Colors::Grey | Colors::Palette => 1,
        Colors::Rgb | Colors::YCbCr => 3,
        Colors::Cmyk | Colors::Premultiplied => 4,
    };
    if samples.count < needed {
        return Err("samples are missing".to_owned());
    }
    let largest = if kind.bits < 8 { (1u32 << kind.bits) - 1 } else { 255 };
    // Red of all entries, then green, then blue, of 16 bits each.
    let third = palette.len() / 3;
    let entry =
        |index: usize| [0, 1, 2].map(|channel| palette.get(channel * third + index).map_or(0, |v| (v >> 8) as u8));
    out.pixels.clear();
    out.pixels.reserve_exact(3 * out.width * out.height);
    for y in 0..out.height {
        for x in 0..out.width {
            let get = |sample| samples.get(x, y, sample);
            out.pixels.extend_from_slice(&match kind.colors {
                Colors::Grey => [(u32::from(get(0)) * 255 / largest) as u8; 3],
                Colors::Rgb => [get(0), get(1), get(2)],
                Colors::Premultiplied => [0, 1, 2].map(|channel| divided(get(channel), get(3))),
                Colors::Cmyk => [0, 1, 2].map(|channel| printed(get(channel), get(3))),
                Colors::YCbCr => rgb_of([get(0), get(1), get(2)]),
                Colors::Palette if usize::from(get(0)) < third => entry(usize::from(get(0))),
                Colors::Palette => [0; 3],
            });
        }
    }
    Ok(())
}

fn divided(color: u8, alpha: u8) -> u8 {
    (u32::from(color) * 255).checked_div(u32::from(alpha)).map_or(color, |whole| whole.min(255) as u8)
}

/// The light that an ink and the black over it leave.
fn printed(ink: u8, black: u8) -> u8 {
    let white = 255 - u32::from(black);
    let scaled = u32::from(ink) * white + 128;
    (white - (((scaled >> 8) + scaled) >> 8)) as u8
}

/// ITU-R BT.601 of full range, as in JPEG.
fn rgb_of([y, cb, cr]: [u8; 3]) -> [u8; 3] {
    let [y, cb, cr] = [f32::from(y), f32::from(cb) - 128.0, f32::from(cr) - 128.0];
    [y + 1.402 * cr, y - 0.344_136 * cb - 0.714_136 * cr, y + 1.772 * cb].map(|value| value.round() as u8)
}
