//! Caltech-101: one directory per class, no published split.
//!
//! 30 images of each class are for training and the rest for testing, the
//! customary protocol. Which 30 is a fixed seeded choice, the same in every run.
//! Upstream (`prepare_caltech`) draws with replacement, so its training sets have
//! repeated images; here they are distinct. `BACKGROUND_Google` is no class.

use super::protocol::PHOTOGRAPHS;
use super::{Part, Source, Split, indexed, walk};
use crate::config::DatasetName;
use crate::rng::{Purpose, Stream};
use anyhow::{Result, bail};
use std::path::Path;

pub static CALTECH: Source = Source {
    name: DatasetName::Caltech,
    protocol: PHOTOGRAPHS,
    classes: Some(101),
    homes: &["caltech", "caltech101", "caltech-101", ""],
    several_roots: false,
    how_to_get: "it is published at https://data.caltech.edu/records/mzrjq-6wc02; the layout that is read is in \
                 datasets/README.md",
    load: |source, data, part| load(source, &data.root, part),
};

/// Training images of each class.
const PER_CLASS: usize = 30;
/// Part of the protocol, not of a run: train and test must not mix whatever the run's seed.
const SPLIT_SEED: u64 = 101;

fn load(source: &Source, root: &Path, part: Part) -> Result<Split> {
    let base = source.locate(root, &["101_ObjectCategories"])?.join("101_ObjectCategories");
    let tree = indexed(&base)?;
    let (mut classes, mut chosen, mut labels) = (Vec::new(), Vec::new(), Vec::new());
    let mut first = tree.direct;
    for (class, count) in tree.classes {
        let mut files: Vec<usize> = (first..first + count).collect();
        first += count;
        if class == "BACKGROUND_Google" {
            continue;
        }
        let class = walk::class_name(&base, &class)?;
        if count <= PER_CLASS {
            let directory = base.join(class);
            bail!(
                "{} holds {count} images; {PER_CLASS} for training and one for testing are needed: {}",
                directory.display(),
                source.how_to_get
            );
        }
        Stream::new(SPLIT_SEED, Purpose::Subset, classes.len() as u64, 0, 0).shuffle(&mut files);
        let (train, test) = files.split_at_mut(PER_CLASS);
        let own = if part == Part::Test { test } else { train };
        own.sort_unstable();
        chosen.extend_from_slice(own);
        labels.resize(chosen.len(), classes.len() as i64);
        classes.push(class);
    }
    if classes.is_empty() {
        bail!("{} has no class directories; {}", base.display(), source.how_to_get);
    }
    let notes = tree.passed_over.sentence(&base).into_iter().collect();
    let name = source.part_name(if part == Part::Test { "test" } else { "train" });
    Ok(Split { notes, ..Split::labelled(tree.files.subset(&chosen), labels, classes, name) })
}
