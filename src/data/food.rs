//! Food-101: as published (`images/CLASS/*.jpg` with the lists `meta/train.txt`
//! and `meta/test.txt`), or sorted into `train/` and `val/` or `test/`.

use super::parts::Kind;
use super::protocol::PHOTOGRAPHS;
use super::{Part, Source, Split, image_tree, walk};
use crate::config::DatasetName;
use anyhow::Result;
use std::path::Path;

pub static FOOD: Source = Source {
    name: DatasetName::Food,
    protocol: PHOTOGRAPHS,
    classes: Some(101),
    homes: &["food", "food-101", "food101", "food/food-101", ""],
    several_roots: false,
    how_to_get: "it is published at https://data.vision.ee.ethz.ch/cvl/datasets_extra/food-101; the layout that is \
                 read is in datasets/README.md",
    load: |source, data, part| load(source, &data.root, part),
};

fn load(source: &Source, root: &Path, part: Part) -> Result<Split> {
    // The tree's own error, which lists the places looked at, serves for both layouts.
    let Ok(home) = source.locate(root, &["meta/train.txt"]) else {
        return image_tree::load(source, root, part, [Kind::Val, Kind::Test]);
    };
    let list_name = if part == Part::Test { "test" } else { "train" };
    let base = home.join("images");
    let classes = walk::directories(&base)?;
    let classes: Vec<String> = classes.iter().map(|name| walk::class_name(&base, name)).collect::<Result<_>>()?;
    let list = home.join("meta").join(format!("{list_name}.txt"));
    let (files, labels) = source.listed(&list, &base, &classes, |line| {
        let line = line.trim();
        Ok((format!("{line}.jpg"), line.split('/').next().unwrap_or_default()))
    })?;
    Ok(Split::labelled(files, labels, classes, source.part_name(list_name)))
}
