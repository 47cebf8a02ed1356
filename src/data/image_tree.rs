//! Trees of class directories, as torchvision's `ImageFolder` reads them:
//! `train/CLASS/*.jpg` and `val/CLASS/*.jpg` or `test/CLASS/*.jpg`. ImageNet, SUN
//! and the flowers have this layout. As upstream, ImageNet and SUN are tested on
//! `val/`, flowers on `test/`.
//!
//! Classes are numbered by the sorted directory names of `train/`; for ImageNet
//! that is the order of WordNet ids that every published model uses. Other than
//! in torchvision the test part takes the numbers of the training part, so a class
//! that it lacks shifts nothing.

use super::protocol::{LIKE_IMAGENET, PHOTOGRAPHS, Protocol};
use super::walk::{self, Tree};
use super::{Part, Source, Split, indexed};
use crate::config::{DatasetName, Normalisation};
use anyhow::{Result, bail};
use std::path::Path;

pub static IMAGENET: Source = Source {
    name: DatasetName::Imagenet,
    protocol: Protocol {
        normalisation: Normalisation { mean: [0.485, 0.456, 0.406], std: [0.229, 0.224, 0.225] },
        label_lists: true,
        ..LIKE_IMAGENET
    },
    homes: &["imagenet", "ImageNet", "ILSVRC2012", ""],
    several_roots: false,
    how_to_get: "it is available after registration at https://image-net.org; the layout that is read is in \
                 datasets/README.md",
    load: |source, data, part| load(source, &data.root, part, ["val", "test"]),
};

pub static SUN: Source = Source {
    name: DatasetName::Sun,
    protocol: PHOTOGRAPHS,
    homes: &["SUN", "SUN397", "sun397", ""],
    several_roots: false,
    how_to_get: "it is published at https://vision.princeton.edu/projects/2010/SUN; the layout that is read is in \
                 datasets/README.md",
    load: |source, data, part| load(source, &data.root, part, ["val", "test"]),
};

pub static FLOWER: Source = Source {
    name: DatasetName::Flower,
    protocol: PHOTOGRAPHS,
    homes: &["flower", "flowers", ""],
    several_roots: false,
    how_to_get: "it is published at https://www.robots.ox.ac.uk/~vgg/data/flowers/102; the layout that is read is in \
                 datasets/README.md",
    load: |source, data, part| load(source, &data.root, part, ["test", "val"]),
};

/// Loads a part of a tree; the test images are in the first of the directories `test` that is there.
pub fn load(source: &Source, root: &Path, part: Part, test: [&str; 2]) -> Result<Split> {
    let home = source.locate(root, &["train", "val", "test"])?;
    let train = home.join("train");
    let has_train = train.is_dir();
    match part {
        Part::Train | Part::Unlabelled if !has_train => {
            bail!("{} is not there; {}", train.display(), source.how_to_get)
        }
        Part::Train | Part::Unlabelled => labelled(&train, None, source.part_name("train")),
        Part::Test => {
            let Some(name) = test.into_iter().find(|name| home.join(name).is_dir()) else {
                bail!("{} has neither val/ nor test/; {}", home.display(), source.how_to_get);
            };
            let classes = if has_train { Some(walk::class_names(&train)?) } else { None };
            labelled(&home.join(name), classes, source.part_name(name))
        }
    }
}

/// One directory per class below `base`. With `classes` (those of the training part) each
/// directory must be one of them; without, the directories are the classes.
pub fn labelled(base: &Path, classes: Option<Vec<String>>, name: String) -> Result<Split> {
    of_tree(base, indexed(base)?, classes, name)
}

/// [`labelled`], of a tree that has been listed.
pub fn of_tree(base: &Path, tree: Tree, classes: Option<Vec<String>>, name: String) -> Result<Split> {
    if tree.classes.is_empty() {
        bail!(
            "{} has no class directories ({} images lie in it directly): sort the images into one directory per \
             class, as datasets/README.md shows",
            base.display(),
            tree.direct
        );
    }
    let mut found = Vec::with_capacity(tree.classes.len());
    for (class, count) in tree.classes {
        found.push((walk::class_name(base, class)?, count));
    }
    let classes = classes.unwrap_or_else(|| found.iter().map(|(class, _)| class.clone()).collect());
    let mut labels = Vec::with_capacity(tree.files.len() - tree.direct);
    for (class, count) in &found {
        // Both are sorted.
        let Ok(label) = classes.binary_search(class) else {
            bail!("{} is no class of the training images; remove or rename it", base.join(class).display());
        };
        if *count == 0 {
            bail!("{} holds no JPEG or PNG image; fill the class or remove the directory", base.join(class).display());
        }
        labels.resize(labels.len() + count, label as i64);
    }
    // Images beside the class directories belong to no class; torchvision passes over them too.
    let files = tree.files.starting_at(tree.direct);
    Ok(Split::labelled(files, labels, classes, name))
}
