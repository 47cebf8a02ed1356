//! Listing directories of images: sorted, so that an index means the same image
//! on every machine, and parallel over classes.

use super::file_list::FileList;
use anyhow::{Context, Result, bail};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use std::ffi::OsString;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// Extensions of images that are read, in any case; the content decides which of the two it is.
const READ: [&str; 3] = ["jpg", "jpeg", "png"];
/// Extensions of images that are not read: leaving them out in silence would change the data set.
const NOT_READ: [&str; 9] = ["gif", "bmp", "webp", "tif", "tiff", "ppm", "pgm", "heic", "avif"];
/// Deeper trees are taken for a loop of symbolic links.
const MAX_DEPTH: usize = 32;

/// What one directory holds: image files and directories, each sorted by name. Hidden entries are left out.
#[derive(Default)]
pub struct Listing {
    pub images: Vec<OsString>,
    pub directories: Vec<OsString>,
}

/// Lists one directory, following symbolic links.
pub fn list(directory: &Path) -> Result<Listing> {
    let unreadable = || format!("the directory {} cannot be read", directory.display());
    let mut listing = Listing::default();
    for entry in std::fs::read_dir(directory).with_context(unreadable)? {
        let entry = entry.with_context(unreadable)?;
        let name = entry.file_name();
        if name.as_encoded_bytes().starts_with(b".") {
            continue;
        }
        // The kind comes with the name on usual file systems; only links cost a further look.
        let mut kind = entry.file_type().with_context(unreadable)?;
        if kind.is_symlink() {
            let target = std::fs::metadata(entry.path());
            kind = target.with_context(|| format!("the link {} leads nowhere", entry.path().display()))?.file_type();
        }
        if kind.is_dir() {
            listing.directories.push(name);
        } else if has_extension(&name, &READ) {
            listing.images.push(name);
        } else if has_extension(&name, &NOT_READ) {
            bail!("{} is an image that is not read: convert it to JPEG or PNG, or remove it", entry.path().display());
        }
    }
    listing.images.sort_unstable();
    listing.directories.sort_unstable();
    Ok(listing)
}

fn has_extension(name: &OsString, extensions: &[&str]) -> bool {
    let extension = Path::new(name).extension();
    extension.is_some_and(|extension| extensions.iter().any(|known| extension.eq_ignore_ascii_case(known)))
}

/// When a directory was last changed (content and metadata, seconds and nanoseconds each), and its inode. Another
/// stamp means that entries may have come, gone or been renamed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stamp(pub [i64; 5]);

impl Stamp {
    /// Errors: the directory is not there or cannot be looked at.
    pub fn of(directory: &Path) -> std::io::Result<Stamp> {
        Ok(Stamp::of_metadata(&std::fs::metadata(directory)?))
    }

    pub fn of_metadata(facts: &std::fs::Metadata) -> Stamp {
        let inode = facts.ino().cast_signed();
        Stamp([facts.mtime(), facts.mtime_nsec(), facts.ctime(), facts.ctime_nsec(), inode])
    }

    /// The later of its two times, in whole seconds since 1970.
    pub fn seconds(self) -> i64 {
        self.0[0].max(self.0[2])
    }
}

/// Images found below a root, and the directories that were looked through: paths relative to the root.
struct Found {
    files: FileList,
    visited: Vec<(OsString, Stamp)>,
}

impl Found {
    fn new(root: &Path) -> Found {
        Found { files: FileList::new(root), visited: Vec::new() }
    }

    /// Adds the images in `below` itself and gives its directories. The stamp is older than the listing, so that
    /// a change during it shows.
    fn look_into(&mut self, below: &Path) -> Result<Vec<OsString>> {
        let directory = self.files.root().join(below);
        let stamp =
            Stamp::of(&directory).with_context(|| format!("the directory {} cannot be read", directory.display()))?;
        self.visited.push((below.into(), stamp));
        let listing = list(&directory)?;
        for name in &listing.images {
            self.files.push(&below.join(name));
        }
        Ok(listing.directories)
    }

    /// Adds `below` and everything below it.
    fn collect(&mut self, below: &Path, depth: usize) -> Result<()> {
        if depth > MAX_DEPTH {
            let directory = self.files.root().join(below);
            bail!("{} is {MAX_DEPTH} directories deep: is there a loop of links?", directory.display());
        }
        for name in self.look_into(below)? {
            self.collect(&below.join(name), depth + 1)?;
        }
        Ok(())
    }

    fn below(root: &Path, class: &OsString) -> Result<Found> {
        let mut found = Found::new(root);
        found.collect(Path::new(class), 1)?;
        Ok(found)
    }
}

/// Everything below one directory: its own images, then those of its subdirectories, one after the other.
#[derive(Serialize, Deserialize)]
pub struct Tree {
    #[serde(skip)]
    pub files: FileList,
    /// So many images lie in the directory itself; they come first.
    pub direct: usize,
    /// The subdirectories by name, sorted, and how many images are in and below each.
    pub classes: Vec<(OsString, usize)>,
    /// Every directory that was read, relative to the root (`""` is the root), as it was before.
    pub visited: Vec<(OsString, Stamp)>,
}

/// Lists `root` and everything below it, in parallel over its subdirectories.
///
/// Errors: a directory that cannot be read, an image of a kind that is not read, a loop of links.
pub fn tree(root: &Path) -> Result<Tree> {
    let mut all = Found::new(root);
    let names = all.look_into(Path::new(""))?;
    let direct = all.files.len();
    let parts: Result<Vec<Found>> = names.par_iter().map(|name| Found::below(root, name)).collect();
    let mut classes = Vec::with_capacity(names.len());
    // Each part is freed as it is joined.
    for (name, part) in names.into_iter().zip(parts?) {
        classes.push((name, part.files.len()));
        all.files.append(&part.files);
        all.visited.extend(part.visited);
    }
    Ok(Tree { files: all.files, direct, classes, visited: all.visited })
}

/// The names of the directories in `directory`, sorted: the classes of a tree.
pub fn class_names(directory: &Path) -> Result<Vec<String>> {
    list(directory)?.directories.into_iter().map(|name| class_name(directory, name)).collect()
}

/// The name of a class directory as text.
///
/// Errors: it is not UTF-8.
pub fn class_name(directory: &Path, name: OsString) -> Result<String> {
    name.into_string().map_err(|name| {
        anyhow::anyhow!("the directory {} has a name that is not UTF-8", directory.join(name).display())
    })
}
