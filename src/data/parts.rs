//! Which directories of a tree hold its parts: `train/`, `Training/`, `training_set/`,
//! `train2017/`; `test/`, `Testing/`; `val/`, `valid/`, `validation/`, `dev/`, `eval/`.
//!
//! Test images that are trained on, or classes that are taken for parts, spoil every
//! result in silence. So a tree that looks as if it had parts and is not clear is an error
//! that asks.

use super::walk;
use anyhow::{Result, bail};
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    Train,
    Val,
    Test,
}

/// The words for each part.
pub const TRAIN: [&str; 2] = ["train", "training"];
pub const TEST: [&str; 2] = ["test", "testing"];
pub const VAL: [&str; 6] = ["val", "validation", "valid", "dev", "eval", "evaluation"];

impl Kind {
    /// The part that a word in lower case stands for.
    pub fn of_word(word: &str) -> Option<Kind> {
        let all = [(Kind::Train, &TRAIN[..]), (Kind::Val, &VAL), (Kind::Test, &TEST)];
        all.into_iter().find(|(_, words)| words.contains(&word)).map(|(kind, _)| kind)
    }
}

/// The part that a directory of this name holds, in any case: a word of those above, alone or with `set`, `images` or
/// `data` behind it, and a number.
fn kind(name: &OsStr) -> Option<Kind> {
    let name = name.to_str()?.to_ascii_lowercase();
    let letters = |text: &str| text.trim_end_matches(|c: char| c.is_ascii_digit() || "_- .".contains(c)).to_owned();
    let name = letters(&name);
    let word = ["set", "images", "data"].iter().find_map(|end| name.strip_suffix(end)).map_or(name.clone(), letters);
    Kind::of_word(&word)
}

/// The directories in a directory, by the parts that their names promise.
#[derive(Debug)]
pub struct Parts {
    home: PathBuf,
    named: Vec<(Kind, OsString)>,
    others: Vec<OsString>,
}

impl Parts {
    /// Errors: the directory cannot be read.
    pub fn of(home: &Path) -> Result<Parts> {
        let (mut named, mut others) = (Vec::new(), Vec::new());
        for name in walk::directories(home)? {
            match kind(&name) {
                Some(kind) => named.push((kind, name)),
                None => others.push(name),
            }
        }
        Ok(Parts { home: home.to_owned(), named, others })
    }

    pub fn is_empty(&self) -> bool {
        self.named.is_empty()
    }

    fn names(&self, kind: Kind) -> Vec<&OsString> {
        self.named.iter().filter(|(of, _)| *of == kind).map(|(_, name)| name).collect()
    }

    /// The directory of a part.
    ///
    /// Errors: two of them look like it.
    pub fn get(&self, kind: Kind) -> Result<Option<PathBuf>> {
        match self.names(kind).as_slice() {
            [] => Ok(None),
            [name] => Ok(Some(self.home.join(name))),
            [one, other, ..] => bail!(
                "{}: {}/ and {}/ look like the same part: rename or remove one of them",
                self.home.display(),
                one.display(),
                other.display()
            ),
        }
    }

    /// The first of two kinds of test images that is there.
    ///
    /// Errors: as [`Parts::get`].
    pub fn first(&self, kinds: [Kind; 2]) -> Result<Option<PathBuf>> {
        self.get(kinds[0])?.map_or_else(|| self.get(kinds[1]), |found| Ok(Some(found)))
    }

    /// What is not clear about them in a directory of one's own images, in words: names alone leave in doubt whether
    /// `train/` beside `car/` is a part or a class.
    ///
    /// Errors: a directory cannot be read.
    pub fn doubt(&self) -> Result<Option<String>> {
        let Some((_, first)) = self.named.first() else { return Ok(None) };
        for kind in [Kind::Train, Kind::Val, Kind::Test] {
            if let [one, other, ..] = self.names(kind).as_slice() {
                return Ok(Some(format!("{}/ and {}/ look like the same part", one.display(), other.display())));
            }
        }
        if self.names(Kind::Train).is_empty() {
            let what = format!("{}/ looks like a part, and no train/ lies beside it", first.display());
            return Ok(Some(what));
        }
        if self.named.len() > 1 || walk::holds_images(&self.home.join(first))? != Some(true) {
            return Ok(None);
        }
        for other in &self.others {
            if walk::holds_images(&self.home.join(other))? == Some(true) {
                let what = "hold images alike: is the first one a part, or are both classes?";
                return Ok(Some(format!("{}/ and {}/ {what}", first.display(), other.display())));
            }
        }
        Ok(None)
    }

    /// The directories with images that hold none of the parts.
    ///
    /// Errors: one of them cannot be read.
    pub fn others(&self) -> Result<Vec<String>> {
        let mut found = Vec::new();
        for name in &self.others {
            if walk::holds_images(&self.home.join(name))?.is_some() {
                found.push(format!("{}/", name.display()));
            }
        }
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn usual_names_are_parts_and_classes_are_not() {
        for (part, names) in [
            (Kind::Train, "train Training TRAIN train2017 training_set trainset Train_Images train-01"),
            (Kind::Val, "val VAL valid validation Validation dev eval val2017 validation_data"),
            (Kind::Test, "test Testing TEST test_set test1 testset"),
        ] {
            names.split(' ').for_each(|name| assert_eq!(kind(OsStr::new(name)), Some(part), "{name}"));
        }
        for name in ["trains", "trainer", "valley", "testify", "developer", "train_old", "2017", "set", "images", ""] {
            assert_eq!(kind(OsStr::new(name)), None, "{name}");
        }
    }
}
