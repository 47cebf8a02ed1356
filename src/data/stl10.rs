//! STL-10, binary version: 96x96 RGB; 5,000 training and 8,000 test images in ten
//! classes, and 100,000 without labels (2.8 GB) to pre-train on.
//!
//! Each image is three planes, and each plane lies column by column. Labels are
//! one byte each and count from 1.

use super::protocol::{Protocol, SMALL};
use super::source::MOST_TIMES;
use super::{Packed, Part, Source, Split, counted};
use crate::config::DatasetName;
use crate::files;
use anyhow::{Context, Result, bail};
use rayon::prelude::*;
use std::io::Read;
use std::path::Path;

pub static STL10: Source = Source {
    name: DatasetName::Stl10,
    protocol: Protocol { size_px: 96, jitter_strength: 1.0, ..SMALL },
    classes: Some(10),
    homes: &["stl10/stl10_binary", "stl10_binary", "stl10", ""],
    several_roots: false,
    how_to_get: "get it with `./scripts/get_data.sh stl10` (layout: datasets/README.md)",
    load: |source, data, part| load(source, &data.root, part),
};

const CLASSES: [&str; 10] = ["airplane", "bird", "car", "cat", "deer", "dog", "horse", "monkey", "ship", "truck"];
const SIDE: usize = 96;
const IMAGE_BYTES: usize = SIDE * SIDE * 3;
/// Images transposed at a time: the unlabelled file is too large to lie in memory twice.
const CHUNK: usize = 1024;

fn load(source: &Source, root: &Path, part: Part) -> Result<Split> {
    let (stem, originals) = match part {
        Part::Train => ("train", 5_000),
        Part::Test => ("test", 8_000),
        Part::Unlabelled => ("unlabeled", 100_000),
    };
    let images_name = format!("{stem}_X.bin");
    let home = source.locate(root, &[&images_name])?;
    let pixels = read_images(source, &home.join(&images_name), originals)?;
    let count = pixels.len() / IMAGE_BYTES;
    let images = Packed::new(pixels, SIDE, SIDE);
    if part == Part::Unlabelled {
        return Ok(Split::unlabelled(images, source.part_name(stem)));
    }
    let labels = read_labels(source, &home.join(format!("{stem}_y.bin")), count, originals)?;
    Ok(Split::labelled(images, labels, CLASSES, source.part_name(stem)))
}

fn read_labels(source: &Source, path: &Path, images: usize, originals: usize) -> Result<Vec<i64>> {
    let bytes = source.read(path, (MOST_TIMES * originals) as u64)?;
    if bytes.len() != images {
        let (labels, images) = (counted(bytes.len(), "label"), counted(images, "image"));
        bail!("{} has {labels} for {images}; {}", path.display(), source.how_to_get);
    }
    if let Some(label) = bytes.iter().find(|&&label| !(1..=10).contains(&label)) {
        bail!("{} has the label {label}; they go from 1 to 10; {}", path.display(), source.how_to_get);
    }
    Ok(bytes.into_iter().map(|label| i64::from(label) - 1).collect())
}

/// `[N, H, W, 3]`. `originals` is the number of images in the published file, for the error message.
fn read_images(source: &Source, path: &Path, originals: usize) -> Result<Vec<u8>> {
    let unreadable = || format!("{} cannot be read; {}", path.display(), source.how_to_get);
    let mut file = files::open(path).with_context(unreadable)?;
    let bytes = file.metadata().with_context(unreadable)?.len() as usize;
    source.check_records(path, bytes, IMAGE_BYTES, originals)?;
    let mut pixels = vec![0; bytes];
    let mut buffer = vec![0; (CHUNK * IMAGE_BYTES).min(bytes)];
    for chunk in pixels.chunks_mut(CHUNK * IMAGE_BYTES) {
        let planes = &mut buffer[..chunk.len()];
        file.read_exact(planes).with_context(unreadable)?;
        chunk.par_chunks_exact_mut(IMAGE_BYTES).zip(planes.par_chunks_exact(IMAGE_BYTES)).for_each(|(rgb, planes)| {
            transpose(planes, rgb);
        });
    }
    Ok(pixels)
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
