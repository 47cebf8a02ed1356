//! The CPU engine: renders one view of one image, with torchvision's semantics on
//! PIL images.
//!
//! Crop and resize to planes, then colours and blur on planes, then interleave.
//! The flip mirrors the table of horizontal weights and costs nothing. An image
//! whose channels are equal is rendered as one plane: jitter of saturation and
//! hue and greyscale do not change it, to the bit.

use super::blur::Blur;
use super::filter::{Span, Weights};
use super::op::Canvas;
use super::recipe::{CropBox, Jitter, JitterOp, ViewParameters};
use super::{OPS, color, hue, resample};
use crate::config::Filter;
use crate::pixels::{RgbImage, RgbRef};

/// Renders views; one per worker thread. Its buffers grow to the largest image and stay.
#[derive(Debug, Default)]
pub struct Renderer {
    columns: Weights,
    rows: Weights,
    /// The image between the two passes of resampling.
    between: Vec<u8>,
    /// Planes of the view: `[channels, height, width]`.
    planes: Vec<u8>,
    blur: Blur,
}

/// How a rectangle of the source becomes the output.
pub(super) struct Resize {
    pub crop: CropBox,
    pub columns: Span,
    pub rows: Span,
    pub filter: Filter,
    pub flip: bool,
}

impl Renderer {
    pub fn new() -> Self {
        Self::default()
    }

    /// Renders the view of `source` that `parameters` describes into `out`, `[size_px, size_px, 3]`.
    ///
    /// `blur_kernel_px` is the side of the blur's kernel, odd (`Augmentation::blur_kernel_px`).
    ///
    /// # Panics
    /// If the crop is empty or leaves the image, or `out` has another length.
    pub fn view(
        &mut self,
        source: RgbRef<'_>,
        parameters: &ViewParameters,
        blur_kernel_px: u32,
        size_px: usize,
        out: &mut [u8],
    ) {
        let crop = parameters.crop;
        let resize = Resize {
            crop,
            columns: Span::whole(crop.width, size_px),
            rows: Span::whole(crop.height, size_px),
            filter: Filter::Bilinear,
            flip: parameters.flip,
        };
        assert_eq!(out.len(), size_px * size_px * 3, "the output is not [{size_px}, {size_px}, 3]");
        let channels = self.resize(source, &resize);
        let levels = &mut self.planes[..channels * size_px * size_px];
        if let Some(jitter) = &parameters.jitter {
            apply_jitter(levels, channels, jitter);
        }
        let blur_kernel_px = blur_kernel_px as usize;
        let mut canvas = Canvas { levels, side: size_px, blur_kernel_px, blur: &mut self.blur };
        for (op, number) in OPS.iter().zip(parameters.ops) {
            if let Some(number) = number {
                (op.cpu)(&mut canvas, number);
            }
        }
        let channels = canvas.channels();
        interleave(&self.planes, channels, out);
    }

    /// `source` at another size, as Pillow's `Image.resize` gives it.
    ///
    /// # Panics
    /// If either of them is empty.
    pub fn resized(&mut self, source: RgbRef<'_>, width: usize, height: usize, filter: Filter) -> RgbImage {
        let mut small = RgbImage::new(width, height);
        let resize = Resize {
            crop: CropBox::whole(source.width, source.height),
            columns: Span::whole(source.width, width),
            rows: Span::whole(source.height, height),
            filter,
            flip: false,
        };
        self.resize_into(source, &resize, &mut small.pixels);
        small
    }

    /// Resizes part of `source` into `out`, `[rows.count, columns.count, 3]`.
    pub(super) fn resize_into(&mut self, source: RgbRef<'_>, resize: &Resize, out: &mut [u8]) {
        assert_eq!(out.len(), resize.rows.count * resize.columns.count * 3, "the output has another size");
        let channels = self.resize(source, resize);
        interleave(&self.planes, channels, out);
    }

    /// Fills `planes` and returns how many there are: 3, or 1 if the channels are equal throughout the crop.
    fn resize(&mut self, source: RgbRef<'_>, resize: &Resize) -> usize {
        let crop = resize.crop;
        crop.check(source.width, source.height);
        assert_eq!(source.pixels.len(), source.width * source.height * 3, "the image is not [height, width, 3]");
        self.columns.build(resize.columns, resize.filter, resize.flip);
        self.rows.build(resize.rows, resize.filter, false);
        let needed = self.rows.needed();
        let stride = source.width * 3;
        let pixels = &source.pixels[crop.top * stride + crop.left * 3..];
        // One byte more than the row where there is one: the horizontal pass reads pixels four bytes at a time.
        let row = |y: usize| &pixels[y * stride..pixels.len().min(y * stride + crop.width * 3 + 1)];
        let grey = needed.clone().all(|y| is_grey(&row(y)[..crop.width * 3]));
        let channels = if grey { 1 } else { 3 };
        let (width, height) = (resize.columns.count, resize.rows.count);
        let area = width * height;
        // Every byte up to these lengths is overwritten below; only growth is filled.
        grow(&mut self.planes, channels * area);
        let planes = &mut self.planes[..channels * area];
        if resample::vertical_first(resize.columns, resize.rows) {
            let between_width = crop.width * 3;
            grow(&mut self.between, height * between_width);
            let between = &mut self.between[..height * between_width];
            let rows = &pixels[needed.start * stride..];
            resample::vertical(rows, stride, between_width, needed.start, &self.rows, between);
            for y in 0..height {
                resample::horizontal(&between[y * between_width..], &self.columns, planes, area, y * width);
            }
        } else {
            let between_area = needed.len() * width;
            grow(&mut self.between, channels * between_area);
            let between = &mut self.between[..channels * between_area];
            for (place, y) in needed.clone().enumerate() {
                resample::horizontal(row(y), &self.columns, between, between_area, place * width);
            }
            for (narrowed, plane) in between.chunks_exact(between_area).zip(planes.chunks_exact_mut(area)) {
                resample::vertical(narrowed, width, width, needed.start, &self.rows, plane);
            }
        }
        channels
    }
}

fn grow(buffer: &mut Vec<u8>, length: usize) {
    if buffer.len() < length {
        buffer.resize(length, 0);
    }
}

/// `planes` is `[channels, area]`, channels 1 or 3.
fn apply_jitter(planes: &mut [u8], channels: usize, jitter: &Jitter) {
    for (op, factor) in jitter.steps() {
        match op {
            JitterOp::Brightness => color::brightness(planes, factor),
            JitterOp::Contrast => {
                let mean = if channels == 1 {
                    color::mean_grey(planes)
                } else {
                    let (red, green, blue) = color::planes(planes);
                    color::mean_luma(red, green, blue)
                };
                color::contrast(planes, mean, factor);
            }
            JitterOp::Saturation | JitterOp::Hue if channels == 1 => {}
            JitterOp::Saturation => {
                let (red, green, blue) = color::planes(planes);
                color::saturation(red, green, blue, factor);
            }
            JitterOp::Hue => {
                let (red, green, blue) = color::planes(planes);
                hue::rotate(red, green, blue, hue::steps(factor));
            }
        }
    }
}

vectorised! {
    /// Whether the channels of every pixel of an interleaved row are equal.
    fn is_grey(row: &[u8]) -> bool {
        // Blocks, so that a coloured row is recognised early and a block needs no branch.
        row.chunks(96).all(|block| {
            block.chunks_exact(3).fold(0, |seen, pixel| seen | (pixel[0] ^ pixel[1]) | (pixel[0] ^ pixel[2])) == 0
        })
    }
}

vectorised! {
    /// Writes planes `[channels, area]` as `[area, 3]`.
    fn interleave(planes: &[u8], channels: usize, out: &mut [u8]) {
        let area = out.len() / 3;
        let red = &planes[..area];
        let (green, blue) = if channels == 1 { (red, red) } else { (&planes[area..2 * area], &planes[2 * area..3 * area]) };
        for (((pixel, &r), &g), &b) in out.chunks_exact_mut(3).zip(red).zip(green).zip(blue) {
            pixel[0] = r;
            pixel[1] = g;
            pixel[2] = b;
        }
    }
}
