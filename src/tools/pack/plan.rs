//! What is packed: the parts of a data set, how many images go into a shard, and the names of its members.

use super::picture::{self, Maker};
use super::{Pack, rule};
use crate::config::Part;
use crate::data::{BadImage, NoPart, Split};
use crate::digest::fnv1a;
use crate::report::Console;
use crate::train::readable;
use anyhow::{Error, Result, bail};
use std::collections::HashSet;
use std::ops::Range;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path};

/// Images whose sizes say how many go into a shard.
const SAMPLED: usize = 512;
/// A header of a member, and what a `.cls` takes with its own.
const BLOCK: u64 = 512;
const LABEL_BYTES: u64 = 2 * BLOCK;

/// A part of the data set and its shards, all of the same number of images but the last.
pub struct PartPlan {
    /// How the names of its shards begin.
    pub name: &'static str,
    pub split: Split,
    pub per_shard: usize,
    /// Bytes that an image takes, about.
    pub image_bytes: u64,
    keys: Keys,
}

/// The parts that are asked for, else those that there are, and the images left out of them.
///
/// Errors: a part that is asked for and not there; what `data::load` says of broken ones.
pub fn parts(pack: &Pack, console: &Console) -> Result<(Vec<PartPlan>, Vec<BadImage>)> {
    let (mut parts, mut seen, mut left_out) = (Vec::new(), Vec::new(), Vec::new());
    let all = [Part::Train, Part::Test, Part::Unlabelled];
    for part in all.into_iter().filter(|part| pack.packing.part.is_empty() || pack.packing.part.contains(part)) {
        let advised = |error: Error| match pack.packing.part[..] {
            [] => error.context(format!("the part {part} cannot be packed; --part packs others alone")),
            _ => error,
        };
        let found = match readable::found(&pack.data, part, console) {
            Err(error) if pack.packing.part.is_empty() && error.downcast_ref::<NoPart>().is_some() => {
                console.note(&format!("{error:#}; packed without"));
                continue;
            }
            found => found.map_err(advised)?,
        };
        let marks = found.images_marks();
        if part == Part::Unlabelled && seen.contains(&marks) {
            // It is the training part, as of most data sets.
            continue;
        }
        seen.push(marks);
        let readable = readable::checked(found, pack.data.bad_images, console).map_err(advised)?;
        console.note(&readable.split.describe());
        parts.push(PartPlan::new(part, readable.split, pack)?);
        left_out.extend(readable.left_out);
    }
    if parts.is_empty() {
        bail!("{} has no part that is asked for", pack.data.dataset);
    }
    Ok((parts, left_out))
}

impl PartPlan {
    fn new(part: Part, split: Split, pack: &Pack) -> Result<PartPlan> {
        let (sampled, rule) = (split.len().clamp(1, SAMPLED), rule(pack));
        let mut maker = Maker::default();
        let mut bytes = 0;
        for sample in 0..sampled.min(split.len()) {
            let made = picture::make(&split, sample * split.len() / sampled, &rule, &mut maker)?;
            bytes += BLOCK + (made.bytes.len() as u64).next_multiple_of(BLOCK);
        }
        if split.is_empty() {
            bail!("{} has no images", split.name);
        }
        let image_bytes = bytes / sampled as u64 + if split.labels.is_some() { LABEL_BYTES } else { 0 };
        let per_shard = ((u64::from(pack.packing.shard_mb) << 20) / image_bytes).max(1) as usize;
        let keys = Keys::of(&split);
        Ok(PartPlan { name: part.name(), per_shard: per_shard.min(split.len()), image_bytes, split, keys })
    }

    pub fn shards(&self) -> usize {
        self.split.len().div_ceil(self.per_shard)
    }

    /// The images of a shard.
    pub fn range(&self, shard: usize) -> Range<usize> {
        shard * self.per_shard..self.split.len().min((shard + 1) * self.per_shard)
    }

    pub fn shard_name(&self, shard: usize) -> String {
        format!("{}-{shard:06}.tar", self.name)
    }

    /// The name of an image's members without their extension.
    pub fn key(&self, index: usize) -> Vec<u8> {
        self.keys.get(&self.split, index)
    }
}

/// Keys that no two images share.
struct Keys {
    /// Hashes of those that several images would have.
    shared: HashSet<u64>,
    numbered: bool,
}

impl Keys {
    fn of(split: &Split) -> Keys {
        let mut keys = Keys { shared: HashSet::new(), numbered: false };
        keys.shared = keys.repeated(split);
        // A name may end in the number that another one is given.
        keys.numbered = !keys.shared.is_empty() && !keys.repeated(split).is_empty();
        keys
    }

    fn repeated(&self, split: &Split) -> HashSet<u64> {
        let mut hashes: Vec<u64> = (0..split.len()).map(|index| fnv1a(self.get(split, index))).collect();
        hashes.sort_unstable();
        hashes.windows(2).filter(|two| two[0] == two[1]).map(|two| two[0]).collect()
    }

    fn get(&self, split: &Split, index: usize) -> Vec<u8> {
        let key = key(split.file_name(index), index);
        if self.numbered || self.shared.contains(&fnv1a(key.iter().copied())) {
            return [key.as_slice(), format!("-{index:09}").as_bytes()].concat();
        }
        key
    }
}

/// The path of an image without its extension, kept inside the archive and without dots, which end a key; the image's
/// number where it has no file.
fn key(file: Option<&Path>, index: usize) -> Vec<u8> {
    let plain = |part: Component| matches!(part, Component::Normal(_));
    let mut parts: Vec<&[u8]> = file
        .into_iter()
        .flat_map(|file| {
            file.components().filter(|part| plain(*part)).map(|part| part.as_os_str().as_bytes()).collect::<Vec<_>>()
        })
        .collect();
    let Some(base) = parts.pop() else { return format!("{index:09}").into_bytes() };
    let base = &base[..base.len() - picture::extension_of(base).map_or(0, |extension| extension.len() + 1)];
    let base: Vec<u8> = base.iter().map(|&byte| if byte == b'.' { b'_' } else { byte }).collect();
    parts.push(&base);
    parts.join(&b'/')
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::FileList;

    #[test]
    fn names_stay_what_they_are_where_they_can() {
        let of = |name: &str| String::from_utf8(key(Some(Path::new(name)), 7)).unwrap();
        for (name, wanted) in [
            ("n01/n01_10026.JPEG", "n01/n01_10026"),
            ("a.b/photo.v2.jpg", "a.b/photo_v2"),
            ("/../../etc/x.png", "etc/x"),
            (".hidden.jpg", "_hidden"),
            ("no extension", "no extension"),
            ("..", "000000007"),
        ] {
            assert_eq!(of(name), wanted, "{name}");
        }
        assert_eq!(key(None, 123), b"000000123");
        let split = |names: &[&str]| {
            let mut list = FileList::new("/x");
            names.iter().for_each(|name| list.push(Path::new(name)));
            Split::unlabelled(list, "x".into())
        };
        let keys = |names: &[&str]| {
            let split = split(names);
            let keys = Keys::of(&split);
            (0..split.len()).map(|i| String::from_utf8(keys.get(&split, i)).unwrap()).collect::<Vec<_>>()
        };
        assert_eq!(keys(&["a.jpg", "b.jpg", "a.png"]), ["a-000000000", "b", "a-000000002"]);
        assert_eq!(
            keys(&["a.jpg", "a.png", "a-000000000.jpg"]),
            ["a-000000000", "a-000000001", "a-000000000-000000002"]
        );
    }
}
