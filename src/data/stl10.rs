//! STL-10, binary version: 96x96 RGB; 5,000 training and 8,000 test images in ten
//! classes, and 100,000 without labels (2.8 GB) to pre-train on.
//!
//! Each image is three planes, and each plane lies column by column. Labels are
//! one byte each and count from 1.

use super::Part;
use super::facts::how_to_get;
use super::source;
use super::split::{Images, Packed, Split, grouped};
use crate::config::DatasetName;
use anyhow::{Context, Result, bail};
use rayon::prelude::*;
use std::fs::File;
use std::io::Read;
use std::path::Path;

const CLASSES: [&str; 10] = ["airplane", "bird", "car", "cat", "deer", "dog", "horse", "monkey", "ship", "truck"];
const SIDE: usize = 96;
const IMAGE_BYTES: usize = SIDE * SIDE * 3;
/// Images transposed at a time: the unlabelled file is too large to lie in memory twice.
const CHUNK: usize = 1024;

pub fn load(root: &Path, part: Part) -> Result<Split> {
    let dataset = DatasetName::Stl10;
    let (stem, originals) = match part {
        Part::Train => ("train", 5_000),
        Part::Test => ("test", 8_000),
        Part::Unlabelled => ("unlabeled", 100_000),
    };
    let images_name = format!("{stem}_X.bin");
    let candidates = ["stl10/stl10_binary", "stl10_binary", "stl10", ""];
    let home = source::locate(dataset, root, &candidates, &[&images_name])?;
    let images = read_images(&home.join(&images_name), originals)?;
    let classes = CLASSES.iter().map(|&name| name.to_owned()).collect();
    let name = format!("stl10 {stem}");
    if part == Part::Unlabelled {
        return Ok(Split::new(Images::Packed(images), None, Vec::new(), name));
    }
    let labels = read_labels(&home.join(format!("{stem}_y.bin")), images.len())?;
    Ok(Split::new(Images::Packed(images), Some(labels), classes, name))
}

fn read_labels(path: &Path, images: usize) -> Result<Vec<i64>> {
    let hint = how_to_get(DatasetName::Stl10);
    let bytes = source::read(DatasetName::Stl10, path)?;
    if bytes.len() != images {
        bail!("{} has {} labels for {images} images; {hint}", path.display(), bytes.len());
    }
    if let Some(label) = bytes.iter().find(|&&label| !(1..=10).contains(&label)) {
        bail!("{} has the label {label}; they go from 1 to 10; {hint}", path.display());
    }
    Ok(bytes.into_iter().map(|label| i64::from(label) - 1).collect())
}

/// `originals` is the number of images in the published file, for the error message.
fn read_images(path: &Path, originals: usize) -> Result<Packed> {
    let unreadable = || format!("{} cannot be read; {}", path.display(), how_to_get(DatasetName::Stl10));
    let mut file = File::open(path).with_context(unreadable)?;
    let bytes = file.metadata().with_context(unreadable)?.len() as usize;
    if bytes == 0 || !bytes.is_multiple_of(IMAGE_BYTES) {
        bail!(
            "{} has {} bytes, which is no whole number of images of {} bytes (the original has {} bytes): \
             it is truncated or another file; {}",
            path.display(),
            grouped(bytes),
            grouped(IMAGE_BYTES),
            grouped(originals * IMAGE_BYTES),
            how_to_get(DatasetName::Stl10)
        );
    }
    let mut pixels = vec![0; bytes];
    let mut buffer = vec![0; (CHUNK * IMAGE_BYTES).min(bytes)];
    for chunk in pixels.chunks_mut(CHUNK * IMAGE_BYTES) {
        let planes = &mut buffer[..chunk.len()];
        file.read_exact(planes).with_context(unreadable)?;
        chunk.par_chunks_exact_mut(IMAGE_BYTES).zip(planes.par_chunks_exact(IMAGE_BYTES)).for_each(|(rgb, planes)| {
            transpose(planes, rgb);
        });
    }
    Ok(Packed::new(pixels, SIDE, SIDE))
}

/// `[3, W, H]` (planes, column by column) to `[H, W, 3]`.
fn transpose(planes: &[u8], rgb: &mut [u8]) {
    for (channel, plane) in planes.chunks_exact(SIDE * SIDE).enumerate() {
        for (x, column) in plane.chunks_exact(SIDE).enumerate() {
            for (y, &level) in column.iter().enumerate() {
                rgb[(y * SIDE + x) * 3 + channel] = level;
            }
        }
    }
}
