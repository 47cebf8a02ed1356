//! One part of a data set: its images, and labels when there are any.

use super::decode::{BadImage, decode_bytes, look};
use super::images::{Images, Packed, Stored};
use crate::config::Orientation;
use crate::pixels::{RgbImage, RgbRef};
use crate::state::DataMarks;
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
    /// Which way up photographs are decoded.
    pub orientation: Orientation,
    /// What is to be said about how the images were found; a sentence each.
    pub notes: Vec<String>,
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
        Split { labels: Some(labels), classes, ..Split::unlabelled(images, name) }
    }

    /// Images without.
    pub fn unlabelled(images: impl Images + 'static, name: String) -> Self {
        Split {
            images: Arc::new(images),
            labels: None,
            classes: Vec::new(),
            name,
            orientation: Orientation::default(),
            notes: Vec::new(),
        }
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
    /// Errors: one that is missing or broken. Panics beyond the last image.
    pub fn image<'a>(&'a self, index: usize, scratch: &'a mut RgbImage) -> Result<RgbRef<'a>, BadImage> {
        match self.images.stored(index)? {
            Stored::Pixels(pixels) => Ok(pixels),
            Stored::Encoded(bytes) => {
                let bad = |reason| BadImage { path: self.images.place(index), reason };
                decode_bytes(&bytes, self.orientation, scratch).map_err(bad)?;
                Ok(scratch.as_ref())
            }
        }
    }

    /// The shorter side of image `index` in pixels; `None` where its header tells nothing.
    pub fn side(&self, index: usize) -> Option<u32> {
        let (width, height) = match self.images.stored(index).ok()? {
            Stored::Pixels(pixels) => (pixels.width, pixels.height),
            Stored::Encoded(bytes) => look(&bytes).map(|look| (look.width, look.height)).ok()?,
        };
        u32::try_from(width.min(height)).ok()
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
        Split { images: self.images.subset(indices), labels, ..self.clone() }
    }

    /// The same, with `what` it is in its name.
    pub fn part(&self, indices: &[usize], what: &str) -> Split {
        Split { name: format!("{}, {what}", self.name), ..self.subset(indices) }
    }

    /// What tells its images from others, whatever their labels.
    pub fn images_marks(&self) -> DataMarks {
        DataMarks { images: self.len() as u64, ..self.images.marks() }
    }

    /// What tells it from other images, in one pass over names and labels: wherever it lies, and without reading a file.
    pub fn marks(&self) -> DataMarks {
        let mut labels = crc32fast::Hasher::new();
        self.classes.iter().for_each(|class| labels.update(format!("{class}\0").as_bytes()));
        self.labels.iter().flatten().for_each(|label| labels.update(&label.to_le_bytes()));
        DataMarks { labels: labels.finalize(), ..self.images_marks() }
    }

    /// One line about it: `cifar10 train: 50,000 images of 32x32 pixels, 10 classes`.
    pub fn describe(&self) -> String {
        let labels = match &self.labels {
            Some(_) => counted(self.classes.len(), "class"),
            None => "unlabelled".to_owned(),
        };
        let mut images = self.images.describe();
        if self.len() == 1 {
            images = if images.starts_with("images ") {
                images.replacen("images", "image", 1)
            } else {
                images.replacen("files", "file", 1)
            };
        }
        format!("{}: {} {images}, {labels}", self.name, grouped(self.len()))
    }
}

/// A number with its noun: `1 class`, `2 classes`, `1,000 images`.
pub fn counted(number: usize, noun: &str) -> String {
    let (stem, ending) = match noun.strip_suffix('y') {
        _ if number == 1 => (noun, ""),
        Some(stem) => (stem, "ies"),
        None if noun.ends_with('s') || noun.ends_with("tch") => (noun, "es"),
        None => (noun, "s"),
    };
    format!("{} {stem}{ending}", grouped(number))
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
        let one = Split::labelled(Packed::new(vec![0; 12], 2, 2), vec![0], ["a"], "x".into());
        assert_eq!(one.describe(), "x: 1 image of 2x2 pixels, 1 class");
    }

    #[test]
    fn other_images_have_other_marks_wherever_they_lie() {
        let split = |pixels: Vec<u8>, labels: &[i64], class: &str| {
            Split::labelled(Packed::new(pixels, 2, 2), labels.to_vec(), ["a", class], "x".into())
        };
        let (zeros, began) = (vec![0; 24], split(vec![0; 24], &[0, 1], "b").marks());
        let changed = |now: &Split| began.differ(&now.marks());
        assert_eq!(changed(&split(zeros.clone(), &[0, 1], "b")), None);
        assert_eq!(changed(&split(zeros.clone(), &[1, 0], "b")).unwrap(), "their labels have changed");
        assert_eq!(changed(&split(zeros.clone(), &[0, 1], "c")).unwrap(), "their labels have changed");
        assert_eq!(changed(&split(vec![1; 24], &[0, 1], "b")).unwrap(), "their pixels have changed");
        let fewer = split(vec![0; 12], &[0], "b");
        assert_eq!(changed(&fewer).unwrap(), "there were 2 images and are 1 now");

        let places = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
        let files = |place: usize, names: &[&str]| {
            let mut list = crate::data::FileList::new(places[place].path());
            names.iter().for_each(|name| list.push(Path::new(name)));
            Split::unlabelled(list, "x".into())
        };
        for place in &places {
            std::fs::write(place.path().join("1.png"), b"one").unwrap();
            std::fs::write(place.path().join("2.png"), b"three").unwrap();
        }
        let began = files(0, &["1.png", "2.png"]).marks();
        let changed = |now: &Split| began.differ(&now.marks());
        assert_eq!(changed(&files(1, &["1.png", "2.png"])), None);
        let turned = changed(&files(1, &["2.png", "1.png"])).unwrap();
        assert_eq!(turned, "the names of their files or the order of them, the sizes of their files have changed");
        std::fs::write(places[1].path().join("2.png"), b"four").unwrap();
        assert_eq!(changed(&files(1, &["1.png", "2.png"])).unwrap(), "the sizes of their files have changed");
    }

    #[test]
    fn nouns_follow_their_number() {
        let said = [(0, "image"), (1, "class"), (2, "class"), (1000, "batch"), (20, "epoch"), (3, "directory")];
        let said = said.map(|(number, noun)| counted(number, noun));
        assert_eq!(said, ["0 images", "1 class", "2 classes", "1,000 batches", "20 epochs", "3 directories"]);
    }

    #[test]
    fn numbers_are_grouped_by_thousands() {
        for (number, text) in [(0, "0"), (999, "999"), (1000, "1,000"), (1_281_167, "1,281,167")] {
            assert_eq!(grouped(number), text);
        }
    }
}
