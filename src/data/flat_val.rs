//! ImageNet's validation images as they come, all in one directory: their labels are
//! read from a list that is published beside them.
//!
//! - `LOC_val_solution.csv` of Kaggle: `ILSVRC2012_val_00000001,n01751748 111 108 ...`.
//! - `val.txt` of Caffe, or any list of that name: a file and its WordNet id, or the number of its class
//!   from 0 on in the order of the sorted ids, on a line.
//!
//! ILSVRC's own `ILSVRC2012_validation_ground_truth.txt` has numbers of an order
//! that only its development kit's `meta.mat` knows, so it is not enough.

use super::split::counted;
use super::{FileList, Source, Split, grouped, walk};
use crate::files;
use anyhow::{Result, anyhow, bail};
use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

/// Names of lists, and whether they are Kaggle's.
const LISTS: [(&str, bool); 4] =
    [("LOC_val_solution.csv", true), ("val.txt", false), ("val_annotations.txt", false), ("val_labels.txt", false)];
const GROUND_TRUTH: &str = "ILSVRC2012_validation_ground_truth.txt";
/// Directories above the set's own where a list may lie: Kaggle's is beside `ILSVRC/Data/CLS-LOC/`.
const ABOVE: usize = 3;

/// The images in `val`, labelled by the list in it, in `home`, which holds it, or above. `classes` are those of the
/// training images, sorted.
///
/// Errors: no list; one that leaves an image without a label, or gives it an unknown one.
pub fn load(source: &Source, home: &Path, val: &Path, classes: Vec<String>, name: String) -> Result<Split> {
    let images = walk::list(val, Path::new(""))?.images;
    let places: Vec<&Path> = std::iter::once(val)
        .chain(home.ancestors().take(1 + ABOVE))
        .filter(|place| !place.as_os_str().is_empty())
        .collect();
    let find = |name: &str| places.iter().map(|place| place.join(name)).find(|path| path.is_file());
    let Some((list, kaggle)) = LISTS.iter().find_map(|(name, kaggle)| Some((find(name)?, *kaggle))) else {
        bail!("{}", without_list(val, home, images.len(), find(GROUND_TRUTH)));
    };
    let known = Known::new(&images);
    let mut labels = vec![None; images.len()];
    let (mut lines, mut absent) = (0, 0);
    for (at, line) in
        source.read_text(&list, files::LIST_BYTES)?.lines().enumerate().filter(|(_, line)| !line.trim().is_empty())
    {
        if kaggle && line.starts_with("ImageId") {
            continue;
        }
        lines += 1;
        let fault = |what: String| anyhow!("{}:{}: {what}; {}", list.display(), at + 1, source.how_to_get);
        let mut fields = line.split(|c: char| c == ',' || c.is_whitespace()).filter(|field| !field.is_empty());
        let (Some(file), Some(class)) = (fields.next(), fields.next()) else {
            return Err(fault("expected a file and a class".to_owned()));
        };
        let Some(image) = known.place(file) else {
            absent += 1;
            continue;
        };
        let label = label(class, &classes).map_err(fault)?;
        if labels[image].replace(label).is_some_and(|before| before != label) {
            return Err(fault(format!("{file} has another class above")));
        }
    }
    let unnamed = images.iter().zip(&labels).filter(|(_, label)| label.is_none()).map(|(name, _)| name);
    every_image_is_named(unnamed.collect(), &list, source)?;
    let mut files = FileList::new(val);
    images.iter().for_each(|image| files.push(Path::new(image)));
    let mut notes = vec![format!("{}: the labels are those of {}", val.display(), list.display())];
    if absent > 0 {
        notes.push(format!(
            "{} of the {} images that {} names are not there",
            grouped(absent),
            grouped(lines),
            list.display()
        ));
    }
    Ok(Split { notes, ..Split::labelled(files, labels.into_iter().flatten().collect(), classes, name) })
}

/// Refuses a list that leaves images out: fewer would be tested, in silence.
pub fn every_image_is_named(unnamed: Vec<&OsString>, list: &Path, source: &Source) -> Result<()> {
    let Some(first) = unnamed.first() else { return Ok(()) };
    let shown: Vec<String> = unnamed.iter().take(3).map(|name| name.display().to_string()).collect();
    bail!(
        "{} in {} no line in {}: {}{}; complete the list, or remove the images; {}",
        counted(unnamed.len(), "image"),
        if unnamed.len() == 1 { "its directory has" } else { "their directory have" },
        list.display(),
        if unnamed.len() == 1 { first.display().to_string() } else { shown.join(", ") },
        if unnamed.len() > shown.len() { ", ..." } else { "" },
        source.how_to_get
    )
}

/// Images by name, with or without extension.
struct Known<'a>(HashMap<&'a OsStr, usize>);

impl<'a> Known<'a> {
    fn new(images: &'a [OsString]) -> Self {
        let stems = images.iter().enumerate().filter_map(|(at, name)| Some((Path::new(name).file_stem()?, at)));
        // A whole name comes before another file's stem.
        let whole = images.iter().enumerate().map(|(at, name)| (name.as_os_str(), at));
        Known(stems.chain(whole).collect())
    }

    /// The image that a list means: Caffe's may have directories before the name.
    fn place(&self, file: &str) -> Option<usize> {
        self.0.get(OsStr::new(file.rsplit('/').next()?)).copied()
    }
}

/// The number of a class that is written as a WordNet id, or as its number where all classes are there.
fn label(class: &str, classes: &[String]) -> Result<i64, String> {
    const ALL: usize = 1000;
    if let Ok(label) = classes.binary_search_by(|name| name.as_str().cmp(class)) {
        return Ok(label as i64);
    }
    match class.parse::<usize>() {
        Ok(number) if classes.len() == ALL && number < ALL => Ok(number as i64),
        Ok(number) if classes.len() == ALL => Err(format!(
            "{number} is no number from 0 to 999: numbers from 1 to 1000 are of another order than that of the WordNet ids"
        )),
        Ok(_) => Err(format!(
            "numbers of classes need all {} of them, and the training images have {}",
            grouped(ALL),
            counted(classes.len(), "class")
        )),
        Err(_) => Err(format!("no class of the training images is {class:?}")),
    }
}

/// What to do where no list lies beside the images.
fn without_list(val: &Path, home: &Path, images: usize, ground_truth: Option<PathBuf>) -> String {
    let truth = ground_truth.map_or(String::new(), |path| {
        let why = "is not enough: its numbers have the order of the development kit's meta.mat";
        format!(" ({} {why})", path.display())
    });
    format!(
        "{0} has no class directories ({1} in it directly), and no list of their labels lies there{truth}: put Kaggle's \
         LOC_val_solution.csv or Caffe's val.txt (a file and its WordNet id, or its number from 0 to 999, on a line) into \
         {2}, or sort the images into one directory per class, as datasets/README.md shows",
        val.display(),
        counted(images, "image"),
        home.display()
    )
}
