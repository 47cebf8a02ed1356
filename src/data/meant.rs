//! What somebody has who names a place of images and no data set.

use super::{decode, image_tree, source_of, walk};
use crate::config::DatasetName;
use anyhow::{Context, Result};
use std::ffi::OsStr;
use std::path::{Path, PathBuf};

/// How far down the first image is looked for: `DIR/train/CLASS/image.jpg` is the deepest usual layout, and a whole disk
/// is not to be searched.
const DEPTH: usize = 3;

/// The data set that reads what lies at `place`, a directory or a file, and what to give it as `--data`. `None` where
/// nothing known lies there, or the layout of ImageNet, which is read where no data set is named.
///
/// Errors: a directory that cannot be read.
pub fn meant(place: &Path) -> Result<Option<(DatasetName, PathBuf)>> {
    let whole = |dataset| Some((dataset, place.to_owned()));
    if place.is_file() {
        let is_image = place.extension().is_some_and(|end| decode::promises_image(end.as_encoded_bytes()));
        let directory = place.parent().filter(|above| !above.as_os_str().is_empty()).unwrap_or(Path::new("."));
        return Ok(if is_image {
            Some((DatasetName::Folder, directory.to_owned()))
        } else {
            place.file_name().and_then(packed).and_then(whole)
        });
    }
    if !place.is_dir() || image_tree::home(source_of(DatasetName::Imagenet), place).is_ok() {
        return Ok(None);
    }
    if walk::holds_images_within(place, DEPTH)?.is_some() {
        return Ok(whole(DatasetName::Folder));
    }
    let entries =
        std::fs::read_dir(place).with_context(|| format!("the directory {} cannot be read", place.display()))?;
    Ok(entries.flatten().find_map(|entry| packed(&entry.file_name())).and_then(whole))
}

/// The data set of files that hold many images, by their extension.
fn packed(name: &OsStr) -> Option<DatasetName> {
    match Path::new(name).extension()?.to_str()? {
        "tar" => Some(DatasetName::Shards),
        "npz" => Some(DatasetName::Npz),
        "parquet" => Some(DatasetName::Parquet),
        _ => None,
    }
}
