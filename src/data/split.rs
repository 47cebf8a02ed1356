//! One part of a data set: its images, and labels when there are any.

use super::images::{Images, Packed};
use crate::pixels::{RgbImage, RgbRef};
use anyhow::Result;
use std::path::Path;
use std::sync::Arc;

/// One part of a data set.
#[derive(Clone, Debug)]
pub struct Split {
    pub images: Arc<dyn Images>,
    /// One class index per image, or `None` for unlabelled data.
    pub labels: Option<Vec<i64>>,
    /// Class names by index; empty for unlabelled data.
    pub classes: Vec<String>,
    /// What it is, for people: `cifar10 train`.
    pub name: String,
}

impl Split {
    /// Images with a class each.
    ///
    /// # Panics
    /// Where labels and images differ in number or a label has no class: sources check that before.
    pub(super) fn labelled(
        images: impl Images + 'static,
        labels: Vec<i64>,
        classes: impl IntoIterator<Item = impl Into<String>>,
        name: String,
    ) -> Self {
        let classes: Vec<String> = classes.into_iter().map(Into::into).collect();
        assert_eq!(labels.len(), images.count(), "{name}: labels and images differ in number");
        assert!(labels.iter().all(|l| (0..classes.len() as i64).contains(l)), "{name}: a label has no class");
        Split { images: Arc::new(images), labels: Some(labels), classes, name }
    }

    pub(super) fn unlabelled(images: impl Images + 'static, name: String) -> Self {
        Split { images: Arc::new(images), labels: None, classes: Vec::new(), name }
    }

    /// Number of images.
    pub fn len(&self) -> usize {
        self.images.count()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Image `index`, `[H, W, 3]`: packed images are borrowed as they lie, others are decoded into `scratch`.
    ///
    /// The error of one that is missing or broken is a [`super::BadImage`] (`downcast_ref` finds it).
    /// Panics beyond the last image.
    pub fn image<'a>(&'a self, index: usize, scratch: &'a mut RgbImage) -> Result<RgbRef<'a>> {
        Ok(self.images.image(index, scratch)?)
    }

    /// The file of image `index`, relative to the data set's directory; `None` where images have no files.
    pub fn file_name(&self, index: usize) -> Option<&Path> {
        self.images.file_name(index)
    }

    /// The images as one block of memory; `None` where they are decoded as they come.
    pub fn packed(&self) -> Option<&Packed> {
        self.images.packed()
    }

    /// The class index of image `index`; `None` for unlabelled data.
    pub fn label(&self, index: usize) -> Option<i64> {
        self.labels.as_ref().map(|labels| labels[index])
    }

    /// The images at `indices`, in that order, with their labels and all classes. Pixels are copied.
    pub fn subset(&self, indices: &[usize]) -> Split {
        let labels = self.labels.as_ref().map(|labels| indices.iter().map(|&i| labels[i]).collect());
        Split { images: self.images.subset(indices), labels, classes: self.classes.clone(), name: self.name.clone() }
    }

    /// One line about it: `cifar10 train: 50,000 images of 32x32 pixels, 10 classes`.
    pub fn describe(&self) -> String {
        let labels = match &self.labels {
            Some(_) => format!("{} classes", self.classes.len()),
            None => "unlabelled".to_owned(),
        };
        format!("{}: {} {}, {labels}", self.name, grouped(self.len()), self.images.describe())
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
        let split = Split::labelled(Packed::new(pixels, 2, 2), vec![0, 1, 0, 1], ["a", "b"], "x".into());
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
