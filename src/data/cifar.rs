//! CIFAR-10 and CIFAR-100: 32x32 RGB, 50,000 training and 10,000 test images.
//!
//! The binary version is a sequence of records: the label (CIFAR-100: coarse, then
//! fine label) and three planes of 1,024 bytes. The Python version holds the same in
//! pickles (`cifar_python.rs`). The binary version is taken where both are present.

use super::protocol::{Blur, Protocol, SMALL};
use super::source::MOST_TIMES;
use super::{Packed, Part, Source, Split, cifar_python};
use crate::config::{DatasetName, Normalisation};
use anyhow::{Result, bail};
use rayon::prelude::*;
use std::path::Path;

pub static CIFAR10: Source = Source {
    name: DatasetName::Cifar10,
    protocol: Protocol {
        blur: Blur::FasterVersion,
        normalisation: Normalisation { mean: [0.4914, 0.4822, 0.4465], std: [0.2023, 0.1994, 0.2010] },
        ..SMALL
    },
    classes: Some(10),
    homes: &[
        "cifar10/cifar-10-batches-bin",
        "cifar-10-batches-bin",
        "cifar10/cifar-10-batches-py",
        "cifar-10-batches-py",
        "cifar10",
        "",
    ],
    several_roots: false,
    how_to_get: "get it with `./scripts/get_data.sh cifar10` (layout: datasets/README.md)",
    load: |source, data, part| load(source, &TEN, &data.root, part),
};

pub static CIFAR100: Source = Source {
    name: DatasetName::Cifar100,
    protocol: Protocol {
        normalisation: Normalisation { mean: [0.5071, 0.4867, 0.4408], std: [0.2675, 0.2565, 0.2761] },
        ..SMALL
    },
    classes: Some(100),
    homes: &[
        "cifar100/cifar-100-binary",
        "cifar-100-binary",
        "cifar100/cifar-100-python",
        "cifar-100-python",
        "cifar100",
    ],
    several_roots: false,
    how_to_get: "get it with `./scripts/get_data.sh cifar100` (layout: datasets/README.md)",
    load: |source, data, part| load(source, &HUNDRED, &data.root, part),
};

const SIDE: usize = 32;
/// Bytes of an image.
pub const IMAGE_BYTES: usize = SIDE * SIDE * 3;

/// How the files of one of the two are laid out.
struct Layout {
    /// Separated by spaces.
    classes: &'static str,
    /// Label bytes before each image of the binary version; the last is the (fine) label.
    label_bytes: usize,
    /// Where the Python version has the labels.
    labels_key: &'static str,
    /// Files without `.bin`, and the number of images in each of the published ones.
    train: (&'static [&'static str], usize),
    test: (&'static [&'static str], usize),
}

const TEN: Layout = Layout {
    classes: "airplane automobile bird cat deer dog frog horse ship truck",
    label_bytes: 1,
    labels_key: "labels",
    train: (&["data_batch_1", "data_batch_2", "data_batch_3", "data_batch_4", "data_batch_5"], 10_000),
    test: (&["test_batch"], 10_000),
};

const HUNDRED: Layout = Layout {
    classes: "apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus butterfly camel can \
        castle caterpillar cattle chair chimpanzee clock cloud cockroach couch crab crocodile cup dinosaur dolphin \
        elephant flatfish forest fox girl hamster house kangaroo keyboard lamp lawn_mower leopard lion lizard lobster \
        man maple_tree motorcycle mountain mouse mushroom oak_tree orange orchid otter palm_tree pear pickup_truck \
        pine_tree plain plate poppy porcupine possum rabbit raccoon ray road rocket rose sea seal shark shrew skunk \
        skyscraper snail snake spider squirrel streetcar sunflower sweet_pepper table tank telephone television tiger \
        tractor train trout tulip turtle wardrobe whale willow_tree wolf woman worm",
    label_bytes: 2,
    labels_key: "fine_labels",
    train: (&["train"], 50_000),
    test: (&["test"], 10_000),
};

/// Loads one part, in whichever version is below `root`.
fn load(source: &Source, layout: &Layout, root: &Path, part: Part) -> Result<Split> {
    let (files, images_per_file) = if part == Part::Test { layout.test } else { layout.train };
    let classes: Vec<&str> = layout.classes.split_ascii_whitespace().collect();
    let first = format!("{}.bin", files[0]);
    let (mut pixels, mut labels) = (Vec::new(), Vec::new());
    let (home, binary) = match source.locate(root, &[&first]) {
        Ok(home) => (home, true),
        // Neither there: the error names the file of the binary version, which get_data.sh fetches.
        Err(missing) => (source.locate(root, files).map_err(|_| missing)?, false),
    };
    for name in files {
        let path = if binary { home.join(format!("{name}.bin")) } else { home.join(name) };
        if binary {
            let record = layout.label_bytes + IMAGE_BYTES;
            let bytes = source.read(&path, (MOST_TIMES * images_per_file * record) as u64)?;
            source.check_records(&path, bytes.len(), record, images_per_file)?;
            for record in bytes.chunks_exact(record) {
                let (label, planes) = record.split_at(layout.label_bytes);
                labels.push(i64::from(label[layout.label_bytes - 1]));
                pixels.extend_from_slice(planes);
            }
        } else {
            let most = 2 * MOST_TIMES * images_per_file * IMAGE_BYTES;
            let batch = source.read(&path, most as u64)?;
            cifar_python::read_batch(source, layout.labels_key, &path, &batch, &mut pixels, &mut labels)?;
        }
        check_labels(source, classes.len(), &path, &labels)?;
    }
    interleave(&mut pixels);
    let name = source.part_name(if part == Part::Test { "test" } else { "train" });
    Ok(Split::labelled(Packed::new(pixels, SIDE, SIDE), labels, classes, name))
}

fn check_labels(source: &Source, classes: usize, path: &Path, labels: &[i64]) -> Result<()> {
    if let Some(label) = labels.iter().find(|&label| !(0..classes as i64).contains(label)) {
        bail!(
            "{} has the label {label}; those of {} go from 0 to {}: it is damaged or another file; {}",
            path.display(),
            source.name,
            classes - 1,
            source.how_to_get
        );
    }
    Ok(())
}

/// Each image from `[3, H, W]` to `[H, W, 3]`, in place.
fn interleave(pixels: &mut [u8]) {
    pixels.par_chunks_exact_mut(IMAGE_BYTES).for_each(|image| {
        let mut planes = [0; IMAGE_BYTES];
        planes.copy_from_slice(image);
        for (at, pixel) in image.chunks_exact_mut(3).enumerate() {
            for (channel, level) in pixel.iter_mut().enumerate() {
                *level = planes[channel * SIDE * SIDE + at];
            }
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn class_names_are_complete_and_sorted() {
        for (layout, count) in [(TEN, 10), (HUNDRED, 100)] {
            let classes: Vec<&str> = layout.classes.split_ascii_whitespace().collect();
            assert_eq!(classes.len(), count);
            assert!(classes.is_sorted());
        }
    }
}
