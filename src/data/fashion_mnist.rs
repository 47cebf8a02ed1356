//! Fashion-MNIST, whole from disk or 4,000 + 1,000 images from the binary itself.
//!
//! Zalando's 28x28 grey images are padded to 32x32 with zeros, two pixels on
//! each side, and repeated to RGB, so that they take the path of CIFAR. The
//! embedded choice and its source: `scripts/make_fashion_mnist_mini.py` and
//! `datasets/fashion_mnist_mini/README.md`.

use super::protocol::SMALL;
use super::source::MOST_TIMES;
use super::{Packed, Part, Source, Split, counted, idx};
use crate::config::DatasetName;
use anyhow::{Result, anyhow};
use std::path::Path;

pub static FASHION_MNIST: Source = Source {
    name: DatasetName::FashionMnist,
    // 28 in the files, padded to 32 when read.
    protocol: SMALL,
    classes: Some(10),
    homes: &["fashion_mnist", "fashion-mnist", "FashionMNIST/raw", "FashionMNIST", ""],
    several_roots: false,
    how_to_get: "get it with `./scripts/get_data.sh fashion_mnist` (layout: datasets/README.md)",
    load: |source, data, part| load(source, &data.root, part),
};

/// 400 training and 100 test images a class, inside the binary.
pub static FASHION_MNIST_MINI: Source = Source {
    name: DatasetName::FashionMnistMini,
    protocol: SMALL,
    classes: Some(10),
    homes: &[],
    several_roots: false,
    how_to_get: "it is embedded in the program",
    load: |source, _, part| load_mini(source, part),
};

const CLASSES: [&str; 10] =
    ["T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"];
/// Side of an image in the files.
const FILE_SIDE: usize = 28;
/// The training part has 60,000.
const MOST_IMAGES: usize = MOST_TIMES * 60_000;
/// Side of an image as it is handed on.
const SIDE: usize = 32;
const MARGIN: usize = (SIDE - FILE_SIDE) / 2;

macro_rules! embedded {
    ($name:literal) => {
        include_bytes!(concat!("../../datasets/fashion_mnist_mini/", $name))
    };
}
static TRAIN_IMAGES: &[u8] = embedded!("train-images-idx3-ubyte.gz");
static TRAIN_LABELS: &[u8] = embedded!("train-labels-idx1-ubyte.gz");
static TEST_IMAGES: &[u8] = embedded!("t10k-images-idx3-ubyte.gz");
static TEST_LABELS: &[u8] = embedded!("t10k-labels-idx1-ubyte.gz");

fn load_mini(source: &Source, part: Part) -> Result<Split> {
    let (images, labels, stem) = match part {
        Part::Train | Part::Unlabelled => (TRAIN_IMAGES, TRAIN_LABELS, "train"),
        Part::Test => (TEST_IMAGES, TEST_LABELS, "test"),
    };
    split(images, labels, source.part_name(stem))
        .map_err(|(file, what)| anyhow!("the embedded {file} are broken: {what}"))
}

/// 60,000 training and 10,000 test images.
fn load(source: &Source, root: &Path, part: Part) -> Result<Split> {
    let (prefix, stem) = match part {
        Part::Train | Part::Unlabelled => ("train", "train"),
        Part::Test => ("t10k", "test"),
    };
    let images = format!("{prefix}-images-idx3-ubyte");
    let compressed = format!("{images}.gz");
    let home = source.locate(root, &[&images, &compressed])?;
    let path = |kind: &str| {
        let plain = home.join(format!("{prefix}-{kind}-ubyte"));
        if plain.exists() { plain } else { home.join(format!("{prefix}-{kind}-ubyte.gz")) }
    };
    let (images, labels) = (path("images-idx3"), path("labels-idx1"));
    let read = |path: &Path| source.read(path, (16 + MOST_IMAGES * FILE_SIDE * FILE_SIDE) as u64);
    split(&read(&images)?, &read(&labels)?, source.part_name(stem)).map_err(|(file, what)| {
        let path = if file == "images" { &images } else { &labels };
        anyhow!("{}: {what}; {}", path.display(), source.how_to_get)
    })
}

/// Two IDX files as a split; an error says which of the two is wrong, and how.
fn split(images: &[u8], labels: &[u8], name: String) -> Result<Split, (&'static str, String)> {
    let images = idx::parse(images, &[FILE_SIDE, FILE_SIDE], MOST_IMAGES).map_err(|what| ("images", what))?;
    let labels = idx::parse(labels, &[], MOST_IMAGES).map_err(|what| ("labels", what))?;
    if labels.data.len() != images.shape[0] {
        let (labels, images) = (counted(labels.data.len(), "label"), counted(images.shape[0], "image"));
        return Err(("labels", format!("it has {labels} for {images}")));
    }
    if let Some(label) = labels.data.iter().find(|&&label| usize::from(label) >= CLASSES.len()) {
        return Err(("labels", format!("it has the label {label}; they go from 0 to 9")));
    }
    let packed = Packed::new(pad_to_rgb(&images.data), SIDE, SIDE);
    let labels = labels.data.iter().map(|&label| i64::from(label)).collect();
    Ok(Split::labelled(packed, labels, CLASSES, name))
}

/// `[N, 28, 28]` grey to `[N, 32, 32, 3]`.
fn pad_to_rgb(grey: &[u8]) -> Vec<u8> {
    let count = grey.len() / (FILE_SIDE * FILE_SIDE);
    let mut rgb = vec![0; count * SIDE * SIDE * 3];
    for (row, line) in grey.chunks_exact(FILE_SIDE).enumerate() {
        let (image, y) = (row / FILE_SIDE, row % FILE_SIDE);
        let start = ((image * SIDE + y + MARGIN) * SIDE + MARGIN) * 3;
        for (pixel, &level) in rgb[start..].chunks_exact_mut(3).zip(line) {
            pixel.fill(level);
        }
    }
    rgb
}
