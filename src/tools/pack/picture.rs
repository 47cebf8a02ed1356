//! What an image is packed as: the bytes of its file, or smaller ones.

use crate::augment::{Filter, Renderer};
use crate::data::{BadImage, Split, Stored, decode_bytes, promises_image, usual_extension};
use crate::pixels::{RgbImage, RgbRef};
use crate::report::encode_png;
use anyhow::{Context, Result};
use jpeg_encoder::{ColorType, Encoder, SamplingFactor};

/// How an image becomes a member.
#[derive(Clone, Copy, Debug)]
pub struct Rule {
    pub max_side: Option<usize>,
    pub quality: u8,
    /// Decode images that are copied, so that a broken one is found.
    pub check: bool,
}

/// An image as it is packed.
pub struct Made {
    pub bytes: Vec<u8>,
    /// Without a dot; `None`: that of its file is kept.
    pub extension: Option<&'static str>,
}

/// The memory of a thread that makes them.
#[derive(Default)]
pub struct Maker {
    decoded: RgbImage,
    renderer: Renderer,
}

/// Image `index` as it is packed.
///
/// Errors: it is missing or broken.
pub fn make(split: &Split, index: usize, rule: &Rule, maker: &mut Maker) -> Result<Made> {
    let Maker { decoded, renderer } = maker;
    let bytes = match split.images.stored(index)? {
        Stored::Pixels(pixels) => {
            let small = smaller(pixels, rule, renderer);
            let bytes = encode_png(small.as_ref().map_or(pixels, RgbImage::as_ref))?;
            return Ok(Made { bytes, extension: Some("png") });
        }
        Stored::Encoded(bytes) => bytes,
    };
    if rule.check || rule.max_side.is_some() {
        let bad = |reason| BadImage { path: split.images.place(index), reason };
        decode_bytes(&bytes, split.orientation, decoded).map_err(bad)?;
        if let Some(small) = smaller(decoded.as_ref(), rule, renderer) {
            return encoded(&small, is_lossy(&bytes), rule.quality)
                .with_context(|| format!("{} cannot be made smaller", split.images.place(index).display()));
        }
    }
    let known = split.file_name(index).and_then(|name| extension_of(name.file_name()?.as_encoded_bytes())).is_some();
    let extension = if known { None } else { usual_extension(&bytes) };
    Ok(Made { bytes: bytes.into_owned(), extension })
}

/// The extension of an image's file name; `None` where it has none that is one.
pub fn extension_of(name: &[u8]) -> Option<&[u8]> {
    let extension = &name[name.iter().rposition(|&byte| byte == b'.')? + 1..];
    promises_image(extension).then_some(extension)
}

/// The picture with its shorter side as long as the rule allows; `None` where it is no longer.
fn smaller(picture: RgbRef, rule: &Rule, renderer: &mut Renderer) -> Option<RgbImage> {
    let shorter = picture.width.min(picture.height);
    let side = rule.max_side.filter(|&side| side < shorter)?;
    // Truncated, as torchvision's Resize does.
    let scaled = |length: usize| side * length / shorter;
    Some(renderer.resized(picture, scaled(picture.width), scaled(picture.height), Filter::Bicubic))
}

fn encoded(picture: &RgbImage, lossy: bool, quality: u8) -> Result<Made> {
    if !lossy {
        return Ok(Made { bytes: encode_png(picture.as_ref())?, extension: Some("png") });
    }
    let side = |length: usize| u16::try_from(length).context("a side of a JPEG has at most 65,535 pixels");
    let (width, height) = (side(picture.width)?, side(picture.height)?);
    let mut bytes = Vec::new();
    let mut encoder = Encoder::new(&mut bytes, quality);
    // As Pillow writes by default, at every quality.
    encoder.set_sampling_factor(SamplingFactor::F_2_2);
    encoder.encode(&picture.pixels, width, height, ColorType::Rgb)?;
    Ok(Made { bytes, extension: Some("jpg") })
}

fn is_lossy(bytes: &[u8]) -> bool {
    matches!(usual_extension(bytes), Some("jpg" | "webp"))
}
