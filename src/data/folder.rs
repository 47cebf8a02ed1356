//! Any directory of images: one's own data, without a format to learn.
//!
//! - `DIR/train/` present: it is the training part, and `DIR/test/` (or `DIR/val/`) the
//!   test part, under any of their usual names (`parts.rs`). Otherwise `DIR` itself is
//!   the training part and there is no test part.
//! - A part whose images all lie in subdirectories is labelled by them. One with
//!   images directly in it is unlabelled, and those in subdirectories belong to it too.
//!   `--labels` decides otherwise.
//! - Several directories are one set: classes of one name are one class.

use super::image_tree::Sorted;
use super::parts::{Kind, Parts};
use super::protocol::OWN_IMAGES;
use super::split::counted;
use super::walk::Tree;
use super::{FileList, NoPart, Part, Source, Split, indexed};
use crate::config::{DataConfig, DatasetName, Labels};
use anyhow::{Context, Result, bail};
use std::path::{Path, PathBuf};

pub static FOLDER: Source = Source {
    name: DatasetName::Folder,
    protocol: OWN_IMAGES,
    classes: None,
    homes: &[""],
    several_roots: true,
    how_to_get: "give the directory of your images with `--data DIR`",
    load,
};

fn load(source: &Source, data: &DataConfig, part: Part) -> Result<Split> {
    let roots = roots(source, data)?;
    let mut notes = Vec::new();
    let layouts = roots.iter().map(|root| Layout::of(root, data.labels, &mut notes)).collect::<Result<Vec<_>>>()?;
    let train: Vec<&Path> = layouts.iter().map(|layout| layout.train.as_path()).collect();
    let split = if part == Part::Test {
        let test: Vec<&Path> = layouts.iter().filter_map(|layout| layout.test.as_deref()).collect();
        if test.is_empty() {
            let root = roots[0].display();
            let what = format!(
                "{root} has no test images: put the images into {root}/train/CLASS/ and {root}/test/CLASS/ (or val/)"
            );
            return Err(NoPart(what).into());
        }
        let classes = match Images::of(&train, data.labels)? {
            Images::Labelled(sorted) => Some(sorted.classes()),
            Images::Unlabelled(..) => None,
        };
        match Images::of(&test, data.labels)? {
            Images::Labelled(sorted) => sorted.labelled(classes, source.part_name("test"))?,
            Images::Unlabelled(split) => Split { name: source.part_name("test"), ..split },
        }
    } else {
        match Images::of(&train, data.labels)? {
            Images::Labelled(sorted) => {
                let doubt = if data.labels.is_none() { "; --labels none if they are no classes" } else { "" };
                notes.push(format!("labels: the {}{doubt}", sorted.examples()));
                sorted.labelled(None, source.part_name("train"))?
            }
            Images::Unlabelled(split) => Split { name: source.part_name("train"), ..split },
        }
    };
    if split.is_empty() {
        let places: Vec<String> = roots.iter().map(|root| root.display().to_string()).collect();
        let passed = split.notes.iter().map(|note| format!("; {note}")).collect::<String>();
        bail!("{} holds no image{passed}", places.join(", "));
    }
    notes.extend(split.notes.iter().cloned());
    Ok(Split { notes, ..split })
}

/// The directories that were given; where they are several, by their full paths.
///
/// Errors: one that is none, or lies in another one: its images would count twice.
fn roots(source: &Source, data: &DataConfig) -> Result<Vec<PathBuf>> {
    let given: Vec<&PathBuf> = data.roots().collect();
    if let Some(missing) = given.iter().find(|root| !root.is_dir()) {
        bail!("{} is no directory; {}", missing.display(), source.how_to_get);
    }
    let [root] = given.as_slice() else {
        let whole = |root: &&PathBuf| root.canonicalize().with_context(|| format!("{} cannot be read", root.display()));
        let whole = given.iter().map(whole).collect::<Result<Vec<PathBuf>>>()?;
        for (at, inner) in whole.iter().enumerate() {
            let outer = |(other, root): &(usize, &PathBuf)| *other != at && inner.starts_with(root);
            if let Some((outer, _)) = whole.iter().enumerate().find(outer) {
                bail!(
                    "--data {} lies in --data {}: its images would count twice; leave one of them out",
                    given[at].display(),
                    given[outer].display()
                );
            }
        }
        return Ok(whole);
    };
    Ok(vec![(*root).clone()])
}

/// Where the parts of one directory lie.
struct Layout {
    train: PathBuf,
    test: Option<PathBuf>,
}

impl Layout {
    /// Errors: a tree that looks as if it had parts, and is not clear.
    fn of(root: &Path, labels: Option<Labels>, notes: &mut Vec<String>) -> Result<Layout> {
        let parts = Parts::of(root)?;
        let whole = Layout { train: root.to_owned(), test: None };
        if parts.is_empty() {
            return Ok(whole);
        }
        if let Some(doubt) = parts.doubt()? {
            if labels == Some(Labels::None) {
                notes.push(format!("every image below {} is taken: {doubt}", root.display()));
                return Ok(whole);
            }
            bail!(
                "it is not clear which images of {0} are for training: {doubt}; rename directories so that parts are called \
                 train/, val/ and test/ and classes are not, give one of them as --data {0}/DIR, or take every image \
                 without labels (--labels none)",
                root.display()
            );
        }
        let test = parts.first([Kind::Test, Kind::Val])?;
        if let (Some(test), Some(val)) = (parts.get(Kind::Test)?, parts.get(Kind::Val)?) {
            notes.push(format!("{} is not used: the test images are in {}", val.display(), test.display()));
        }
        let others = parts.others()?;
        if !others.is_empty() {
            notes.push(format!("not read in {}, since they are no parts: {}", root.display(), others.join(", ")));
        }
        Ok(Layout { train: parts.get(Kind::Train)?.unwrap_or_else(|| root.to_owned()), test })
    }
}

/// The images of a part.
enum Images {
    Labelled(Sorted),
    Unlabelled(Split),
}

impl Images {
    /// Those in all of `bases`; they are labelled by their directories if each one has such, or as `labels` has it.
    fn of(bases: &[&Path], labels: Option<Labels>) -> Result<Images> {
        let trees = bases.iter().map(|base| Ok((*base, indexed(base)?))).collect::<Result<Vec<(&Path, Tree)>>>()?;
        let sorted = |tree: &Tree| tree.direct == 0 && !tree.classes.is_empty();
        let all = bases.iter().skip(1).fold(bases[0], |all, base| common(all, base));
        let labelled = match labels {
            Some(Labels::None) => false,
            Some(Labels::Directories) => true,
            None => trees.iter().all(|(_, tree)| sorted(tree)),
        };
        if labelled {
            let mut each = trees.into_iter().map(|(base, tree)| Sorted::of(base, tree)).collect::<Result<Vec<_>>>()?;
            return Ok(Images::Labelled(if each.len() == 1 { each.remove(0) } else { Sorted::joined(all, each) }));
        }
        let mut notes = Vec::new();
        for (base, tree) in &trees {
            notes.extend(tree.passed_over.sentence(base));
            if labels.is_none() && tree.direct > 0 && !tree.classes.is_empty() {
                notes.push(format!(
                    "no labels, because of {} in {} itself; --labels directories leaves them out and takes the {} below it for classes",
                    counted(tree.direct, "image"),
                    base.display(),
                    counted(tree.classes.len(), "directory")
                ));
            }
        }
        let files = match <[(&Path, Tree); 1]>::try_from(trees) {
            Ok([(_, tree)]) => tree.files,
            Err(trees) => trees.iter().fold(FileList::new(all), |mut files, (_, tree)| {
                files.append_below(&tree.files);
                files
            }),
        };
        Ok(Images::Unlabelled(Split { notes, ..Split::unlabelled(files, String::new()) }))
    }
}

/// The directory that holds both.
fn common<'a>(one: &'a Path, other: &Path) -> &'a Path {
    one.ancestors().find(|above| other.starts_with(above)).unwrap_or(Path::new("/"))
}
