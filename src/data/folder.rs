//! Any directory of JPEG and PNG images: one's own data, without a format to learn.
//!
//! - `DIR/train/` present: it is the training part, and `DIR/test/` (or `DIR/val/`) the
//!   test part. Otherwise `DIR` itself is the training part and there is no test part.
//! - A part whose images all lie in subdirectories is labelled by them. One with
//!   images directly in it is unlabelled, and those in subdirectories belong to it too.

use super::protocol::{LIKE_IMAGENET, Protocol};
use super::{NoPart, Part, Source, Split, image_tree, indexed, walk};
use crate::config::{ClassifierAugment, DatasetName};
use anyhow::{Result, bail};
use std::path::Path;

pub static FOLDER: Source = Source {
    name: DatasetName::Folder,
    // One's own images have no published numbers to be repeated.
    protocol: Protocol { frozen: ClassifierAugment::None, ..LIKE_IMAGENET },
    homes: &[""],
    several_roots: true,
    how_to_get: "give the directory of your JPEG and PNG images with `--data DIR`",
    load: |source, data, part| load(source, &data.root, part),
};

fn load(source: &Source, root: &Path, part: Part) -> Result<Split> {
    if !root.is_dir() {
        bail!("{} is no directory; {}", root.display(), source.how_to_get);
    }
    let train = root.join("train");
    let train = if train.is_dir() { train.as_path() } else { root };
    match part {
        Part::Train | Part::Unlabelled => index(train, None, source.part_name("train")),
        Part::Test => {
            let test = ["test", "val"].iter().map(|name| root.join(name)).find(|path| path.is_dir());
            let Some(test) = test.filter(|_| train != root) else {
                let what = format!(
                    "{0} has no test images: put the images into {0}/train/CLASS/ and {0}/test/CLASS/ (or val/)",
                    root.display()
                );
                return Err(NoPart(what).into());
            };
            index(&test, labelled_classes(train)?, source.part_name("test"))
        }
    }
}

/// The classes of a labelled part, or `None` for an unlabelled one.
fn labelled_classes(base: &Path) -> Result<Option<Vec<String>>> {
    if !walk::list(base)?.images.is_empty() {
        return Ok(None);
    }
    let classes = walk::class_names(base)?;
    Ok(Some(classes).filter(|classes| !classes.is_empty()))
}

fn index(base: &Path, classes: Option<Vec<String>>, name: String) -> Result<Split> {
    let tree = indexed(base)?;
    if tree.direct == 0 && !tree.classes.is_empty() {
        return image_tree::of_tree(base, tree, classes, name);
    }
    if tree.files.is_empty() {
        bail!("{} holds no JPEG or PNG image (extensions .jpg, .jpeg, .png in any case)", base.display());
    }
    Ok(Split::unlabelled(tree.files, name))
}
