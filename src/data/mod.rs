//! Data sets: every source, whatever its format, becomes a [`Split`].
//!
//! One file a source. Small images of one size travel as one block of bytes
//! ([`Packed`]), large ones as a list of paths that are decoded when asked for
//! ([`FileList`]). Layouts and where to get each set: `datasets/README.md`.
//! Answers to upstream's `ContrastiveLearningDataset.get_dataset` and
//! `load_dataloader`.

mod caltech;
mod cifar;
mod cifar_python;
mod decode;
mod facts;
mod fashion_mnist;
mod file_list;
mod folder;
mod food;
mod idx;
mod image_tree;
mod index_cache;
mod jpeg;
mod source;
mod split;
mod stl10;
mod subset;
mod tiny_imagenet;
mod voc;
mod walk;

pub use decode::{BadImage, MAX_PIXELS, decode_bytes, decode_file};
pub use facts::{how_to_get, is_packed, native_size_px, num_classes};
pub use file_list::FileList;
pub use split::{Images, Packed, Split, grouped};
pub use subset::{list_for, semi_subset, some_of};
pub use walk::{Stamp, Tree};

use crate::config::{DataConfig, DatasetName};
use anyhow::Result;
use std::path::Path;

/// Which images of a data set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// Those to train a classifier on; labelled, except in an unlabelled `folder`.
    Train,
    /// Those to measure on.
    Test,
    /// Those to pre-train on: STL-10's 100,000 images without labels (upstream's
    /// `unlabeled` split), the training part of every other set.
    Unlabelled,
}

/// Loads or indexes one part of a data set.
///
/// Packed sets are read whole; of the others only the names are read, and a
/// broken image shows itself in [`Split::image`]. Of the images to train on, only
/// [`DataConfig::train_images`] are kept when that is set. Errors name the file, what was
/// expected of it (size in bytes or layout), and how to get the data.
pub fn load(config: &DataConfig, part: Part) -> Result<Split> {
    let whole = load_whole(config, part)?;
    match config.train_images {
        Some(count) if part != Part::Test => subset::some_of(&whole, count as usize),
        _ => Ok(whole),
    }
}

fn load_whole(config: &DataConfig, part: Part) -> Result<Split> {
    let root = config.root.as_path();
    match config.dataset {
        DatasetName::FashionMnistMini => fashion_mnist::load_mini(part),
        DatasetName::FashionMnist => fashion_mnist::load(root, part),
        DatasetName::Cifar10 => cifar::load(root, cifar::Variant::Cifar10, part),
        DatasetName::Cifar100 => cifar::load(root, cifar::Variant::Cifar100, part),
        DatasetName::Stl10 => stl10::load(root, part),
        DatasetName::TinyImagenet => tiny_imagenet::load(root, part),
        DatasetName::Caltech => caltech::load(root, part),
        DatasetName::Voc => voc::load(root, part),
        DatasetName::Imagenet | DatasetName::Flower | DatasetName::Sun => image_tree::load(config.dataset, root, part),
        DatasetName::Food => food::load(root, part),
        DatasetName::Folder => folder::load(root, part),
    }
}

/// Everything below a directory, from the index of an earlier run when nothing has changed.
fn indexed(root: &Path) -> Result<Tree> {
    Ok(indexed_in(root, index_cache::directory().as_deref())?.0)
}

/// The images below `root`, listed or from the index that lies in `cache`; true if it came from there.
///
/// Errors: a directory that cannot be read, an image of a kind that is not read, a loop of links.
pub fn indexed_in(root: &Path, cache: Option<&Path>) -> Result<(Tree, bool)> {
    index_cache::tree(root, cache)
}
