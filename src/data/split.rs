//! One part of a data set: its images, and labels when there are any.

use super::decode::decode_file;
use super::file_list::FileList;
use crate::pixels::{RgbImage, RgbRef};
use anyhow::Result;
use std::path::Path;

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

    pub fn len(&self) -> usize {
        self.pixels.len() / self.stride()
    }

    pub fn is_empty(&self) -> bool {
        self.pixels.is_empty()
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

    fn subset(&self, indices: &[usize]) -> Packed {
        let mut pixels = Vec::with_capacity(indices.len() * self.stride());
        for &index in indices {
            pixels.extend_from_slice(self.get(index).pixels);
        }
        Packed { pixels, ..*self }
    }
}

/// Where the pixels are.
#[derive(Clone, Debug)]
pub enum Images {
    /// In memory.
    Packed(Packed),
    /// In files, decoded when asked for.
    Files(FileList),
}

/// One part of a data set.
#[derive(Clone, Debug)]
pub struct Split {
    pub images: Images,
    /// One class index per image, or `None` for unlabelled data.
    pub labels: Option<Vec<i64>>,
    /// Class names by index; empty for unlabelled data.
    pub classes: Vec<String>,
    /// What it is, for people: `cifar10 train`.
    pub name: String,
}

impl Split {
    /// Panics where labels and images differ in number or a label has no class: sources check that before.
    pub(super) fn new(images: Images, labels: Option<Vec<i64>>, classes: Vec<String>, name: String) -> Self {
        let split = Split { images, labels, classes, name };
        if let Some(labels) = &split.labels {
            assert_eq!(labels.len(), split.len(), "{}: labels and images differ in number", split.name);
            let classes = split.classes.len() as i64;
            assert!(labels.iter().all(|l| (0..classes).contains(l)), "{}: a label has no class", split.name);
        }
        split
    }

    /// Number of images.
    pub fn len(&self) -> usize {
        match &self.images {
            Images::Packed(packed) => packed.len(),
            Images::Files(files) => files.len(),
        }
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Image `index`, `[H, W, 3]`: packed images are borrowed as they lie, files are decoded into `scratch`.
    ///
    /// The error of a file that is missing or broken is a [`super::BadImage`] (`downcast_ref` finds it).
    /// Panics beyond the last image.
    pub fn image<'a>(&'a self, index: usize, scratch: &'a mut RgbImage) -> Result<RgbRef<'a>> {
        match &self.images {
            Images::Packed(packed) => Ok(packed.get(index)),
            Images::Files(files) => {
                decode_file(&files.path(index), scratch)?;
                Ok(scratch.as_ref())
            }
        }
    }

    /// The file of image `index`, relative to the data set's directory; `None` for packed images.
    pub fn file_name(&self, index: usize) -> Option<&Path> {
        match &self.images {
            Images::Packed(_) => None,
            Images::Files(files) => Some(files.relative(index)),
        }
    }

    /// The class index of image `index`; `None` for unlabelled data.
    pub fn label(&self, index: usize) -> Option<i64> {
        self.labels.as_ref().map(|labels| labels[index])
    }

    /// The images at `indices`, in that order, with their labels and all classes. Pixels are copied.
    pub fn subset(&self, indices: &[usize]) -> Split {
        let images = match &self.images {
            Images::Packed(packed) => Images::Packed(packed.subset(indices)),
            Images::Files(files) => Images::Files(files.subset(indices)),
        };
        let labels = self.labels.as_ref().map(|labels| indices.iter().map(|&i| labels[i]).collect());
        Split { images, labels, classes: self.classes.clone(), name: self.name.clone() }
    }

    /// One line about it: `cifar10 train: 50,000 images of 32x32, 10 classes`.
    pub fn describe(&self) -> String {
        let size = match &self.images {
            Images::Packed(packed) => format!("images of {}x{} pixels", packed.width(), packed.height()),
            Images::Files(files) => format!("image files under {}", files.root().display()),
        };
        let labels = match &self.labels {
            Some(_) => format!("{} classes", self.classes.len()),
            None => "unlabelled".to_owned(),
        };
        format!("{}: {} {size}, {labels}", self.name, grouped(self.len()))
    }
}

/// 1234567 as `1,234,567`.
pub fn grouped(number: usize) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_subset_keeps_pixels_labels_and_order() {
        let pixels: Vec<u8> = (0..4 * 12).collect();
        let names = vec!["a".to_owned(), "b".to_owned()];
        let split = Split::new(Images::Packed(Packed::new(pixels, 2, 2)), Some(vec![0, 1, 0, 1]), names, "x".into());
        let subset = split.subset(&[3, 0]);
        let mut scratch = RgbImage::default();
        assert_eq!(subset.len(), 2);
        assert_eq!(subset.labels, Some(vec![1, 0]));
        assert_eq!(subset.image(0, &mut scratch).unwrap().pixels, &(36..48).collect::<Vec<u8>>()[..]);
        assert_eq!(subset.image(1, &mut scratch).unwrap().pixels, &(0..12).collect::<Vec<u8>>()[..]);
        assert_eq!(scratch, RgbImage::default(), "packed images are borrowed, not copied");
        assert_eq!(split.describe(), "x: 4 images of 2x2 pixels, 2 classes");
    }

    #[test]
    fn numbers_are_grouped_by_thousands() {
        for (number, text) in [(0, "0"), (999, "999"), (1000, "1,000"), (1_281_167, "1,281,167")] {
            assert_eq!(grouped(number), text);
        }
    }
}
