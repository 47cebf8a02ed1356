//! 8-bit RGB images as plain memory: what data sets hand to augmentations.

/// An image, row-major and interleaved: `[height, width, 3]`, red first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RgbImage {
    pub width: usize,
    pub height: usize,
    /// `height * width * 3` bytes.
    pub pixels: Vec<u8>,
}

/// A borrowed [`RgbImage`].
#[derive(Clone, Copy, Debug)]
pub struct RgbRef<'a> {
    pub width: usize,
    pub height: usize,
    pub pixels: &'a [u8],
}

impl RgbImage {
    pub fn new(width: usize, height: usize) -> Self {
        RgbImage { width, height, pixels: vec![0; width * height * 3] }
    }

    pub fn as_ref(&self) -> RgbRef<'_> {
        RgbRef { width: self.width, height: self.height, pixels: &self.pixels }
    }
}
