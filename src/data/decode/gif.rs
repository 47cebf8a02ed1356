//! The first picture of a GIF, on the canvas that it lies on.

use super::{Look, Unseen, check_size};
use crate::pixels::RgbImage;
use gif::{ColorOutput, DecodeOptions, Decoder, DecodingError, Frame, MemoryLimit};
use std::io::{Cursor, ErrorKind};

fn open(bytes: &[u8]) -> Result<Decoder<Cursor<&[u8]>>, DecodingError> {
    let mut options = DecodeOptions::new();
    options.set_color_output(ColorOutput::Indexed);
    // Pixels are unpacked into memory of ours.
    options.set_memory_limit(MemoryLimit::Bytes(const { std::num::NonZeroU64::new(1 << 20).unwrap() }));
    options.read_info(Cursor::new(bytes))
}

/// Sides of the canvas: where the picture juts out it grows, as in Pillow.
fn canvas(screen: (u16, u16), frame: &Frame) -> (usize, usize) {
    let side = |screen: u16, from: u16, length: u16| usize::from(screen).max(usize::from(from) + usize::from(length));
    (side(screen.0, frame.left, frame.width), side(screen.1, frame.top, frame.height))
}

pub fn look(bytes: &[u8]) -> Result<Look, Unseen> {
    let unseen = |error: DecodingError| match error {
        DecodingError::UnexpectedEof => Unseen::Short,
        DecodingError::Io(error) if error.kind() == ErrorKind::UnexpectedEof => Unseen::Short,
        other => Unseen::Broken(format!("broken GIF ({other})")),
    };
    let mut decoder = open(bytes).map_err(unseen)?;
    let screen = (decoder.width(), decoder.height());
    let frame =
        decoder.next_frame_info().map_err(unseen)?.ok_or(Unseen::Broken("a GIF without a picture".to_owned()))?;
    let (width, height) = canvas(screen, frame);
    Ok(Look { clear_palette: frame.transparent.is_some(), ..Look::new("GIF", width, height) })
}

/// Decodes into `out`; the error is the reason, in words.
pub fn decode(bytes: &[u8], out: &mut RgbImage) -> Result<(), String> {
    let mut decoder = open(bytes).map_err(|error| error.to_string())?;
    let screen = (decoder.width(), decoder.height());
    let frame = decoder.next_frame_info().map_err(|error| error.to_string())?.ok_or("it holds no picture")?;
    let ((width, height), frame) = (canvas(screen, frame), frame.clone());
    check_size(width, height)?;
    check_size(frame.width.into(), frame.height.into())?;
    let mut indices = vec![0; decoder.buffer_size()];
    decoder.read_into_buffer(&mut indices).map_err(|error| error.to_string())?;
    let palette = frame.palette.as_deref().or(decoder.global_palette()).ok_or("it has no palette")?;
    let color = |index: u8| palette.get(3 * usize::from(index)..).and_then(|rest| rest.get(..3)).unwrap_or(&[0; 3]);
    (out.width, out.height) = (width, height);
    // Around the picture is what is transparent, without its transparency.
    let around = color(frame.transparent.unwrap_or(0));
    out.pixels.clear();
    out.pixels.extend(around.iter().cycle().take(3 * width * height));
    for (row, line) in indices.chunks_exact(frame.width.into()).enumerate() {
        let at = 3 * ((usize::from(frame.top) + row) * width + usize::from(frame.left));
        for (pixel, &index) in out.pixels[at..].chunks_exact_mut(3).zip(line) {
            pixel.copy_from_slice(color(index));
        }
    }
    Ok(())
}
