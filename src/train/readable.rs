//! Images that can be read (`--bad-images`): a look at the headers, and an error
//! where one is broken, or every file is read and the broken ones left out.
//!
//! Left out before anything is trained, so that order, resume and results are
//! those of a data set without these files.

mod headers;

use crate::config::{BadImages, DataConfig};
use crate::data::{self, BadImage, Part, Split, Stored, grouped};
use crate::durable;
use crate::pixels::RgbImage;
use crate::report::{Console, Progress};
use anyhow::{Result, bail};
use headers::Found;
use rayon::prelude::*;
use std::collections::HashSet;
use std::io::Write;
use std::path::Path;
use std::sync::Mutex;

/// Broken files named on the terminal; all of them are in `bad_images.txt`.
const NAMED: usize = 10;
/// More than so much of a hundred left out is worth a second look.
const MANY_PERCENT: f64 = 1.0;

/// A part of a data set, and what was left out of it.
#[derive(Debug)]
pub struct Readable {
    pub split: Split,
    pub left_out: Vec<BadImage>,
}

/// Loads a part of a data set. The headers of its images are looked at, where that is cheap; under `--bad-images skip`
/// every file is decoded once. What is unusual about them is said.
///
/// Errors: those of [`data::load`]; broken images, or more of them than the rule allows.
pub fn load(config: &DataConfig, part: Part, console: &Console) -> Result<Readable> {
    checked(found(config, part, console)?, config.bad_images, console)
}

/// Loads a part of a data set, and says how it was found.
///
/// Errors: those of [`data::load`].
pub fn found(config: &DataConfig, part: Part, console: &Console) -> Result<Split> {
    // Trees of a million files take a while to list, compressed archives to unpack.
    let waiting = console.waiting(&format!("reading {}", config.dataset));
    let split = data::load(config, part)?;
    drop(waiting);
    // A run loads the same images for several purposes.
    split.notes.iter().filter(|note| console.is_new(note)).for_each(|note| console.note(note));
    Ok(split)
}

/// What of a part can be read.
///
/// Errors: broken images, or more of them than the rule allows.
pub fn checked(split: Split, rule: BadImages, console: &Console) -> Result<Readable> {
    if split.packed().is_some() {
        return Ok(Readable { split, left_out: Vec::new() });
    }
    match rule {
        BadImages::Skip { most_percent } => leave_out(split, most_percent, console),
        BadImages::Fail => {
            look_once(&split, console)?;
            Ok(Readable { split, left_out: Vec::new() })
        }
    }
}

/// Refuses broken images; the same ones are looked at once.
fn look_once(split: &Split, console: &Console) -> Result<()> {
    if !console.is_new(&format!("headers of {} {}", split.len(), split.images.describe())) {
        return Ok(());
    }
    let found = headers::look_at_all(split, console);
    if let count @ 1.. = found.broken.len() {
        let named: Vec<String> = found.broken.iter().take(NAMED).map(|(_, bad)| line(bad)).collect();
        let more = if count > NAMED { format!("; and {} more", grouped(count - NAMED)) } else { String::new() };
        bail!(
            "{}: {} of {} images cannot be used: {}{more}; replace or remove them, or leave them out with --bad-images \
             skip (skip:5% for at most 5 in a hundred)",
            split.name,
            grouped(count),
            grouped(split.len()),
            named.join("; "),
        );
    }
    found.warn(split, console);
    Ok(())
}

fn line(bad: &BadImage) -> String {
    format!("{}: {}", bad.path.display(), bad.reason)
}

/// Decodes every image and leaves out those that cannot be.
fn leave_out(split: Split, most_percent: f64, console: &Console) -> Result<Readable> {
    let bar = Mutex::new(console.progress(&format!("checking {}", split.name), split.len() as u64, "images"));
    let found = decode_all(&split, &bar);
    drop(bar);
    let (broken, count) = (found.broken.len(), split.len());
    let share = 100.0 * broken as f64 / count.max(1) as f64;
    for (_, bad) in found.broken.iter().take(NAMED) {
        console.warn(&format!("left out: {}", line(bad)));
    }
    let which = format!("{} of the {} images of {} cannot be read", grouped(broken), grouped(count), split.name);
    if share > most_percent {
        bail!(
            "{which} ({share:.1}%); more than {most_percent}% are not to be left out: get the data set again, or give \
             --bad-images skip to leave out any number of them"
        );
    }
    if broken == count && count > 0 {
        bail!("{which}: nothing is left; the first one is {}", line(&found.broken[0].1));
    }
    found.warn(&split, console);
    if broken == 0 {
        console.note(&format!("{}: all {} images can be read", split.name, grouped(count)));
        return Ok(Readable { split, left_out: Vec::new() });
    }
    let bad: HashSet<usize> = found.broken.iter().map(|(place, _)| *place).collect();
    let good: Vec<usize> = (0..count).filter(|place| !bad.contains(place)).collect();
    let whole = split.subset(&good);
    let many =
        if share > MANY_PERCENT { format!(", {share:.1}% of them: are they the right files?") } else { String::new() };
    console.warn(&format!("{which} and {} left out{many}", if broken == 1 { "is" } else { "are" }));
    Ok(Readable { split: whole, left_out: found.broken.into_iter().map(|(_, bad)| bad).collect() })
}

/// What is found where every image is decoded.
fn decode_all(split: &Split, bar: &Mutex<Progress>) -> Found {
    let decode = |scratch: &mut RgbImage, index: usize| match split.images.stored(index)? {
        Stored::Pixels(_) => Ok(None),
        Stored::Encoded(bytes) => {
            let bad = |reason| BadImage { path: split.images.place(index), reason };
            data::decode_bytes(&bytes, split.orientation, scratch).map_err(bad)?;
            Ok(data::look(&bytes).ok())
        }
    };
    let add = |(mut found, mut scratch): (Found, RgbImage), index: usize| {
        found.add(index, decode(&mut scratch, index));
        bar.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).advance(1);
        (found, scratch)
    };
    let none = || (Found::default(), RgbImage::default());
    let parts = (0..split.len()).into_par_iter().with_min_len(64).fold(none, add);
    parts.map(|(found, _)| found).reduce(Found::default, Found::join)
}

/// Writes `directory/bad_images.txt`, a line a file; nothing where nothing was left out.
///
/// Errors: the file cannot be written.
pub fn write_names(directory: &Path, left_out: &[BadImage]) -> Result<()> {
    if left_out.is_empty() {
        return Ok(());
    }
    durable::replace(&directory.join("bad_images.txt"), |file| {
        left_out.iter().try_for_each(|bad| Ok(writeln!(file, "{}", line(bad))?))
    })
}
