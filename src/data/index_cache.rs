//! The list of a large tree's images, kept from one run to the next.
//!
//! ImageNet's 1.28 million names take seconds to gather and sort; reading them
//! back takes hundredths. The list lies in the user's cache directory, one file a
//! tree, and is believed only while every directory of the tree has the stamp that
//! it had: adding, removing or renaming an entry changes the stamp of the directory
//! that holds it. Anything else, a damaged file, another version, no cache
//! directory, means that the tree is listed anew. `FLATNCE_INDEX_CACHE=off` turns
//! it off.
//!
//! What a symbolic link to an image leads to is not part of a stamp: an image that
//! has gone that way is missed when it is read.

use super::file_list::FileList;
use super::walk::{self, Stamp, Tree};
use crate::durable;
use anyhow::Result;
use std::ffi::{OsStr, OsString};
use std::io::Write;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

/// First bytes of the file; the number is the version of what follows.
const MAGIC: &[u8; 16] = b"flatnce index 1\n";
/// Smaller trees are listed faster than anybody notices.
const LEAST_FILES: usize = 10_000;
/// A directory that changed this recently may change again without its times moving on: clocks of file systems
/// are coarse, up to two seconds.
const SETTLED_SECONDS: i64 = 3;

/// Where the indexes lie: `$XDG_CACHE_HOME/flatnce/index`, else below `~/.cache`; `None` when turned off or without
/// a home.
pub fn directory() -> Option<PathBuf> {
    if std::env::var_os("FLATNCE_INDEX_CACHE").is_some_and(|value| value == "off") {
        return None;
    }
    let set = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let cache = set("XDG_CACHE_HOME").or_else(|| Some(set("HOME")?.join(".cache")))?;
    Some(cache.join("flatnce/index"))
}

/// [`walk::tree`], from the index in `cache` when it holds. Says whether it did.
///
/// Errors: those of the listing. An index that cannot be read or written is none.
pub fn tree(root: &Path, cache: Option<&Path>) -> Result<(Tree, bool)> {
    // One tree has one index, however its path was typed.
    let Some((file, whole)) = cache.and_then(|cache| {
        let whole = root.canonicalize().ok()?;
        Some((cache.join(file_name(&whole)), whole))
    }) else {
        return Ok((walk::tree(root)?, false));
    };
    if let Some(tree) = std::fs::read(&file).ok().and_then(|bytes| decode(&bytes, root, &whole)) {
        return Ok((tree, true));
    }
    let before = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs() as i64);
    let tree = walk::tree(root)?;
    let settled = tree.visited.iter().all(|(_, stamp)| stamp.seconds() + SETTLED_SECONDS <= before);
    if tree.files.len() >= LEAST_FILES && settled {
        // Without a place to keep it the next run lists again; this one has what it needs.
        let _ = keep(&file, &tree, &whole);
    }
    Ok((tree, false))
}

fn keep(file: &Path, tree: &Tree, whole: &Path) -> Result<()> {
    std::fs::create_dir_all(file.parent().unwrap_or(Path::new(".")))?;
    durable::replace(file, |out| encode(out, tree, whole))
}

/// FNV-1a of the path: the same on every machine and in every version.
fn file_name(whole: &Path) -> String {
    let hash = whole
        .as_os_str()
        .as_bytes()
        .iter()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, &byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
    format!("{hash:016x}")
}

/// Writes numbers and names, and their checksum as it goes.
struct Encoder<'a> {
    out: &'a mut dyn Write,
    checksum: crc32fast::Hasher,
}

impl Encoder<'_> {
    fn raw(&mut self, bytes: &[u8]) -> Result<()> {
        self.checksum.update(bytes);
        Ok(self.out.write_all(bytes)?)
    }

    fn number(&mut self, number: i64) -> Result<()> {
        self.raw(&number.to_le_bytes())
    }

    fn name(&mut self, name: &OsStr) -> Result<()> {
        self.number(name.len() as i64)?;
        self.raw(name.as_bytes())
    }
}

fn encode(out: &mut dyn Write, tree: &Tree, whole: &Path) -> Result<()> {
    let mut to = Encoder { out, checksum: crc32fast::Hasher::new() };
    to.raw(MAGIC)?;
    to.name(whole.as_os_str())?;
    to.number(tree.visited.len() as i64)?;
    for (directory, stamp) in &tree.visited {
        to.name(directory.as_os_str())?;
        for part in stamp.0 {
            to.number(part)?;
        }
    }
    to.number(tree.direct as i64)?;
    to.number(tree.classes.len() as i64)?;
    for (class, count) in &tree.classes {
        to.name(class)?;
        to.number(*count as i64)?;
    }
    let (names, lengths) = (tree.files.names(), tree.files.lengths());
    to.number(lengths.len() as i64)?;
    to.name(OsStr::from_bytes(names))?;
    let lengths: Vec<u8> = lengths.flat_map(|length| (length as u32).to_le_bytes()).collect();
    to.raw(&lengths)?;
    let checksum = to.checksum.finalize();
    Ok(out.write_all(&checksum.to_le_bytes())?)
}

/// What is left to read.
struct Decoder<'a>(&'a [u8]);

impl<'a> Decoder<'a> {
    fn raw(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }

    fn number(&mut self) -> Option<i64> {
        Some(i64::from_le_bytes(self.raw(8)?.try_into().ok()?))
    }

    fn count(&mut self) -> Option<usize> {
        usize::try_from(self.number()?).ok()
    }

    fn name(&mut self) -> Option<&'a [u8]> {
        let length = self.count()?;
        self.raw(length)
    }
}

/// The tree that an index holds, with `root` before its paths; `None` if it is damaged, of another tree, or out of
/// date.
fn decode(bytes: &[u8], root: &Path, whole: &Path) -> Option<Tree> {
    let (body, checksum) = bytes.split_at_checked(bytes.len().checked_sub(4)?)?;
    let mut from = Decoder(body);
    if from.raw(MAGIC.len())? != MAGIC || crc32fast::hash(body).to_le_bytes() != checksum {
        return None;
    }
    if from.name()? != whole.as_os_str().as_bytes() {
        return None;
    }
    let mut visited = Vec::new();
    for _ in 0..from.count()? {
        let directory = PathBuf::from(OsStr::from_bytes(from.name()?));
        let mut stamp = Stamp([0; 5]);
        for part in &mut stamp.0 {
            *part = from.number()?;
        }
        if Stamp::of(&root.join(&directory)).ok()? != stamp {
            return None;
        }
        visited.push((directory, stamp));
    }
    let direct = from.count()?;
    let mut classes = Vec::new();
    for _ in 0..from.count()? {
        classes.push((OsString::from_vec(from.name()?.to_vec()), from.count()?));
    }
    let files = from.count()?;
    let names = from.name()?.to_vec();
    let lengths = from.raw(files.checked_mul(4)?)?.chunks_exact(4);
    let lengths = lengths.map(|length| u32::from_le_bytes(length.try_into().expect("chunks of 4")) as usize);
    let files = FileList::from_names(root, names, lengths)?;
    let counted = classes.iter().try_fold(direct, |sum, (_, count)| sum.checked_add(*count))?;
    (counted == files.len() && from.0.is_empty()).then_some(Tree { files, direct, classes, visited })
}
