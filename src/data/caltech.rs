//! Caltech-101: one directory per class, no published split.
//!
//! 30 images of each class are for training and the rest for testing, the
//! customary protocol. Which 30 is a fixed seeded choice, the same in every run.
//! Upstream (`prepare_caltech`) draws with replacement, so its training sets have
//! repeated images; here they are distinct. `BACKGROUND_Google` is no class.

use super::facts::how_to_get;
use super::file_list::FileList;
use super::split::{Images, Split};
use super::{Part, source, walk};
use crate::config::DatasetName;
use crate::rng::{Purpose, Stream};
use anyhow::{Result, bail};
use std::path::Path;

/// Training images of each class.
const PER_CLASS: usize = 30;
/// Part of the protocol, not of a run: train and test must not mix whatever the run's seed.
const SPLIT_SEED: u64 = 101;

pub fn load(root: &Path, part: Part) -> Result<Split> {
    let dataset = DatasetName::Caltech;
    let home = source::locate(dataset, root, &["caltech", "caltech101", "caltech-101", ""], &["101_ObjectCategories"])?;
    let base = home.join("101_ObjectCategories");
    let mut classes = walk::class_names(&base)?;
    classes.retain(|name| name != "BACKGROUND_Google");
    if classes.is_empty() {
        bail!("{} has no class directories; {}", base.display(), how_to_get(dataset));
    }
    let mut lists = Vec::with_capacity(classes.len());
    for (label, files) in walk::images_by_class(&base, &classes)?.iter().enumerate() {
        if files.len() <= PER_CLASS {
            bail!(
                "{} holds {} images; {PER_CLASS} for training and one for testing are needed: {}",
                base.join(&classes[label]).display(),
                files.len(),
                how_to_get(dataset)
            );
        }
        lists.push((label as i64, choose(files, label, part)));
    }
    let (files, labels) = walk::join(&base, &lists);
    let name = if part == Part::Test { "caltech test" } else { "caltech train" };
    Ok(Split::new(Images::Files(files), Some(labels), classes, name.to_owned()))
}

/// The training or the test files of one class, in their order.
fn choose(files: &FileList, label: usize, part: Part) -> FileList {
    let mut indices: Vec<usize> = (0..files.len()).collect();
    Stream::new(SPLIT_SEED, Purpose::Subset, label as u64, 0, 0).shuffle(&mut indices);
    let (train, test) = indices.split_at_mut(PER_CLASS);
    let chosen = if part == Part::Test { test } else { train };
    chosen.sort_unstable();
    files.subset(chosen)
}
