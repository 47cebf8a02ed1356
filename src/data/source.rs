//! Finding and reading the files of a data set, with errors that lead on.

use super::facts::how_to_get;
use super::split::grouped;
use crate::config::DatasetName;
use anyhow::{Context, Result, bail};
use std::path::{Path, PathBuf};

/// The first of `candidates` (directories below `root`; `""` is `root` itself) that holds any of `markers`.
///
/// The error lists every place that was looked at and says how to get the data.
pub fn locate(dataset: DatasetName, root: &Path, candidates: &[&str], markers: &[&str]) -> Result<PathBuf> {
    for candidate in candidates {
        let home = if candidate.is_empty() { root.to_path_buf() } else { root.join(candidate) };
        if markers.iter().any(|marker| home.join(marker).exists()) {
            return Ok(home);
        }
    }
    let marker = markers.join(" or ");
    let places: Vec<_> = candidates
        .iter()
        .map(|c| if c.is_empty() { root.display().to_string() } else { root.join(c).display().to_string() })
        .collect();
    bail!("{dataset} is not there: no {marker} in {}; {}", places.join(", "), how_to_get(dataset))
}

/// Reads a whole file that must hold one or more records of `record_bytes`; `full_bytes` is the size of the original.
pub fn read_records(dataset: DatasetName, path: &Path, record_bytes: usize, full_bytes: usize) -> Result<Vec<u8>> {
    let bytes = read(dataset, path)?;
    if bytes.is_empty() || bytes.len() % record_bytes != 0 {
        bail!(
            "{} has {} bytes, which is no whole number of records of {} bytes (the original has {} bytes): \
             it is truncated or another file; {}",
            path.display(),
            grouped(bytes.len()),
            grouped(record_bytes),
            grouped(full_bytes),
            how_to_get(dataset)
        );
    }
    Ok(bytes)
}

/// Reads a whole file of the data set.
pub fn read(dataset: DatasetName, path: &Path) -> Result<Vec<u8>> {
    std::fs::read(path).with_context(|| format!("{} cannot be read; {}", path.display(), how_to_get(dataset)))
}

/// Reads a text file of the data set.
pub fn read_text(dataset: DatasetName, path: &Path) -> Result<String> {
    std::fs::read_to_string(path)
        .with_context(|| format!("{} cannot be read as text; {}", path.display(), how_to_get(dataset)))
}
