//! Hugging Face's image data sets as parquet files: a column `image`, a structure of the file's bytes and its name (or
//! the bytes alone), and a column of whole numbers `label`, `labels` or `fine_label` whose class names stand in the
//! notes of the file (`huggingface`, JSON: `info.features.label.names`).
//!
//! `--data` is a directory (`data/train-00000-of-00005.parquet` ..., at any depth up to four), a file, a pattern such as
//! `DIR/train-*.parquet`, or several of them. The parts are told by the names of files, else of their directories:
//! `train`, `test`, and `validation` where there is no `test`. Files of none of these are for training.

#[cfg(feature = "parquet")]
mod images;
#[cfg(feature = "parquet")]
mod table;

use super::parts::Kind;
use super::protocol::OWN_IMAGES;
use super::shards::matching;
use super::{NoPart, Part, Source, Split};
use crate::config::{DataConfig, DatasetName};
use anyhow::{Context, Result, bail};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

pub static PARQUET: Source = Source {
    name: DatasetName::Parquet,
    protocol: OWN_IMAGES,
    classes: None,
    homes: &[""],
    several_roots: true,
    how_to_get: "give a directory of Hugging Face's parquet files, or the files, with `--data`",
    load,
};

/// Directories below `--data` that are looked into.
const DEPTH: usize = 4;
/// More parts of one set than anybody has written.
const MOST_SHARDS: usize = 100_000;

#[cfg(not(feature = "parquet"))]
fn load(_source: &Source, _data: &DataConfig, _part: Part) -> Result<Split> {
    bail!("this program was built without parquet: build it with `cargo build --release --features parquet`")
}

#[cfg(feature = "parquet")]
fn load(source: &Source, data: &DataConfig, part: Part) -> Result<Split> {
    let mut by_part: BTreeMap<Kind, Vec<PathBuf>> = BTreeMap::new();
    for (path, telling) in find(source, data)? {
        by_part.entry(named(&telling)).or_default().push(path);
    }
    let own: &[Kind] = if part == Part::Test { &[Kind::Test, Kind::Val] } else { &[Kind::Train] };
    let Some(chosen) = own.iter().find(|name| by_part.contains_key(name)) else {
        let roots: Vec<_> = data.roots().map(|root| root.display().to_string()).collect();
        let wanted = if part == Part::Test { "test-*.parquet or validation-*.parquet" } else { "train-*.parquet" };
        let what = format!("{} has no such part: no {wanted} is there; names tell the parts", roots.join(", "));
        return Err(NoPart(what).into());
    };
    let others = by_part.iter().filter(|(name, _)| *name != chosen).flat_map(|(_, paths)| paths);
    let name = source.part_name(match chosen {
        Kind::Train => "train",
        Kind::Val => "validation",
        Kind::Test => "test",
    });
    let mut split = images::split(data, &by_part[chosen], &others.cloned().collect::<Vec<_>>(), name)?;
    if (part, *chosen) == (Part::Test, Kind::Val) {
        split.notes.push("there are no test images: those of validation are the test images".to_owned());
    }
    Ok(split)
}

/// By the word at the beginning of the file's name, else of the nearest directory that has one.
fn named(path: &Path) -> Kind {
    let words = path.ancestors().filter_map(|path| path.file_name()?.to_str());
    let mut known = words.filter_map(|name| {
        let name = name.to_ascii_lowercase();
        let word = name.split(|letter: char| !letter.is_ascii_alphabetic()).next().unwrap_or_default();
        Kind::of_word(word)
    });
    known.next().unwrap_or(Kind::Train)
}

/// Every file that `--data` means, once, sorted, and what of its path tells its part.
fn find(source: &Source, data: &DataConfig) -> Result<BTreeMap<PathBuf, PathBuf>> {
    let mut found = BTreeMap::new();
    for root in data.roots() {
        let mut here = Vec::new();
        if root.is_file() {
            here.push(root.clone());
        } else if root.is_dir() {
            gather(root, DEPTH, &mut here)?;
            check_complete(&here)?;
        } else {
            here = matching(root)?;
        }
        if here.is_empty() {
            bail!("{} holds no .parquet file; {}", root.display(), source.how_to_get);
        }
        for path in here {
            // Of a file that is named itself its own directory counts too.
            let above = if root.is_dir() { Some(root.as_path()) } else { path.parent().and_then(Path::parent) };
            let telling = path.strip_prefix(above.unwrap_or(Path::new(""))).unwrap_or(&path).to_owned();
            found.entry(path).or_insert(telling);
        }
    }
    Ok(found)
}

fn gather(directory: &Path, depth: usize, found: &mut Vec<PathBuf>) -> Result<()> {
    let cannot = || format!("cannot read {}", directory.display());
    for entry in std::fs::read_dir(directory).with_context(cannot)? {
        let entry = entry.with_context(cannot)?;
        let (name, path) = (entry.file_name(), entry.path());
        let name = name.to_string_lossy();
        // What the Hub's programs keep beside the files.
        if name.starts_with('.') {
            continue;
        }
        if path.is_dir() {
            if depth > 0 {
                gather(&path, depth - 1, found)?;
            }
        } else if name.to_ascii_lowercase().ends_with(".parquet") {
            found.push(path);
        }
    }
    found.sort();
    Ok(())
}

/// Refuses a set of which a file is missing: `train-00003-of-00005` says how many there are.
fn check_complete(paths: &[PathBuf]) -> Result<()> {
    let mut sets: BTreeMap<(PathBuf, String, usize), BTreeSet<usize>> = BTreeMap::new();
    for path in paths {
        let Some((before, after)) = path.file_name().and_then(|name| name.to_str()?.split_once("-of-")) else {
            continue;
        };
        let digits = after.len() - after.trim_start_matches(|letter: char| letter.is_ascii_digit()).len();
        let numbers = before
            .rsplit_once('-')
            .and_then(|(stem, number)| Some((stem.to_owned(), number.parse().ok()?, after[..digits].parse().ok()?)));
        if let Some((stem, number, count)) = numbers {
            let directory = path.parent().unwrap_or(Path::new("")).to_owned();
            sets.entry((directory, stem, count)).or_default().insert(number);
        }
    }
    for ((directory, stem, count), there) in sets {
        let missing: Vec<String> =
            (0..count.min(MOST_SHARDS)).filter(|n| !there.contains(n)).map(|n| format!("{n:05}")).take(5).collect();
        if !missing.is_empty() {
            bail!(
                "{}: of {stem}-NNNNN-of-{count:05}.parquet {} are there, and {} missing ({}): download them, or name the \
                 files that are to be read with --data",
                directory.display(),
                there.len(),
                count.saturating_sub(there.len()),
                missing.join(", ")
            );
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_told_by_names() {
        for (path, part) in [
            ("data/train-00000-of-00005.parquet", Kind::Train),
            ("data/test-00000-of-00001-abc.parquet", Kind::Test),
            ("default/validation/0000.parquet", Kind::Val),
            ("Val.parquet", Kind::Val),
            ("plain_text/trainable.parquet", Kind::Train),
            ("test/train-0.parquet", Kind::Train),
            ("testament.parquet", Kind::Train),
        ] {
            assert_eq!(named(Path::new(path)), part, "{path}");
        }
    }

    #[test]
    fn a_missing_file_of_a_set_is_named() {
        let paths = |numbers: &[usize]| -> Vec<PathBuf> {
            numbers.iter().map(|n| format!("d/train-{n:05}-of-00003.parquet").into()).collect()
        };
        assert!(check_complete(&paths(&[0, 1, 2])).is_ok() && check_complete(&["d/x.parquet".into()]).is_ok());
        let error = check_complete(&paths(&[0, 2])).unwrap_err().to_string();
        assert!(error.contains("2 are there, and 1 missing (00001)"), "{error}");
        let huge = ["t-0-of-99999999999999999999.parquet".into(), "t-1-of-9999999999.parquet".into()];
        assert!(check_complete(&huge).is_err());
    }
}
