//! `pack.json`: what a directory of shards holds. While it is being filled the same stands in `unfinished.json`, with
//! the shards that are finished.

use super::Pack;
use super::plan::PartPlan;
use crate::config::{DatasetName, Orientation};
use crate::data::grouped;
use crate::digest::hex;
use crate::durable;
use crate::files;
use crate::state::DataMarks;
use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::collections::BTreeSet;
use std::io::Write;
use std::path::Path;

const FINISHED: &str = "pack.json";
const UNFINISHED: &str = "unfinished.json";
const FORMAT: &str = "flatnce pack 1";

/// A finished shard.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ShardRecord {
    pub name: String,
    pub images: usize,
    pub bytes: u64,
    pub sha256: String,
}

/// A part of the data set.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PartRecord {
    pub part: String,
    pub images: usize,
    pub labelled: bool,
    pub images_per_shard: usize,
    /// What tells the source's images from others.
    pub marks: DataMarks,
    pub shards: Vec<ShardRecord>,
}

/// What a directory of shards holds, and what they were made from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    format: String,
    dataset: DatasetName,
    shard_mb: u32,
    max_side: Option<u32>,
    quality: Option<u32>,
    orientation: Orientation,
    /// Of the source's files with their times, while the pack is unfinished.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    source_sha256: Option<String>,
    pub classes: Vec<String>,
    pub parts: Vec<PartRecord>,
}

/// What lies in the directory for the shards.
pub enum Found {
    Nothing,
    Unfinished(Manifest),
    Finished(Manifest),
}

/// Looks at the directory for the shards.
///
/// Errors: it holds something else.
pub fn find(out: &Path) -> Result<Found> {
    for (name, found) in [(FINISHED, Found::Finished as fn(Manifest) -> Found), (UNFINISHED, Found::Unfinished)] {
        let path = out.join(name);
        if path.exists() {
            let told = || format!("{} is no manifest of a pack; choose another --out", path.display());
            let text = files::read_text(&path, files::LIST_BYTES).with_context(told)?;
            return Ok(found(serde_json::from_str(&text).with_context(told)?));
        }
    }
    if out.exists() {
        let entries = std::fs::read_dir(out).with_context(|| format!("{} cannot be read", out.display()))?;
        for entry in entries {
            let entry = entry.with_context(|| format!("{} cannot be read", out.display()))?;
            // What a process left that was killed before it had begun.
            if durable::target_of_temporary(&entry.file_name().to_string_lossy()) != Some(UNFINISHED) {
                bail!(
                    "{} is not empty and holds no pack ({} lies there); choose a new directory for --out",
                    out.display(),
                    entry.path().display()
                );
            }
        }
    }
    Ok(Found::Nothing)
}

impl PartRecord {
    /// The numbers of the shards that are not finished.
    pub fn missing<'a>(&self, part: &'a PartPlan) -> impl Iterator<Item = usize> + use<'a> {
        let done: BTreeSet<String> = self.shards.iter().map(|shard| shard.name.clone()).collect();
        (0..part.shards()).filter(move |&number| !done.contains(&part.shard_name(number)))
    }
}

impl Manifest {
    /// That of a pack that is to be made, without a shard yet.
    ///
    /// Errors: parts with different classes; names of classes that no line can hold; files that are not there.
    pub fn planned(pack: &Pack, parts: &[PartPlan]) -> Result<Manifest> {
        let labelled = || parts.iter().filter(|part| part.split.labels.is_some());
        let classes = labelled().next().map_or_else(Vec::new, |part| part.split.classes.clone());
        if let Some(other) = labelled().find(|part| part.split.classes != classes) {
            bail!("{} has other classes than the part before it: pack them one by one with --part", other.split.name);
        }
        if let Some(class) =
            classes.iter().find(|class| class.trim() != *class || class.is_empty() || class.contains(['\n', '\r']))
        {
            bail!("the class {class:?} cannot stand as a line of classes.txt: rename its directory");
        }
        let mut sum = Sha256::new();
        parts.iter().try_for_each(|part| part.split.images.fingerprint(&mut |bytes| sum.update(bytes)))?;
        let record = |part: &PartPlan| PartRecord {
            part: part.name.to_owned(),
            images: part.split.len(),
            labelled: part.split.labels.is_some(),
            images_per_shard: part.per_shard,
            marks: part.split.marks(),
            shards: Vec::new(),
        };
        Ok(Manifest {
            format: FORMAT.to_owned(),
            dataset: pack.data.dataset,
            shard_mb: pack.packing.shard_mb,
            max_side: pack.packing.max_side,
            quality: pack.packing.max_side.map(|_| pack.packing.quality),
            orientation: pack.data.orientation,
            source_sha256: Some(hex(&sum.finalize())),
            classes,
            parts: parts.iter().map(record).collect(),
        })
    }

    /// Refuses to go on with the pack of other images or settings.
    pub fn check_same(&self, wanted: &Manifest, out: &Path) -> Result<()> {
        let bare = |manifest: &Manifest| {
            let mut bare = manifest.clone();
            bare.parts.iter_mut().for_each(|part| part.shards.clear());
            // A finished pack is the same wherever its source lies by now.
            if self.source_sha256.is_none() {
                bare.source_sha256 = None;
            }
            bare
        };
        let (there, wanted) = (bare(self), bare(wanted));
        if there == wanted {
            return Ok(());
        }
        let what = match (&there, &wanted) {
            (a, b)
                if Manifest { source_sha256: None, ..a.clone() } == Manifest { source_sha256: None, ..b.clone() } =>
            {
                "its source has changed since it was begun"
            }
            (a, b) if a.parts == b.parts && a.classes == b.classes => "it has other settings",
            _ => "it has other images",
        };
        bail!("{} holds another pack ({what}): choose another --out, or remove the directory", out.display())
    }

    pub fn finished(&self) -> usize {
        self.parts.iter().map(|part| part.shards.len()).sum()
    }

    /// Whether the directory still has what it had when it was looked at.
    pub fn is_as_found(&self, out: &Path) -> Result<bool> {
        Ok(match find(out)? {
            Found::Nothing => self.finished() == 0,
            Found::Unfinished(there) => there == *self,
            Found::Finished(_) => false,
        })
    }

    /// Takes a shard off the list of those that are finished.
    pub fn forget(&mut self, name: &str) {
        self.parts.iter_mut().for_each(|part| part.shards.retain(|shard| shard.name != name));
    }

    pub fn write_unfinished(&self, out: &Path) -> Result<()> {
        self.write(&out.join(UNFINISHED))
    }

    /// Puts `pack.json` into the place of `unfinished.json`.
    pub fn finish(&mut self, out: &Path) -> Result<()> {
        self.source_sha256 = None;
        self.parts.iter_mut().for_each(|part| part.shards.sort_by(|a, b| a.name.cmp(&b.name)));
        self.write(&out.join(FINISHED))?;
        self.tidy(out)
    }

    /// Removes what a finished pack does not need any more.
    pub fn tidy(&self, out: &Path) -> Result<()> {
        let path = out.join(UNFINISHED);
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(error).with_context(|| format!("cannot remove {}", path.display()))
            }
            _ => Ok(()),
        }
    }

    fn write(&self, path: &Path) -> Result<()> {
        let text = serde_json::to_string_pretty(self)?;
        durable::replace(path, |file| Ok(writeln!(file, "{text}")?))
    }

    /// `50,000 train and 10,000 test images in 2 shards, 150 MiB`.
    pub fn describe(&self) -> String {
        let parts: Vec<String> =
            self.parts.iter().map(|part| format!("{} {}", grouped(part.images), part.part)).collect();
        let bytes: u64 = self.parts.iter().flat_map(|part| &part.shards).map(|shard| shard.bytes).sum();
        let (shards, parts) = (shards(self.finished()), parts.join(" and "));
        format!("{parts} images in {shards}, {} MiB", grouped((bytes >> 20) as usize))
    }
}

/// `1 shard`, `2 shards`.
pub fn shards(count: usize) -> String {
    format!("{} {}", grouped(count), if count == 1 { "shard" } else { "shards" })
}
