//! Trees of class directories, as torchvision's `ImageFolder` reads them:
//! `train/CLASS/*.jpg` and `val/CLASS/*.jpg` or `test/CLASS/*.jpg`. ImageNet, SUN
//! and the flowers have this layout.
//!
//! Classes are numbered by the sorted directory names of `train/`; for ImageNet
//! that is the order of WordNet ids that every published model uses. Other than
//! in torchvision the test part takes the numbers of the training part, so a class
//! that it lacks shifts nothing.

use super::facts::how_to_get;
use super::split::{Images, Split};
use super::walk::{self, Tree};
use super::{Part, source};
use crate::config::DatasetName;
use anyhow::{Result, bail};
use std::path::Path;

/// Directories below the root where ImageNet may lie; the last is the root itself.
pub const IMAGENET_HOMES: [&str; 4] = ["imagenet", "ImageNet", "ILSVRC2012", ""];

/// Loads ImageNet, SUN or the flowers (and food in this layout) from `root`.
pub fn load(dataset: DatasetName, root: &Path, part: Part) -> Result<Split> {
    let candidates: &[&str] = match dataset {
        DatasetName::Imagenet => &IMAGENET_HOMES,
        DatasetName::Flower => &["flower", "flowers", ""],
        DatasetName::Sun => &["SUN", "SUN397", "sun397", ""],
        DatasetName::Food => &["food", "food-101", "food101", ""],
        other => panic!("{other} is no tree of class directories"),
    };
    let home = source::locate(dataset, root, candidates, &["train", "val", "test"])?;
    let train = home.join("train");
    let has_train = train.is_dir();
    match part {
        Part::Train | Part::Unlabelled if !has_train => {
            bail!("{} is not there; {}", train.display(), how_to_get(dataset))
        }
        Part::Train | Part::Unlabelled => labelled(&train, None, &format!("{dataset} train")),
        Part::Test => {
            // As upstream: ImageNet and SUN are tested on val/, flowers on test/.
            let order = if dataset == DatasetName::Flower { ["test", "val"] } else { ["val", "test"] };
            let Some(name) = order.into_iter().find(|name| home.join(name).is_dir()) else {
                bail!("{} has neither val/ nor test/; {}", home.display(), how_to_get(dataset));
            };
            let classes = if has_train { Some(walk::class_names(&train)?) } else { None };
            labelled(&home.join(name), classes, &format!("{dataset} {name}"))
        }
    }
}

/// One directory per class below `base`. With `classes` (those of the training part) each
/// directory must be one of them; without, the directories are the classes.
pub fn labelled(base: &Path, classes: Option<Vec<String>>, name: &str) -> Result<Split> {
    of_tree(base, super::indexed(base)?, classes, name)
}

/// [`labelled`], of a tree that has been listed.
pub fn of_tree(base: &Path, tree: Tree, classes: Option<Vec<String>>, name: &str) -> Result<Split> {
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
    Ok(Split::new(Images::Files(files), Some(labels), classes, name.to_owned()))
}
