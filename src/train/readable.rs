//! Images that can be read (`--bad-images`): a broken file stops a run where it
//! is met, or all files are looked at first and the broken ones left out.
//!
//! Left out before anything is trained, so that order, resume and results are
//! those of a data set without these files.

use crate::config::{BadImages, DataConfig};
use crate::data::{self, BadImage, Part, Split, grouped};
use crate::durable;
use crate::pixels::RgbImage;
use crate::report::{Console, Progress};
use anyhow::{Result, bail};
use rayon::prelude::*;
use std::collections::HashSet;
use std::io::Write;
use std::path::Path;
use std::sync::Mutex;

/// Broken files named on the terminal; all of them are in `bad_images.txt`.
const NAMED: usize = 10;

/// A part of a data set, and what was left out of it.
#[derive(Debug)]
pub struct Readable {
    pub split: Split,
    pub left_out: Vec<BadImage>,
}

/// Loads a part of a data set; under `--bad-images skip` every file is decoded once.
///
/// Errors: those of [`data::load`]; more broken images than the rule allows.
pub fn load(config: &DataConfig, part: Part, console: &Console) -> Result<Readable> {
    // Trees of a million files take a while to list, compressed archives to unpack.
    let waiting = console.waiting(&format!("reading {}", config.dataset));
    let split = data::load(config, part)?;
    drop(waiting);
    split.notes.iter().for_each(|note| console.note(note));
    let BadImages::Skip { most_percent } = config.bad_images else {
        return Ok(Readable { split, left_out: Vec::new() });
    };
    if split.packed().is_some() {
        return Ok(Readable { split, left_out: Vec::new() });
    }
    let bar = Mutex::new(console.progress(&format!("checking {}", split.name), split.len() as u64, "images"));
    let broken = broken(&split, &bar);
    let share = 100.0 * broken.len() as f64 / split.len().max(1) as f64;
    for (_, bad) in broken.iter().take(NAMED) {
        console.warn(&format!("left out: {bad}"));
    }
    if share > most_percent {
        bail!(
            "{} of the {} images of {} are broken ({share:.1}%); more than {most_percent}% are not to be left out: \
             get the data set again, or give --bad-images skip",
            grouped(broken.len()),
            grouped(split.len()),
            split.name
        );
    }
    if broken.is_empty() {
        console.note(&format!("{}: all {} images can be read", split.name, grouped(split.len())));
        return Ok(Readable { split, left_out: Vec::new() });
    }
    let bad: HashSet<usize> = broken.iter().map(|(place, _)| *place).collect();
    let good: Vec<usize> = (0..split.len()).filter(|place| !bad.contains(place)).collect();
    let whole = split.subset(&good);
    console.warn(&format!(
        "{}: {} of {} images are broken and left out",
        split.name,
        grouped(broken.len()),
        grouped(split.len())
    ));
    Ok(Readable { split: whole, left_out: broken.into_iter().map(|(_, bad)| bad).collect() })
}

/// The images that cannot be decoded, by place, in order.
fn broken(split: &Split, bar: &Mutex<Progress>) -> Vec<(usize, BadImage)> {
    let look = |scratch: &mut RgbImage, index: usize| {
        let bad = split.image(index, scratch).err();
        bar.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).advance(1);
        Some((index, bad?))
    };
    (0..split.len()).into_par_iter().with_min_len(64).map_init(RgbImage::default, look).flatten().collect()
}

/// Writes `directory/bad_images.txt`, a line a file; nothing where nothing was left out.
///
/// Errors: the file cannot be written.
pub fn write_names(directory: &Path, left_out: &[BadImage]) -> Result<()> {
    if left_out.is_empty() {
        return Ok(());
    }
    durable::replace(&directory.join("bad_images.txt"), |file| {
        left_out.iter().try_for_each(|bad| Ok(writeln!(file, "{}: {}", bad.path.display(), bad.reason)?))
    })
}
