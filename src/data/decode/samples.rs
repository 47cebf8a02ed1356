//! From the samples that a decoder gives to three bytes a pixel.

use super::check_size;
use crate::pixels::RgbImage;
use image::{ColorType, ImageDecoder};

/// Bytes of a pixel as a decoder gives it, and where those of red, green and blue lie in it.
#[derive(Clone, Copy)]
pub struct Pixel {
    pub stride: usize,
    pub channels: [usize; 3],
}

/// Of `samples` samples a pixel, of one or two bytes each in native order: grey where there are fewer than three. Of two
/// bytes the upper one counts; what is beyond the colours, transparency, is dropped.
pub fn pixel(samples: usize, bytes: usize) -> Pixel {
    let high = if bytes == 2 { usize::from(cfg!(target_endian = "little")) } else { 0 };
    let place = |channel| if samples < 3 { high } else { channel * bytes + high };
    Pixel { stride: samples * bytes, channels: [place(0), place(1), place(2)] }
}

/// Makes room in `out` for an image; the part of it that a decoder of such pixels is to fill.
pub fn room(out: &mut RgbImage, (width, height): (usize, usize), pixel: Pixel) -> Result<&mut [u8], String> {
    check_size(width, height)?;
    (out.width, out.height) = (width, height);
    // Unpacked where the pixels are to lie, so that there is one copy of them.
    out.pixels.resize(width * height * pixel.stride.max(3), 0);
    Ok(&mut out.pixels[..width * height * pixel.stride])
}

/// Moves the bytes that count together, in place.
pub fn gather(out: &mut RgbImage, pixel: Pixel) {
    let count = out.width * out.height;
    let Pixel { stride, channels } = pixel;
    let mut place = |at: usize| {
        let samples = channels.map(|offset| out.pixels[at * stride + offset]);
        out.pixels[3 * at..][..3].copy_from_slice(&samples);
    };
    // Each pixel moves to a place that none of those to come lies in.
    if stride < 3 {
        (0..count).rev().for_each(&mut place);
    } else if stride > 3 {
        (0..count).for_each(&mut place);
    }
    out.pixels.truncate(count * 3);
}

/// What a decoder of the `image` crate gives.
pub fn of_decoder(decoder: impl ImageDecoder, out: &mut RgbImage) -> Result<(), String> {
    let (width, height) = decoder.dimensions();
    let pixel = match decoder.color_type() {
        color @ (ColorType::L8 | ColorType::La8 | ColorType::Rgb8 | ColorType::Rgba8) => {
            pixel(usize::from(color.channel_count()), 1)
        }
        color @ (ColorType::L16 | ColorType::La16 | ColorType::Rgb16 | ColorType::Rgba16) => {
            pixel(usize::from(color.channel_count()), 2)
        }
        other => return Err(format!("samples of an unknown kind ({other:?})")),
    };
    let room = room(out, (width as usize, height as usize), pixel)?;
    decoder.read_image(room).map_err(|error| error.to_string())?;
    gather(out, pixel);
    Ok(())
}
