//! Food-101: as published (`images/CLASS/*.jpg` with the lists `meta/train.txt`
//! and `meta/test.txt`), or sorted into `train/` and `val/` or `test/`.

use super::facts::how_to_get;
use super::file_list::FileList;
use super::split::{Images, Split};
use super::{Part, image_tree, source, walk};
use crate::config::DatasetName;
use anyhow::{Result, bail};
use std::path::{Path, PathBuf};

pub fn load(root: &Path, part: Part) -> Result<Split> {
    let dataset = DatasetName::Food;
    // The tree's own error, which lists the places looked at, serves for both layouts.
    let Ok(home) =
        source::locate(dataset, root, &["food", "food-101", "food101", "food/food-101", ""], &["meta/train.txt"])
    else {
        return image_tree::load(dataset, root, part);
    };
    let list_name = if part == Part::Test { "test" } else { "train" };
    let base = home.join("images");
    let classes = walk::class_names(&base)?;
    let list = home.join("meta").join(format!("{list_name}.txt"));
    let mut files = FileList::new(base);
    let mut labels = Vec::new();
    for (number, line) in source::read_text(dataset, &list)?.lines().enumerate().filter(|(_, l)| !l.trim().is_empty()) {
        let class = line.trim().split('/').next().unwrap_or_default();
        let Ok(label) = classes.binary_search_by(|name| name.as_str().cmp(class)) else {
            bail!("{}:{}: images/ has no class {class:?}; {}", list.display(), number + 1, how_to_get(dataset));
        };
        files.push(&PathBuf::from(format!("{}.jpg", line.trim())));
        labels.push(label as i64);
    }
    if files.is_empty() {
        bail!("{} names no image; {}", list.display(), how_to_get(dataset));
    }
    Ok(Split::new(Images::Files(files), Some(labels), classes, format!("{dataset} {list_name}")))
}
