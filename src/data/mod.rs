//! Data sets: every source, whatever its format, becomes a [`Split`].
//!
//! One file a source. Small images of one size travel as one block of bytes
//! ([`Packed`]), large ones as a list of paths that are decoded when asked for
//! ([`FileList`]). Layouts and where to get each set: `datasets/README.md`.
//! Answers to upstream's `ContrastiveLearningDataset.get_dataset` and
//! `load_dataloader`.
//!
//! A new source is three changes:
//! 1. its file here: its row ([`Source`]: the [`Protocol`] of its images, where it
//!    may lie, how to get it) and its loader, which gives a [`Split`];
//! 2. below, `mod` and its place in `SOURCES`;
//! 3. `config/choices.rs`: its name in `DatasetName`.
//!
//! Its layout belongs into `datasets/README.md`. A new kind of images (in an
//! archive, say) is a type that has the trait [`Images`], in a file of its own.

mod caltech;
mod cifar;
mod cifar_python;
mod decode;
mod fashion_mnist;
mod file_list;
mod flat_val;
mod folder;
mod food;
mod idx;
mod image_tree;
mod images;
mod index_cache;
mod meant;
mod npy;
mod npz;
#[cfg_attr(not(feature = "parquet"), allow(dead_code, unused_imports, reason = "it says how to build the program"))]
mod parquet;
mod parts;
mod protocol;
mod shards;
mod source;
mod split;
mod stl10;
mod subset;
mod tiny_imagenet;
mod voc;
mod walk;

pub use decode::{BadImage, Look, MAX_PIXELS, Unseen, decode_bytes, look, promises_image, usual_extension};
pub use file_list::FileList;
pub use images::{Images, Packed, Stored};
pub use index_cache::indexed_in;
pub use meant::meant;
pub use protocol::{Blur, Protocol, protocol};
pub use source::{NoPart, Source};
pub use split::{Split, counted, grouped};
pub use subset::{list_for, semi_subset, some_of};
pub use walk::{Stamp, Tree};

pub use crate::config::Part;
use crate::config::{DataConfig, DatasetName};
use crate::threads;
use anyhow::Result;
use index_cache::indexed;
use std::path::Path;

/// Every data set; its row stands in its file.
static SOURCES: [&Source; DatasetName::ALL.len()] = [
    &image_tree::IMAGENET,
    &cifar::CIFAR10,
    &cifar::CIFAR100,
    &stl10::STL10,
    &tiny_imagenet::TINY_IMAGENET,
    &fashion_mnist::FASHION_MNIST,
    &fashion_mnist::FASHION_MNIST_MINI,
    &caltech::CALTECH,
    &voc::VOC,
    &image_tree::FLOWER,
    &food::FOOD,
    &image_tree::SUN,
    &folder::FOLDER,
    &shards::SHARDS,
    &npz::NPZ,
    &parquet::PARQUET,
];

/// The row of a data set.
pub fn source_of(name: DatasetName) -> &'static Source {
    SOURCES.iter().find(|source| source.name == name).expect("every name has a row")
}

/// The side that the images are given to an encoder at where nobody asks for another one.
pub fn usual_size_px(dataset: DatasetName, root: &Path) -> u32 {
    let own = if dataset == DatasetName::Npz { npz::side(root) } else { None };
    own.unwrap_or(protocol(dataset).size_px)
}

/// Loads or indexes one part of a data set.
///
/// Packed sets are read whole; of the others only the names are read, and a
/// broken image shows itself in [`Split::image`]. Of the images to train on, only
/// [`DataConfig::train_images`] are kept when that is set. Errors name the file, what was
/// expected of it (size in bytes or layout), and how to get the data.
pub fn load(config: &DataConfig, part: Part) -> Result<Split> {
    let source = source_of(config.dataset);
    // What is embedded takes none.
    if !source.homes.is_empty() {
        threads::start_pool()?;
    }
    let whole = Split { orientation: config.orientation, ..(source.load)(source, config, part)? };
    match config.train_images {
        Some(count) if part != Part::Test => subset::some_of(&whole, count as usize),
        _ => Ok(whole),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_has_one_row_that_says_how_to_get_it() {
        for &name in DatasetName::ALL {
            assert_eq!(SOURCES.iter().filter(|source| source.name == name).count(), 1, "{name}");
            assert!(!source_of(name).how_to_get.is_empty());
            assert!([28, 32, 64, 96, 224].contains(&protocol(name).size_px));
        }
    }
}
