//! What every kind of images answers: images in memory, in files, and whatever
//! comes next. Whoever handles a split asks here and knows no kind by name.

use super::decode::BadImage;
use crate::pixels::RgbRef;
use crate::state::DataMarks;
use anyhow::Result;
use std::borrow::Cow;
use std::fmt::Debug;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// An image as it lies where it comes from.
#[derive(Debug)]
pub enum Stored<'a> {
    Pixels(RgbRef<'a>),
    /// The bytes of a file in one of the formats that are read.
    Encoded(Cow<'a, [u8]>),
}

/// The images of a split, in an order of their own.
pub trait Images: Debug + Send + Sync {
    /// How many there are.
    fn count(&self) -> usize;

    /// Image `index`, not decoded. Panics beyond the last one.
    ///
    /// Errors: it is not there or cannot be read.
    fn stored(&self, index: usize) -> Result<Stored<'_>, BadImage>;

    /// Its first `bytes` bytes, or more, where it is encoded: enough for a look at its header. Panics beyond the last one.
    ///
    /// Errors: as [`Images::stored`].
    fn beginning(&self, index: usize, _bytes: usize) -> Result<Stored<'_>, BadImage> {
        self.stored(index)
    }

    /// Where image `index` lies, for people: a path, or a place in an archive.
    fn place(&self, index: usize) -> PathBuf;

    /// The images at `indices`, in that order.
    fn subset(&self, indices: &[usize]) -> Arc<dyn Images>;

    /// What they are, in the plural: `images of 32x32 pixels`.
    fn describe(&self) -> String;

    /// Hands everything that tells them from other images to `hash`.
    ///
    /// Errors: a file that is not there.
    fn fingerprint(&self, hash: &mut dyn FnMut(&[u8])) -> Result<()>;

    /// What is at hand of names, sizes and pixels, without an image being read: it leaves count and labels at 0.
    fn marks(&self) -> DataMarks;

    /// The file of image `index`, relative to the data set's directory, where images have files of their own.
    fn file_name(&self, _index: usize) -> Option<&Path> {
        None
    }

    /// All images as one block of memory, where they are one: it can lie on a device, and none of them is broken.
    fn packed(&self) -> Option<&Packed> {
        None
    }
}

/// Images of one size in one block of memory, `u8 [N, H, W, 3]`.
#[derive(Clone, Debug)]
pub struct Packed {
    pixels: Vec<u8>,
    width: usize,
    height: usize,
}

impl Packed {
    /// Takes `[N, height, width, 3]` bytes. Panics if they are no whole number of images.
    pub fn new(pixels: Vec<u8>, width: usize, height: usize) -> Self {
        let stride = width * height * 3;
        assert!(
            stride > 0 && pixels.len().is_multiple_of(stride),
            "{} bytes are no {width}x{height} images",
            pixels.len()
        );
        Packed { pixels, width, height }
    }

    pub fn width(&self) -> usize {
        self.width
    }

    pub fn height(&self) -> usize {
        self.height
    }

    /// All images, `[N, H, W, 3]`.
    pub fn pixels(&self) -> &[u8] {
        &self.pixels
    }

    /// Image `index`, `[H, W, 3]`. Panics beyond the last one.
    pub fn get(&self, index: usize) -> RgbRef<'_> {
        let stride = self.stride();
        RgbRef { width: self.width, height: self.height, pixels: &self.pixels[index * stride..(index + 1) * stride] }
    }

    fn stride(&self) -> usize {
        self.width * self.height * 3
    }
}

impl Images for Packed {
    fn count(&self) -> usize {
        self.pixels.len() / self.stride()
    }

    fn stored(&self, index: usize) -> Result<Stored<'_>, BadImage> {
        Ok(Stored::Pixels(self.get(index)))
    }

    fn place(&self, index: usize) -> PathBuf {
        format!("image {index}").into()
    }

    fn subset(&self, indices: &[usize]) -> Arc<dyn Images> {
        let mut pixels = Vec::with_capacity(indices.len() * self.stride());
        for &index in indices {
            pixels.extend_from_slice(self.get(index).pixels);
        }
        Arc::new(Packed { pixels, ..*self })
    }

    fn describe(&self) -> String {
        format!("images of {}x{} pixels", self.width, self.height)
    }

    fn fingerprint(&self, hash: &mut dyn FnMut(&[u8])) -> Result<()> {
        hash(format!("{}x{}", self.width, self.height).as_bytes());
        hash(&self.pixels);
        Ok(())
    }

    fn marks(&self) -> DataMarks {
        let mut hash = crc32fast::Hasher::new();
        hash.update(format!("{}x{}", self.width, self.height).as_bytes());
        hash.update(&self.pixels);
        DataMarks { pixels: hash.finalize(), ..DataMarks::default() }
    }

    fn packed(&self) -> Option<&Packed> {
        Some(self)
    }
}
