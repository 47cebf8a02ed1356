//! A data set that the program reads: its row, and finding and reading its files
//! with errors that lead on.

use super::protocol::Protocol;
use super::{FileList, Part, Split, grouped};
use crate::config::{DataConfig, DatasetName};
use crate::files;
use anyhow::{Context, Result, anyhow, bail};
use std::path::{Component, Path, PathBuf};

/// A file that is read into memory whole may have so many times as many records as the original.
pub const MOST_TIMES: usize = 4;

/// Refuses a name in a list that leads out of the data set's directory.
pub fn inside(name: &str) -> Result<(), String> {
    let plain = |part: Component| matches!(part, Component::Normal(_));
    if !name.is_empty() && !name.contains('\0') && Path::new(name).components().all(plain) {
        return Ok(());
    }
    Err(format!("{name:?} is no file inside the data set's directory"))
}

/// A part that these images do not have, where a data set may lack it; with what would give it one.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct NoPart(pub String);

/// The row of a data set.
#[derive(Debug)]
pub struct Source {
    pub name: DatasetName,
    pub protocol: Protocol,
    /// How many classes the published set has; `None` of images that have their own.
    pub classes: Option<u32>,
    /// Directories below the root where it may lie; `""` is the root itself.
    pub homes: &'static [&'static str],
    /// Whether `--data` may be given several times, and all of it belongs together.
    pub several_roots: bool,
    /// The next step for someone who lacks the data: a command, or where the set is published.
    pub how_to_get: &'static str,
    /// Loads or indexes a part of it, as the settings have it.
    pub load: fn(&Source, &DataConfig, Part) -> Result<Split>,
}

impl Source {
    /// The first of its homes that holds any of `markers`.
    ///
    /// The error lists every place that was looked at and says how to get the data.
    pub fn locate(&self, root: &Path, markers: &[&str]) -> Result<PathBuf> {
        let holds = |home: &Path| markers.iter().any(|marker| home.join(marker).exists());
        self.locate_by(root, &markers.join(" or "), holds)
    }

    /// The first of its homes that `holds` what it is known by, `marker` in words.
    pub fn locate_by(&self, root: &Path, marker: &str, holds: impl Fn(&Path) -> bool) -> Result<PathBuf> {
        // Joining nothing would leave a slash at the end.
        let place = |home: &&str| if home.is_empty() { root.to_path_buf() } else { root.join(home) };
        if let Some(home) = self.homes.iter().map(place).find(|home| holds(home)) {
            return Ok(home);
        }
        let places: Vec<String> = self.homes.iter().map(|home| place(home).display().to_string()).collect();
        let name = self.name;
        bail!("{name} is not there: no {marker} in {}; {}", places.join(", "), self.how_to_get)
    }

    /// Reads a whole file of the data set, of at most `most` bytes.
    pub fn read(&self, path: &Path, most: u64) -> Result<Vec<u8>> {
        files::read(path, most).with_context(|| format!("{} cannot be read; {}", path.display(), self.how_to_get))
    }

    /// Reads a text file of the data set, of at most `most` bytes.
    pub fn read_text(&self, path: &Path, most: u64) -> Result<String> {
        files::read_text(path, most).with_context(|| format!("{} cannot be read; {}", path.display(), self.how_to_get))
    }

    /// The files below `base` that a text file names, and their labels: `entry` takes a file and its class from a line.
    ///
    /// Errors: a line that `entry` refuses or whose class is none of `classes`, which are sorted; no line at all.
    pub fn listed(
        &self,
        list: &Path,
        base: &Path,
        classes: &[String],
        entry: impl Fn(&str) -> Result<(String, &str), String>,
    ) -> Result<(FileList, Vec<i64>)> {
        let (mut files, mut labels) = (FileList::new(base), Vec::new());
        for (at, line) in
            self.read_text(list, files::LIST_BYTES)?.lines().enumerate().filter(|(_, line)| !line.trim().is_empty())
        {
            let labelled = entry(line).and_then(|(file, class)| {
                inside(&file)?;
                let label = classes.binary_search_by(|name| name.as_str().cmp(class));
                Ok((file, label.map_err(|_| format!("no class of the training images is {class:?}"))?))
            });
            let (file, label) =
                labelled.map_err(|what| anyhow!("{}:{}: {what}; {}", list.display(), at + 1, self.how_to_get))?;
            files.push(Path::new(&file));
            labels.push(label as i64);
        }
        if files.is_empty() {
            bail!("{} names no image; {}", list.display(), self.how_to_get);
        }
        Ok((files, labels))
    }

    /// Refuses a file that is no whole number of records, or of many more than `records`, which the original has.
    pub fn check_records(&self, path: &Path, bytes: usize, record_bytes: usize, records: usize) -> Result<()> {
        if bytes / record_bytes > MOST_TIMES * records {
            bail!(
                "{} has {} records of {} bytes and the original {}; more than {MOST_TIMES} times as many are not read: \
                 it is damaged or another file; {}",
                path.display(),
                grouped(bytes / record_bytes),
                grouped(record_bytes),
                grouped(records),
                self.how_to_get
            );
        }
        if bytes == 0 || !bytes.is_multiple_of(record_bytes) {
            bail!(
                "{} has {} bytes, which is no whole number of records of {} bytes (the original has {} bytes): \
                 it is truncated or another file; {}",
                path.display(),
                grouped(bytes),
                grouped(record_bytes),
                grouped(records * record_bytes),
                self.how_to_get
            );
        }
        Ok(())
    }

    /// `cifar10 train`.
    pub fn part_name(&self, part: &str) -> String {
        format!("{} {part}", self.name)
    }
}
