//! Trees of class directories, as torchvision's `ImageFolder` reads them:
//! `train/CLASS/*.jpg` and `val/CLASS/*.jpg` or `test/CLASS/*.jpg`. ImageNet, SUN
//! and the flowers have this layout. As upstream, ImageNet and SUN are tested on
//! `val/`, flowers on `test/`.
//!
//! A class is a directory that holds images, by its path below the part:
//! `bakery/shop`. Two habits of published sets are not in the name: a lone
//! `images/` in a class (tiny ImageNet), and above all classes a directory of their
//! first letter (SUN's `b/bakery/shop`).
//!
//! Classes are numbered by the sorted names in `train/`; for ImageNet
//! that is the order of WordNet ids that every published model uses. Other than
//! in torchvision the test part takes the numbers of the training part, so a class
//! that it lacks shifts nothing, and directories without images are no classes.

use super::parts::{Kind, Parts};
use super::protocol::{LIKE_IMAGENET, PHOTOGRAPHS, Protocol};
use super::split::{counted, grouped};
use super::walk::{self, Tree};
use super::{FileList, Part, Source, Split, flat_val, indexed};
use crate::config::{DatasetName, Normalisation};
use anyhow::{Result, bail};
use std::collections::HashSet;
use std::path::{Path, PathBuf};

pub static IMAGENET: Source = Source {
    name: DatasetName::Imagenet,
    protocol: Protocol {
        normalisation: Normalisation { mean: [0.485, 0.456, 0.406], std: [0.229, 0.224, 0.225] },
        label_lists: true,
        ..LIKE_IMAGENET
    },
    classes: Some(1000),
    homes: &[
        "imagenet",
        "ImageNet",
        "ILSVRC2012",
        "imagenet/ILSVRC/Data/CLS-LOC",
        "ILSVRC/Data/CLS-LOC",
        "Data/CLS-LOC",
        "",
    ],
    several_roots: false,
    how_to_get: "it is available after registration at https://image-net.org; the layout that is read is in \
                 datasets/README.md",
    load: |source, data, part| load(source, &data.root, part, [Kind::Val, Kind::Test]),
};

pub static SUN: Source = Source {
    name: DatasetName::Sun,
    protocol: PHOTOGRAPHS,
    classes: Some(397),
    homes: &["SUN", "SUN397", "sun397", ""],
    several_roots: false,
    how_to_get: "it is published at https://vision.princeton.edu/projects/2010/SUN; the layout that is read is in \
                 datasets/README.md",
    load: |source, data, part| load(source, &data.root, part, [Kind::Val, Kind::Test]),
};

pub static FLOWER: Source = Source {
    name: DatasetName::Flower,
    protocol: PHOTOGRAPHS,
    classes: Some(102),
    homes: &["flower", "flowers", ""],
    several_roots: false,
    how_to_get: "it is published at https://www.robots.ox.ac.uk/~vgg/data/flowers/102; the layout that is read is in \
                 datasets/README.md",
    load: |source, data, part| load(source, &data.root, part, [Kind::Test, Kind::Val]),
};

/// Where in `root` the parts of a tree lie.
///
/// Errors: in none of its places is one.
pub fn home(source: &Source, root: &Path) -> Result<PathBuf> {
    source.locate_by(root, "train or val or test", |home| Parts::of(home).is_ok_and(|parts| !parts.is_empty()))
}

/// Loads a part of a tree; the test images are in the first of the parts `test` that is there.
pub fn load(source: &Source, root: &Path, part: Part, test: [Kind; 2]) -> Result<Split> {
    let home = home(source, root)?;
    let parts = Parts::of(&home)?;
    let train = parts.get(Kind::Train)?;
    if part != Part::Test {
        let Some(train) = train else { bail!("{} is not there; {}", home.join("train").display(), source.how_to_get) };
        return labelled(&train, None, source.part_name("train"));
    }
    let Some(test) = parts.first(test)? else {
        bail!("{} has neither val/ nor test/; {}", home.display(), source.how_to_get);
    };
    let classes = train.map(|train| classes_of(&train)).transpose()?;
    let name = source.part_name(&test.file_name().unwrap_or_default().to_string_lossy());
    match classes {
        Some(classes) if source.protocol.label_lists && walk::directories(&test)?.is_empty() => {
            flat_val::load(source, &home, &test, classes, name)
        }
        classes => labelled(&test, classes, name),
    }
}

/// One directory per class below `base`. With `classes` (those of the training part) each
/// directory must be one of them; without, the directories are the classes.
pub fn labelled(base: &Path, classes: Option<Vec<String>>, name: String) -> Result<Split> {
    Sorted::of(base, indexed(base)?)?.labelled(classes, name)
}

/// The classes of a training part, sorted.
pub fn classes_of(base: &Path) -> Result<Vec<String>> {
    Ok(Sorted::of(base, indexed(base)?)?.classes())
}

/// The images of class directories.
pub struct Sorted {
    base: PathBuf,
    files: FileList,
    /// The class of each stretch of them, the directory that holds it, and its length.
    stretches: Vec<(String, PathBuf, usize)>,
    notes: Vec<String>,
    /// Images that lie beside the class directories.
    beside: usize,
}

impl Sorted {
    /// Those of a tree.
    ///
    /// Errors: a class whose name is no text.
    pub fn of(base: &Path, tree: Tree) -> Result<Sorted> {
        let names = names(base, &tree)?;
        let directories = tree.classes.into_iter().map(|(directory, count)| (base.join(directory), count));
        let stretches = names.into_iter().zip(directories).map(|(name, (path, count))| (name, path, count)).collect();
        let mut notes: Vec<String> = tree.passed_over.sentence(base).into_iter().collect();
        if tree.direct > 0 {
            let images = counted(tree.direct, "image");
            notes.push(format!("{images} in {} itself, beside the class directories: left out", base.display()));
        }
        let files = tree.files.starting_at(tree.direct);
        Ok(Sorted { base: base.to_owned(), files, stretches, notes, beside: tree.direct })
    }

    /// All of them as one, with files below `base`.
    pub fn joined(base: &Path, all: Vec<Sorted>) -> Sorted {
        let mut sum = Sorted {
            files: FileList::new(base),
            base: base.to_owned(),
            stretches: Vec::new(),
            notes: Vec::new(),
            beside: 0,
        };
        for one in all {
            sum.files.append_below(&one.files);
            sum.stretches.extend(one.stretches);
            sum.notes.extend(one.notes);
            sum.beside += one.beside;
        }
        sum
    }

    /// The names, sorted.
    pub fn classes(&self) -> Vec<String> {
        let mut classes: Vec<String> = self.stretches.iter().map(|(class, ..)| class.clone()).collect();
        classes.sort_unstable();
        classes.dedup();
        classes
    }

    /// With labels: numbers of `classes`, which are sorted, or of its own.
    ///
    /// Errors: no class at all; one that is none of `classes`.
    pub fn labelled(self, classes: Option<Vec<String>>, name: String) -> Result<Split> {
        if self.stretches.is_empty() {
            bail!(
                "{} has no class directories with images ({} in it directly): sort the images into one directory per \
                 class, as datasets/README.md shows",
                self.base.display(),
                counted(self.beside, "image")
            );
        }
        let mut notes = self.notes.clone();
        notes.extend(self.nesting());
        let classes = classes.unwrap_or_else(|| self.classes());
        let mut labels = Vec::with_capacity(self.files.len());
        for (class, directory, count) in &self.stretches {
            let Ok(label) = classes.binary_search(class) else {
                bail!(
                    "{} is no class of the training images, which hold no image of it; remove or rename it",
                    directory.display()
                );
            };
            labels.resize(labels.len() + count, label as i64);
        }
        Ok(Split { notes, ..Split::labelled(self.files, labels, classes, name) })
    }

    /// `"3 directories (a, b/c, d)"`, at most three of them.
    pub fn examples(&self) -> String {
        let classes = self.classes();
        let more = if classes.len() > 3 { ", ..." } else { "" };
        let shown = classes[..classes.len().min(3)].join(", ");
        format!("{} ({shown}{more})", counted(classes.len(), "directory"))
    }

    /// That classes lie in each other, with three examples.
    fn nesting(&self) -> Option<String> {
        let nested: Vec<String> = self.classes().into_iter().filter(|class| class.contains('/')).collect();
        (!nested.is_empty()).then(|| {
            let all = counted(self.classes().len(), "class");
            format!(
                "{}: {} of {all} lie in other directories, such as {}: a class is the directory that holds images",
                self.base.display(),
                grouped(nested.len()),
                nested[..nested.len().min(3)].join(", ")
            )
        })
    }
}

/// The class of each directory of a tree, in the tree's order.
fn names(base: &Path, tree: &Tree) -> Result<Vec<String>> {
    let paths = tree.classes.iter().map(|(path, _)| walk::class_name(base, path)).collect::<Result<Vec<String>>>()?;
    // Directories below one lie together.
    let lone = |at: usize, class: &str| {
        let is_below =
            |other: &String| other == class || other.strip_prefix(class).is_some_and(|rest| rest.starts_with('/'));
        let neighbours = [at.checked_sub(1), Some(at + 1)];
        !neighbours.into_iter().flatten().filter_map(|at| paths.get(at)).any(is_below)
    };
    let without = |(at, path): (usize, &String)| match path.strip_suffix("/images") {
        Some(class) if lone(at, class) => class.to_owned(),
        _ => path.clone(),
    };
    let names: Vec<String> = paths.iter().enumerate().map(without).collect();
    Ok(without_letters(&names).unwrap_or(names))
}

/// `bakery/shop` of `b/bakery/shop`, where every class lies in the directory of its first letter.
fn without_letters(names: &[String]) -> Option<Vec<String>> {
    let inner = |name: &String| {
        let (letter, class) = name.split_once('/')?;
        let first = class.get(..1)?;
        first.eq_ignore_ascii_case(letter).then(|| class.to_owned())
    };
    let inner = names.iter().map(inner).collect::<Option<Vec<String>>>()?;
    let different = inner.iter().collect::<HashSet<_>>().len();
    (different == names.len()).then_some(inner)
}
