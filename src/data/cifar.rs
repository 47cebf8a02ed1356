//! CIFAR-10 and CIFAR-100: 32x32 RGB, 50,000 training and 10,000 test images.
//!
//! The binary version is a sequence of records: the label (CIFAR-100: coarse, then
//! fine label) and three planes of 1,024 bytes. The Python version holds the same in
//! pickles (`cifar_python.rs`). The binary version is taken where both are present.

use super::facts::how_to_get;
use super::source;
use super::split::{Images, Packed, Split};
use super::{Part, cifar_python};
use crate::config::DatasetName;
use anyhow::{Result, bail};
use rayon::prelude::*;
use std::path::Path;

const SIDE: usize = 32;
/// Bytes of an image.
pub const IMAGE_BYTES: usize = SIDE * SIDE * 3;

const CLASSES_10: [&str; 10] =
    ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"];
/// The fine labels.
const CLASSES_100: &str = "apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus \
    butterfly camel can castle caterpillar cattle chair chimpanzee clock cloud cockroach couch crab crocodile cup \
    dinosaur dolphin elephant flatfish forest fox girl hamster house kangaroo keyboard lamp lawn_mower leopard lion \
    lizard lobster man maple_tree motorcycle mountain mouse mushroom oak_tree orange orchid otter palm_tree pear \
    pickup_truck pine_tree plain plate poppy porcupine possum rabbit raccoon ray road rocket rose sea seal shark shrew \
    skunk skyscraper snail snake spider squirrel streetcar sunflower sweet_pepper table tank telephone television tiger \
    tractor train trout tulip turtle wardrobe whale willow_tree wolf woman worm";

/// Which of the two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Variant {
    Cifar10,
    Cifar100,
}

impl Variant {
    pub fn dataset(self) -> DatasetName {
        match self {
            Variant::Cifar10 => DatasetName::Cifar10,
            Variant::Cifar100 => DatasetName::Cifar100,
        }
    }

    pub fn classes(self) -> Vec<String> {
        match self {
            Variant::Cifar10 => CLASSES_10.iter().map(|&name| name.to_owned()).collect(),
            Variant::Cifar100 => CLASSES_100.split_ascii_whitespace().map(str::to_owned).collect(),
        }
    }

    /// Label bytes before each image of the binary version; the last is the (fine) label.
    fn label_bytes(self) -> usize {
        match self {
            Variant::Cifar10 => 1,
            Variant::Cifar100 => 2,
        }
    }

    /// The files of a part, without `.bin`, and the number of images in each of the published ones.
    fn files(self, part: Part) -> (&'static [&'static str], usize) {
        const BATCHES: [&str; 5] = ["data_batch_1", "data_batch_2", "data_batch_3", "data_batch_4", "data_batch_5"];
        match (self, part) {
            (Variant::Cifar10, Part::Test) => (&["test_batch"], 10_000),
            (Variant::Cifar10, _) => (&BATCHES, 10_000),
            (Variant::Cifar100, Part::Test) => (&["test"], 10_000),
            (Variant::Cifar100, _) => (&["train"], 50_000),
        }
    }

    /// Directories that the binary and the Python version unpack to.
    fn directories(self) -> (&'static [&'static str], &'static [&'static str]) {
        match self {
            Variant::Cifar10 => (
                &["cifar10/cifar-10-batches-bin", "cifar-10-batches-bin", "cifar10", ""],
                &["cifar10/cifar-10-batches-py", "cifar-10-batches-py", "cifar10", ""],
            ),
            Variant::Cifar100 => (
                &["cifar100/cifar-100-binary", "cifar-100-binary", "cifar100"],
                &["cifar100/cifar-100-python", "cifar-100-python", "cifar100"],
            ),
        }
    }
}

/// Loads one part, in whichever version is below `root`.
pub fn load(root: &Path, variant: Variant, part: Part) -> Result<Split> {
    let dataset = variant.dataset();
    let (files, images_per_file) = variant.files(part);
    let (binary, python) = variant.directories();
    let first = format!("{}.bin", files[0]);
    let mut pixels = Vec::new();
    let mut labels = Vec::new();
    match source::locate(dataset, root, binary, &[&first]) {
        Ok(home) => {
            let record = variant.label_bytes() + IMAGE_BYTES;
            for name in files {
                let path = home.join(format!("{name}.bin"));
                let bytes = source::read_records(dataset, &path, record, record * images_per_file)?;
                for record in bytes.chunks_exact(record) {
                    let (label, planes) = record.split_at(variant.label_bytes());
                    labels.push(i64::from(label[variant.label_bytes() - 1]));
                    pixels.extend_from_slice(planes);
                }
                check_labels(variant, &path, &labels)?;
            }
        }
        Err(missing) => {
            // Neither there: the error names the places of the binary version, which get_data.sh fetches.
            let home = source::locate(dataset, root, python, files).map_err(|_| missing)?;
            for name in files {
                let path = home.join(name);
                cifar_python::read_batch(variant, &path, &mut pixels, &mut labels)?;
                check_labels(variant, &path, &labels)?;
            }
        }
    }
    interleave(&mut pixels);
    let name = format!("{dataset} {}", if part == Part::Test { "test" } else { "train" });
    let packed = Packed::new(pixels, SIDE, SIDE);
    Ok(Split::new(Images::Packed(packed), Some(labels), variant.classes(), name))
}

fn check_labels(variant: Variant, path: &Path, labels: &[i64]) -> Result<()> {
    let classes = variant.classes().len() as i64;
    if let Some(label) = labels.iter().find(|&label| !(0..classes).contains(label)) {
        bail!(
            "{} has the label {label}; those of {} go from 0 to {}: it is damaged or another file; {}",
            path.display(),
            variant.dataset(),
            classes - 1,
            how_to_get(variant.dataset())
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
        for (variant, count) in [(Variant::Cifar10, 10), (Variant::Cifar100, 100)] {
            let classes = variant.classes();
            assert_eq!(classes.len(), count);
            assert!(classes.is_sorted());
        }
    }
}
