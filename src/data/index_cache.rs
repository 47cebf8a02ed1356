//! The list of a large tree's images, or of those in shards, kept from one run to the next.
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
//! has gone that way is missed when it is read. Nor is what lies in a file whose
//! name does not say whether it is an image.

use super::file_list::FileList;
use super::walk::{self, Stamp, Tree};
use crate::digest::fnv1a;
use crate::durable;
use crate::files;
use anyhow::Result;
use serde::{Deserialize, Serialize};
use std::ffi::OsString;
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

/// First bytes of the file; the number is the version of what follows.
const MAGIC: &[u8; 16] = b"flatnce index 3\n";
/// Smaller trees are listed faster than anybody notices.
const LEAST_FILES: usize = 10_000;
/// Of the index of some forty million images.
pub(super) const LARGEST_BYTES: u64 = 2 << 30;
/// A directory that changed this recently may change again without its times moving on: clocks of file systems
/// are coarse, up to two seconds.
const SETTLED_SECONDS: i64 = 3;

/// Where the indexes lie: `$XDG_CACHE_HOME/flatnce/index`, else below `~/.cache`; `None` when turned off or without
/// a home.
pub(super) fn directory() -> Option<PathBuf> {
    if std::env::var_os("FLATNCE_INDEX_CACHE").is_some_and(|value| value == "off") {
        return None;
    }
    let set = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let cache = set("XDG_CACHE_HOME").or_else(|| Some(set("HOME")?.join(".cache")))?;
    Some(cache.join("flatnce/index"))
}

/// Everything below a directory, from the index of an earlier run when nothing has changed.
pub fn indexed(root: &Path) -> Result<Tree> {
    Ok(indexed_in(root, directory().as_deref())?.0)
}

/// The images below `root`, listed or from the index that lies in `cache`; true if it came from there.
///
/// Errors: a directory that cannot be read, a loop of links. An index that cannot
/// be read or written is none.
pub fn indexed_in(root: &Path, cache: Option<&Path>) -> Result<(Tree, bool)> {
    // One tree has one index, however its path was typed.
    let Some((file, whole)) = cache.and_then(|cache| {
        let whole = root.canonicalize().ok()?;
        Some((cache.join(file_name(whole.as_os_str().as_bytes())), whole))
    }) else {
        return Ok((walk::tree(root)?, false));
    };
    if let Some(tree) = files::read(&file, LARGEST_BYTES).ok().and_then(|bytes| decode(&bytes, root, &whole)) {
        return Ok((tree, true));
    }
    let before = now();
    let tree = walk::tree(root)?;
    if is_worth_keeping(tree.files.len(), tree.visited.iter().map(|(_, stamp)| *stamp), before) {
        // Without a place to keep it the next run lists again; this one has what it needs.
        let _ = keep(&file, |out| seal(out, &(whole.as_os_str(), &tree), &[tree.files.names()]));
    }
    Ok((tree, false))
}

/// Seconds since 1970.
pub(super) fn now() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs() as i64)
}

/// Whether there are enough files, and none of what holds them has changed shortly before `before`.
pub(super) fn is_worth_keeping(count: usize, mut stamps: impl Iterator<Item = Stamp>, before: i64) -> bool {
    count >= LEAST_FILES && stamps.all(|stamp| stamp.seconds() + SETTLED_SECONDS <= before)
}

pub(super) fn keep(file: &Path, write: impl FnOnce(&mut dyn Write) -> Result<()>) -> Result<()> {
    std::fs::create_dir_all(file.parent().unwrap_or(Path::new(".")))?;
    durable::replace(file, |out| write(out))
}

/// Of what lies at a path, or at several.
pub(super) fn file_name(whole: &[u8]) -> String {
    format!("{:016x}", fnv1a(whole.iter().copied()))
}

/// Writes the magic bytes, a line of JSON, what stands behind it, and a checksum.
pub(super) fn seal(out: &mut dyn Write, head: &impl Serialize, parts: &[&[u8]]) -> Result<()> {
    let mut line = MAGIC.to_vec();
    serde_json::to_writer(&mut line, head)?;
    line.push(b'\n');
    let mut checksum = crc32fast::Hasher::new();
    for part in std::iter::once(line.as_slice()).chain(parts.iter().copied()) {
        checksum.update(part);
        out.write_all(part)?;
    }
    Ok(out.write_all(&checksum.finalize().to_le_bytes())?)
}

/// What was sealed: the JSON, and what stands behind it; `None` if it is damaged or of another kind.
pub(super) fn unseal<'a, Head: Deserialize<'a>>(bytes: &'a [u8]) -> Option<(Head, &'a [u8])> {
    let (body, checksum) = bytes.split_at_checked(bytes.len().checked_sub(4)?)?;
    if crc32fast::hash(body).to_le_bytes() != checksum {
        return None;
    }
    let body = body.strip_prefix(MAGIC)?;
    // JSON has no line break of its own here.
    let (head, rest) = body.split_at_checked(body.iter().position(|byte| *byte == b'\n')? + 1)?;
    Some((serde_json::from_slice(head).ok()?, rest))
}

/// The tree that an index holds, with `root` before its paths; `None` if it is damaged, of another tree, or out of
/// date.
fn decode(bytes: &[u8], root: &Path, whole: &Path) -> Option<Tree> {
    let ((of, tree), names): ((OsString, Tree), &[u8]) = unseal(bytes)?;
    let fresh =
        |(directory, stamp): &(OsString, Stamp)| Stamp::of(&root.join(directory)).is_ok_and(|now| now == *stamp);
    if Path::new(&of) != whole || !tree.visited.iter().all(fresh) {
        return None;
    }
    let files = FileList::from_names(root, names.to_vec());
    let counted = tree.classes.iter().try_fold(tree.direct, |sum, (_, count)| sum.checked_add(*count))?;
    (counted == files.len()).then_some(Tree { files, ..tree })
}
