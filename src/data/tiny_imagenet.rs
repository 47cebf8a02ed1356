//! Tiny ImageNet: 200 classes of 64x64 JPEG images, as published:
//! `train/WNID/images/*.JPEG`, and `val/images/` whose labels are in
//! `val/val_annotations.txt`. A `val/` already sorted into class directories is
//! read too. The published test images have no labels, so `val/` is the test part.

use super::facts::how_to_get;
use super::file_list::FileList;
use super::split::{Images, Split};
use super::{Part, image_tree, source, walk};
use crate::config::DatasetName;
use anyhow::{Result, bail};
use std::collections::HashSet;
use std::path::{Path, PathBuf};

pub fn load(root: &Path, part: Part) -> Result<Split> {
    let dataset = DatasetName::TinyImagenet;
    let candidates = ["tiny_imagenet", "tiny_imagenet/tiny-imagenet-200", "tiny-imagenet-200", "tiny-imagenet", ""];
    let home = source::locate(dataset, root, &candidates, &["train"])?;
    let train = home.join("train");
    if part != Part::Test {
        return image_tree::labelled(&train, None, "tiny_imagenet train");
    }
    let classes = walk::class_names(&train)?;
    let val = home.join("val");
    let annotations = val.join("val_annotations.txt");
    if annotations.exists() {
        annotated(&val, &annotations, classes)
    } else if val.is_dir() && !val.join("images").exists() {
        image_tree::labelled(&val, Some(classes), "tiny_imagenet val")
    } else {
        bail!("{} is not there; {}", annotations.display(), how_to_get(dataset))
    }
}

/// The images that `val_annotations.txt` names: file, class and box, separated by tabs, one a line.
fn annotated(val: &Path, annotations: &Path, classes: Vec<String>) -> Result<Split> {
    let dataset = DatasetName::TinyImagenet;
    let images = val.join("images");
    let present: HashSet<_> = walk::list(&images)?.images.into_iter().collect();
    let mut files = FileList::new(images);
    let mut labels = Vec::new();
    for (number, line) in source::read_text(dataset, annotations)?.lines().enumerate() {
        let at = || format!("{}:{}", annotations.display(), number + 1);
        let mut fields = line.split('\t');
        let (Some(file), Some(class)) = (fields.next(), fields.next()) else {
            bail!("{}: expected a file and a class, separated by a tab; {}", at(), how_to_get(dataset));
        };
        let Ok(label) = classes.binary_search_by(|name| name.as_str().cmp(class)) else {
            bail!("{}: {class:?} is no directory in train/; {}", at(), how_to_get(dataset));
        };
        if !present.contains(std::ffi::OsStr::new(file)) {
            bail!("{}: {file} is not in val/images/; {}", at(), how_to_get(dataset));
        }
        files.push(&PathBuf::from(file));
        labels.push(label as i64);
    }
    if files.is_empty() {
        bail!("{} names no image; {}", annotations.display(), how_to_get(dataset));
    }
    Ok(Split::new(Images::Files(files), Some(labels), classes, "tiny_imagenet val".to_owned()))
}
