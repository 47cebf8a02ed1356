//! What the classes of shards are: texts beside the images, or the directories that images lie in.

use super::index::{Beside, Index, directory, lossy};
use super::places;
use crate::config::Labels;
use crate::data::grouped;
use crate::files;
use anyhow::{Result, bail};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::{Path, PathBuf};

/// A text is a class where so many images share one, on average.
const IMAGES_A_TEXT: usize = 5;
/// Files beside the shards that name the classes, a line each, the first that of number 0.
const CLASS_FILES: [&str; 2] = ["classes.txt", "classnames.txt"];

/// What is taken for a label.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Taken {
    Beside(Beside),
    Directories,
}

/// The label of every image, as text.
pub struct Texts {
    taken: Taken,
    ids: Vec<u32>,
    texts: Vec<String>,
}

/// The classes of a data set: what their labels are written as, and how they are called.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Classes {
    numbers: HashMap<String, usize>,
    pub names: Vec<String>,
}

/// The labels that an index has, or `None` where it has none or none are asked for. What was decided is added to `notes`.
///
/// Errors: some images have a label and others none.
pub fn texts(index: &Index, asked: Option<Labels>, notes: &mut Vec<String>) -> Result<Option<Texts>> {
    let found = match asked {
        Some(Labels::None) => return Ok(None),
        Some(Labels::Directories) => None,
        None => beside(index, notes)?,
    };
    let texts = match found {
        Some(texts) => Some(texts),
        None => directories(index),
    };
    if asked == Some(Labels::Directories) && texts.is_none() {
        bail!("--labels directories: not every image of the shards lies in a directory of a class");
    }
    notes.push(match texts.as_ref().map(|texts| texts.taken) {
        Some(Taken::Beside(beside)) => format!("labels: the .{} beside each image", beside.name()),
        Some(Taken::Directories) => {
            "labels: the directories of the images in the shards; --labels none takes none".to_owned()
        }
        None => "no labels: neither .cls, .json or .txt with a class beside the images, nor directories".to_owned(),
    });
    Ok(texts)
}

fn beside(index: &Index, notes: &mut Vec<String>) -> Result<Option<Texts>> {
    for beside in Beside::ALL {
        let column = &index.beside[beside as usize];
        let Some(first) = column.ids.iter().position(|&id| id != super::index::NONE) else { continue };
        let lacking = (0..index.len()).find(|&image| column.text(image).is_none());
        if beside == Beside::Txt {
            let few = column.texts.len() * IMAGES_A_TEXT <= index.len();
            if lacking.is_some() || !few || column.fault.is_some() {
                notes.push("the .txt beside the images are passed over: they are captions, not classes".to_owned());
                continue;
            }
        }
        if let Some(lacking) = lacking {
            let why = column.fault.as_ref().map_or(String::new(), |fault| format!(" ({fault})"));
            bail!(
                "{} has no label in a .{} beside it{why}, and {} has one; complete them, or give --labels none",
                index.place(lacking),
                beside.name(),
                index.place(first)
            );
        }
        return Ok(Some(Texts {
            taken: Taken::Beside(beside),
            ids: column.ids.clone(),
            texts: column.texts.iter().map(|text| canonical(text)).collect(),
        }));
    }
    Ok(None)
}

/// A number without zeros before it.
fn canonical(text: &str) -> String {
    text.parse::<i64>().map_or_else(|_| text.to_owned(), |number| number.to_string())
}

/// The directories as labels, without those that all images share; `None` where an image lies in none of its own.
fn directories(index: &Index) -> Option<Texts> {
    let (mut ids, mut numbers) = (Vec::with_capacity(index.len()), HashMap::<&[u8], u32>::new());
    for image in 0..index.len() {
        let next = numbers.len() as u32;
        ids.push(*numbers.entry(directory(index.names.relative(image))).or_insert(next));
    }
    let mut all: Vec<(&[u8], u32)> = numbers.into_iter().collect();
    all.sort_unstable_by_key(|(_, number)| *number);
    let shared = shared_depth(all.iter().map(|(directory, _)| *directory));
    let texts: Vec<String> = all
        .iter()
        .map(|(directory, _)| {
            let below: Vec<&[u8]> = directory.split(|&byte| byte == b'/').skip(shared).collect();
            lossy(&below.join(&b'/'))
        })
        .collect();
    let distinct = texts.iter().collect::<BTreeSet<_>>().len() == texts.len();
    (texts.len() > 1 && distinct && texts.iter().all(|text| !text.is_empty())).then_some(Texts {
        taken: Taken::Directories,
        ids,
        texts,
    })
}

/// How many directories, from the top, all of these paths begin with.
fn shared_depth<'a>(mut paths: impl Iterator<Item = &'a [u8]>) -> usize {
    let parts = |path: &'a [u8]| path.split(|&byte| byte == b'/').collect::<Vec<_>>();
    let Some(mut shared) = paths.next().map(parts) else { return 0 };
    for path in paths {
        let same = parts(path).iter().zip(&shared).take_while(|(a, b)| a == b).count();
        shared.truncate(same);
    }
    shared.len()
}

impl Texts {
    /// The classes that occur, numbers in their order, then names in theirs.
    pub fn classes(&self, index: &Index) -> Classes {
        let texts: BTreeSet<(Option<i64>, &String)> = self.texts.iter().map(|text| (text.parse().ok(), text)).collect();
        let (numbers, names) = texts
            .into_iter()
            .enumerate()
            .map(|(number, (_, text))| {
                let name = index.class_names.get(text).filter(|_| self.taken == Taken::Beside(Beside::Json));
                ((text.clone(), number), name.unwrap_or(text).clone())
            })
            .unzip();
        Classes { numbers, names }
    }

    /// The classes that a file names, where the labels are its line numbers, counted from 0, or its names; `None` where
    /// they are neither.
    ///
    /// Errors: numbers beyond its lines.
    pub fn listed(&self, file: &ClassFile, index: &Index) -> Result<Option<Classes>> {
        let names = file.names.clone();
        if self.texts.iter().any(|text| text.parse::<i64>().is_err()) {
            let numbers: HashMap<String, usize> = names.iter().cloned().zip(0..).collect();
            let known = numbers.len() == names.len() && self.texts.iter().all(|text| numbers.contains_key(text));
            return Ok(known.then_some(Classes { numbers, names }));
        }
        let classes = Classes { numbers: (0..names.len()).map(|number| (number.to_string(), number)).collect(), names };
        if let Some(text) = self.texts.iter().find(|text| !classes.numbers.contains_key(*text)) {
            bail!(
                "{} has the label {text}, and {} names {} classes, of which the first has the number 0: give the list \
                 that belongs to these shards, or remove it",
                self.first_with(text, index),
                file.path.display(),
                grouped(classes.names.len())
            );
        }
        Ok(Some(classes))
    }

    /// Every image's place in `classes`.
    ///
    /// Errors: a class that is not there; a negative number.
    pub fn labels(&self, classes: &Classes, index: &Index) -> Result<Vec<i64>> {
        let mut numbers = Vec::with_capacity(self.texts.len());
        for text in &self.texts {
            let refused = |what: &str| format!("{} has the label {text}, {what}", self.first_with(text, index));
            if text.parse::<i64>().is_ok_and(|number| number < 0) {
                bail!("{}; labels count from 0, or give --labels none", refused("which is no class"));
            }
            match classes.numbers.get(text) {
                Some(&number) => numbers.push(number as i64),
                None => bail!("{}; remove the image or correct it", refused("and no training image has")),
            }
        }
        Ok(self.ids.iter().map(|&id| numbers[id as usize]).collect())
    }

    fn first_with(&self, text: &str, index: &Index) -> String {
        let image = self.ids.iter().position(|&id| self.texts[id as usize] == text);
        image.map_or_else(|| "a shard".to_owned(), |image| index.place(image))
    }
}

/// A file that names the classes of the shards beside it.
#[derive(Debug)]
pub struct ClassFile {
    path: PathBuf,
    names: Vec<String>,
}

impl ClassFile {
    /// The one that lies beside these shards.
    ///
    /// Errors: it cannot be read; shards in several directories have different ones.
    pub fn beside(shards: &[PathBuf]) -> Result<Option<ClassFile>> {
        let homes: BTreeSet<PathBuf> = shards.iter().flat_map(|shard| places::homes(shard)).collect();
        let mut found: Option<ClassFile> = None;
        for path in homes.iter().flat_map(|home| CLASS_FILES.map(|name| home.join(name))).filter(|path| path.exists()) {
            let text = files::read_text(&path, files::LIST_BYTES)
                .map_err(|error| anyhow::anyhow!("{} cannot be read: {error}", path.display()))?;
            let names: Vec<String> = text.lines().map(|line| line.trim().to_owned()).collect();
            match &found {
                Some(other) if other.names != names => {
                    bail!("{} and {} name different classes: keep one", other.path.display(), path.display())
                }
                Some(_) => {}
                None => found = Some(ClassFile { path, names }),
            }
        }
        Ok(found)
    }

    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// What was passed over, in one sentence.
pub fn passed_over(passed: &BTreeMap<String, usize>) -> Option<String> {
    const NAMED: usize = 5;
    let mut kinds: Vec<(&String, &usize)> = passed.iter().collect();
    kinds.sort_by_key(|(kind, count)| (std::cmp::Reverse(**count), *kind));
    let more = kinds.len().saturating_sub(NAMED);
    let mut parts: Vec<String> =
        kinds.iter().take(NAMED).map(|(kind, count)| format!("{kind} ({})", grouped(**count))).collect();
    if more > 0 {
        parts.push(format!("{more} more kinds"));
    }
    (!parts.is_empty()).then(|| format!("passed over in the shards: {}", parts.join(", ")))
}
