//! `flatnce pack`: any data set as uncompressed tar archives that WebDataset and `--dataset-name shards` read.
//!
//! Images are copied byte by byte, in the data set's order. What is planned (`plan`) is written down before the first
//! shard and with every finished one (`manifest`), so that a pack that was killed goes on and ends with the same bytes;
//! `shard` writes and reads back.

mod manifest;
mod picture;
mod plan;
mod shard;

use crate::config::{DataConfig, Part};
use crate::data::grouped;
use crate::durable;
use crate::report::Console;
use crate::run_dir::free_room;
use crate::train::readable;
use crate::values::{between, one_of};
use anyhow::{Context, Result, bail};
use manifest::{Found, Manifest};
use picture::Rule;
use plan::PartPlan;
use rayon::prelude::*;
use std::io::Write;
use std::path::{Path, PathBuf};

/// Where the shards go, and what they hold.
#[derive(Clone, Debug, clap::Args)]
pub struct Packing {
    /// A directory of images, shards, or the name of a data set [default: as --dataset-name and --data say]
    #[arg(value_name = "SOURCE", conflicts_with = "dataset_name", help_heading = "Shards")]
    pub source: Option<PathBuf>,
    /// Directory for the shards, pack.json and classes.txt: a new one, or one of a pack that was stopped
    #[arg(long, value_name = "DIR", help_heading = "Shards")]
    pub out: PathBuf,
    /// Size of a shard, about
    #[arg(long, value_name = "MIB", default_value = "256", help_heading = "Shards", value_parser = between::<1, 65536>)]
    pub shard_mb: u32,
    /// Make larger images smaller, so that their shorter side has so many pixels [default: copy all as they are]
    ///
    /// The shorter side is what evaluations resize by: 256 is enough for
    /// training at 224. Bicubic with antialiasing, as Pillow resizes. JPEG and
    /// WebP become JPEG; other formats become PNG, without loss.
    #[arg(long, value_name = "PIXELS", help_heading = "Shards", value_parser = between::<8, 16384>)]
    pub max_side: Option<u32>,
    /// Quality of the JPEG files that --max-side makes
    #[arg(long, value_name = "1-100", default_value = "95", help_heading = "Shards", value_parser = between::<1, 100>)]
    pub quality: u32,
    /// Pack this part alone, or several of them [default: all that there are]
    #[arg(long, value_name = "PART", value_parser = one_of!(Part), action = clap::ArgAction::Append, help_heading = "Shards")]
    pub part: Vec<Part>,
}

/// Write a data set as shards.
#[derive(Clone, Debug)]
pub struct Pack {
    pub packing: Packing,
    pub data: DataConfig,
}

/// Writes the shards that are not there yet and checks all of them.
///
/// Errors: a source that cannot be read, a directory that holds something else, too little room, a shard that reads back
/// other bytes than were written. What is finished stays, and the next call goes on from there.
pub fn run(pack: &Pack, console: &Console) -> Result<()> {
    let out = &pack.packing.out;
    let found = manifest::find(out)?;
    let (parts, left_out) = plan::parts(pack, console)?;
    let wanted = Manifest::planned(pack, &parts)?;
    let mut manifest = match found {
        Found::Nothing => wanted,
        Found::Finished(there) => {
            there.check_same(&wanted, out)?;
            verified(out, &there, console).map_err(|(_, error)| error)?;
            there.tidy(out)?;
            console.result(&format!("{} is whole already: {}", out.display(), there.describe()));
            return Ok(());
        }
        Found::Unfinished(there) => {
            there.check_same(&wanted, out)?;
            console.note(&format!("{} finished; what is missing follows", manifest::shards(there.finished())));
            there
        }
    };
    check_room(out, &parts, &manifest)?;
    std::fs::create_dir_all(out).with_context(|| format!("cannot create {}", out.display()))?;
    let _lock = durable::lock(out)?;
    // Another process may have been faster.
    if !manifest.is_as_found(out)? {
        bail!("another process has written into {} meanwhile: run the command again", out.display());
    }
    manifest.write_unfinished(out)?;
    write(out, &parts, &mut manifest, &rule(pack), console)?;
    if let Err((broken, error)) = verified(out, &manifest, console) {
        // It is written anew by the next call.
        manifest.forget(&broken);
        manifest.write_unfinished(out)?;
        return Err(error);
    }
    readable::write_names(out, &left_out)?;
    if !manifest.classes.is_empty() {
        let lines = manifest.classes.iter();
        durable::replace(&out.join("classes.txt"), |file| {
            lines.into_iter().try_for_each(|class| Ok(writeln!(file, "{class}")?))
        })?;
    }
    manifest.finish(out)?;
    console.result(&format!("{} in {}\n{}", manifest.describe(), out.display(), how_to_use(pack, &manifest)));
    Ok(())
}

fn rule(pack: &Pack) -> Rule {
    Rule {
        max_side: pack.packing.max_side.map(|side| side as usize),
        quality: pack.packing.quality as u8,
        // Under --bad-images skip every image has been decoded before.
        check: pack.data.bad_images == crate::config::BadImages::Fail,
    }
}

fn how_to_use(pack: &Pack, manifest: &Manifest) -> String {
    let place = match manifest.parts.first() {
        Some(part) if manifest.parts.len() == 1 => pack.packing.out.join(format!("{}-*.tar", part.part)),
        _ => pack.packing.out.clone(),
    };
    format!(
        "train on it with --dataset-name shards --data '{}' --image-size {}",
        place.display(),
        pack.data.image_size_px
    )
}

/// Refuses a file system without room for what is to be written yet.
fn check_room(out: &Path, parts: &[PartPlan], manifest: &Manifest) -> Result<()> {
    let todo = |(part, done): (&PartPlan, &manifest::PartRecord)| -> u64 {
        let images: usize = done.missing(part).map(|number| part.range(number).len()).sum();
        images as u64 * part.image_bytes
    };
    let needed: u64 = parts.iter().zip(&manifest.parts).map(todo).sum();
    match free_room(out) {
        Some(free) if free < needed => bail!(
            "{} has room for {} MiB, and the shards need about {} MiB: make room, choose another --out, or make the \
             images smaller with --max-side",
            out.display(),
            grouped((free >> 20) as usize),
            grouped((needed >> 20) as usize + 1)
        ),
        _ => Ok(()),
    }
}

fn write(out: &Path, parts: &[PartPlan], manifest: &mut Manifest, rule: &Rule, console: &Console) -> Result<()> {
    for (place, part) in parts.iter().enumerate() {
        let missing: Vec<usize> = manifest.parts[place].missing(part).collect();
        let todo: usize = missing.iter().map(|&number| part.range(number).len()).sum();
        let all = part.split.len();
        let mut bar =
            console.progress(&format!("packing {}", part.name), all as u64, "images").beginning_at((all - todo) as u64);
        for number in missing {
            let record = shard::write(out, part, number, rule, &mut bar)?;
            manifest.parts[place].shards.push(record);
            manifest.write_unfinished(out)?;
        }
        bar.finish();
    }
    Ok(())
}

/// Reads every shard back.
///
/// Errors: the first whose bytes are others than those that were written, and why.
fn verified(out: &Path, manifest: &Manifest, console: &Console) -> Result<(), (String, anyhow::Error)> {
    let shards: Vec<_> = manifest.parts.iter().flat_map(|part| &part.shards).collect();
    let bar = std::sync::Mutex::new(console.progress("reading back", shards.len() as u64, "shards"));
    let check = |record: &&manifest::ShardRecord| {
        let checked = shard::verify(&out.join(&record.name), record);
        bar.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).advance(1);
        checked.map_err(|error| (record.name.clone(), error))
    };
    shards.par_iter().map(check).collect()
}
