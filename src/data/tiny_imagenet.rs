//! Tiny ImageNet: 200 classes of 64x64 JPEG images, as published:
//! `train/WNID/images/*.JPEG`, and `val/images/` whose labels are in
//! `val/val_annotations.txt`. A `val/` already sorted into class directories is
//! read too. The published test images have no labels, so `val/` is the test part.

use super::protocol::{Protocol, SMALL};
use super::{Part, Source, Split, flat_val, image_tree, walk};
use crate::config::{DatasetName, Normalisation};
use anyhow::{Result, bail};
use std::cell::RefCell;
use std::collections::BTreeSet;
use std::ffi::OsString;
use std::path::Path;

pub static TINY_IMAGENET: Source = Source {
    name: DatasetName::TinyImagenet,
    protocol: Protocol {
        size_px: 64,
        packed: false,
        jitter_strength: 0.0,
        normalisation: Normalisation { mean: [0.48, 0.4481, 0.3977], std: [0.276, 0.270, 0.282] },
        ..SMALL
    },
    classes: Some(200),
    homes: &["tiny_imagenet", "tiny_imagenet/tiny-imagenet-200", "tiny-imagenet-200", "tiny-imagenet", ""],
    several_roots: false,
    how_to_get: "get it with `./scripts/get_data.sh tiny_imagenet` (layout: datasets/README.md)",
    load: |source, data, part| load(source, &data.root, part),
};

fn load(source: &Source, root: &Path, part: Part) -> Result<Split> {
    let home = source.locate(root, &["train"])?;
    let train = home.join("train");
    if part != Part::Test {
        return image_tree::labelled(&train, None, source.part_name("train"));
    }
    let classes = image_tree::classes_of(&train)?;
    let (val, name) = (home.join("val"), source.part_name("val"));
    let (annotations, images) = (val.join("val_annotations.txt"), val.join("images"));
    if !annotations.exists() {
        if val.is_dir() && !images.exists() {
            return image_tree::labelled(&val, Some(classes), name);
        }
        bail!("{} is not there; {}", annotations.display(), source.how_to_get);
    }
    let present = walk::list(&images, Path::new(""))?.images;
    let unnamed: RefCell<BTreeSet<&OsString>> = RefCell::new(present.iter().collect());
    // File, class and box, separated by tabs, one a line.
    let (files, labels) = source.listed(&annotations, &images, &classes, |line| {
        let mut fields = line.split('\t');
        let (Some(file), Some(class)) = (fields.next(), fields.next()) else {
            return Err("expected a file and a class, separated by a tab".to_owned());
        };
        match unnamed.borrow_mut().remove(&OsString::from(file)) {
            true => Ok((file.to_owned(), class)),
            false if present.iter().any(|name| name == file) => Err(format!("{file} is named twice")),
            false => Err(format!("{file} is not in val/images/")),
        }
    })?;
    flat_val::every_image_is_named(unnamed.into_inner().into_iter().collect(), &annotations, source)?;
    Ok(Split::labelled(files, labels, classes, name))
}
