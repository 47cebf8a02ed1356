//! Small labelled subsets for semi-supervised training: 1%, 10% or any share of a
//! labelled set.
//!
//! For ImageNet the published lists of SimCLR fix the choice
//! (`imagenet/1percent.txt`, `imagenet/10percent.txt`: one file name a line, the class
//! before its `_`). Without a list the choice is seeded and class-balanced.

use super::{Split, counted, grouped, source_of};
use crate::config::DatasetName;
use crate::files;
use crate::rng::{Purpose, Stream};
use anyhow::{Context, Result, bail};
use std::collections::HashMap;
use std::path::{Path, PathBuf};

/// The published list for this share of a data set, if it has such lists and one lies in its directory below `root`.
pub fn list_for(dataset: DatasetName, root: &Path, ratio: f64) -> Option<PathBuf> {
    let source = source_of(dataset);
    let percent = ratio * 100.0;
    if !source.protocol.label_lists || (percent - percent.round()).abs() > 1e-9 {
        return None;
    }
    let name = format!("{}percent.txt", percent.round());
    source.homes.iter().map(|home| root.join(home).join(&name)).find(|path| path.is_file())
}

/// `count` images of a split, in its order: the same ones whatever the run's seed, and a smaller choice is contained
/// in a larger one.
pub fn some_of(split: &Split, count: usize) -> Result<Split> {
    if count == 0 || count > split.len() {
        bail!("--train-images {count}: {} has {}", split.name, counted(split.len(), "image"));
    }
    let mut order: Vec<usize> = (0..split.len()).collect();
    Stream::new(0, Purpose::Subset, 0, 0, 0).shuffle(&mut order);
    order.truncate(count);
    order.sort_unstable();
    Ok(split.part(&order, "a part"))
}

/// The share `ratio` (0 to 1] of a labelled split, or the images that the list names.
///
/// Seeded choice: as many images as `ratio` asks for, spread over the classes as evenly as their
/// sizes allow. A smaller share of the same seed and size is contained in a larger one up to the
/// one image a class that the rounding may add. Order is that of the split.
pub fn semi_subset(split: &Split, ratio: f64, seed: u64, list_path: Option<&Path>) -> Result<Split> {
    let Some(labels) = &split.labels else {
        bail!("{} has no labels, so no labelled subset can be chosen from it", split.name);
    };
    let mut subset = match list_path {
        Some(path) => split.subset(&listed(split, path)?),
        None => split.subset(&balanced(labels, split.classes.len(), ratio, seed)?),
    };
    subset.name = match list_path {
        Some(path) => format!("{}, {}", split.name, path.display()),
        None => format!("{}, {}% of the labels", split.name, ratio * 100.0),
    };
    Ok(subset)
}

fn balanced(labels: &[i64], classes: usize, ratio: f64, seed: u64) -> Result<Vec<usize>> {
    if !(ratio > 0.0 && ratio <= 1.0) {
        bail!("the labelled share must be above 0 and at most 1, not {ratio}");
    }
    let wanted = (labels.len() as f64 * ratio).round() as usize;
    if wanted == 0 {
        bail!("a share of {ratio} of {} images is none; choose a larger share", labels.len());
    }
    let mut by_class = vec![Vec::new(); classes];
    for (index, &label) in labels.iter().enumerate() {
        by_class[label as usize].push(index);
    }
    for (class, members) in by_class.iter_mut().enumerate() {
        Stream::new(seed, Purpose::Subset, class as u64, 1, 0).shuffle(members);
    }
    // Rank by rank, one image of every class that still has one; the last, incomplete rank goes to classes drawn at random.
    let mut chosen = Vec::with_capacity(wanted);
    for rank in 0.. {
        let mut round: Vec<usize> = by_class.iter().filter_map(|members| members.get(rank).copied()).collect();
        let left = wanted - chosen.len();
        if round.len() >= left {
            if round.len() > left {
                Stream::new(seed, Purpose::Subset, rank as u64, 2, 0).shuffle(&mut round);
            }
            chosen.extend(round.into_iter().take(left));
            break;
        }
        chosen.extend(round);
    }
    chosen.sort_unstable();
    Ok(chosen)
}

fn listed(split: &Split, path: &Path) -> Result<Vec<usize>> {
    let text = files::read_text(path, files::LIST_BYTES)
        .with_context(|| format!("the list {} cannot be read", path.display()))?;
    // File name -> its line, and whether the split has it.
    let mut wanted: HashMap<&str, (usize, bool)> = HashMap::new();
    for (number, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
        wanted.insert(line.trim(), (number + 1, false));
    }
    if wanted.is_empty() {
        bail!("the list {} names no image", path.display());
    }
    let mut chosen = Vec::with_capacity(wanted.len());
    for index in 0..split.len() {
        let file = split.file_name(index).and_then(Path::file_name).and_then(|name| name.to_str());
        let Some((name, entry)) = file.and_then(|name| Some((name, wanted.get_mut(name)?))) else { continue };
        let class = name.split_once('_').map_or(name, |(class, _)| class);
        let directory = &split.classes[split.label(index).unwrap_or_default() as usize];
        if class != directory {
            bail!("{}:{}: {name} lies in the class {directory}", path.display(), entry.0);
        }
        entry.1 = true;
        chosen.push(index);
    }
    let missing = wanted.iter().filter(|(_, (_, seen))| !seen).min_by_key(|(_, (line, _))| *line);
    if let Some((name, (line, _))) = missing {
        let count = wanted.values().filter(|(_, seen)| !seen).count();
        bail!(
            "{}:{line}: {name} is not in {} ({} of {} names are not): is the data set complete?",
            path.display(),
            split.name,
            grouped(count),
            grouped(wanted.len())
        );
    }
    Ok(chosen)
}
