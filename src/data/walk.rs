//! Listing directories of images: sorted, so that an index means the same image
//! on every machine, and parallel over classes.

use super::file_list::FileList;
use anyhow::{Context, Result, bail};
use rayon::prelude::*;
use std::ffi::OsString;
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

/// All images in `root`/`below` and its subdirectories, as paths relative to `root`.
pub fn images_below(root: &Path, below: &Path) -> Result<FileList> {
    let mut files = FileList::new(root);
    collect(root, below, 0, &mut files)?;
    Ok(files)
}

fn collect(root: &Path, below: &Path, depth: usize, files: &mut FileList) -> Result<()> {
    if depth > MAX_DEPTH {
        bail!("{} is {MAX_DEPTH} directories deep: is there a loop of links?", root.join(below).display());
    }
    let listing = list(&root.join(below))?;
    for name in &listing.images {
        files.push(&below.join(name));
    }
    for name in &listing.directories {
        collect(root, &below.join(name), depth + 1, files)?;
    }
    Ok(())
}

/// The names of the directories in `directory`, sorted: the classes of a tree.
pub fn class_names(directory: &Path) -> Result<Vec<String>> {
    let names = list(directory)?.directories;
    let text = |name: OsString| {
        name.into_string().map_err(|name| {
            anyhow::anyhow!("the directory {} has a name that is not UTF-8", directory.join(name).display())
        })
    };
    names.into_iter().map(text).collect()
}

/// The images of each class directory, in the order of `classes` and indexed in parallel.
pub fn images_by_class(root: &Path, classes: &[String]) -> Result<Vec<FileList>> {
    classes.par_iter().map(|class| images_below(root, Path::new(class))).collect()
}

/// Joins one list per class into one, with a label per file.
pub fn join(root: &Path, lists: &[(i64, FileList)]) -> (FileList, Vec<i64>) {
    let mut files = FileList::new(root);
    let mut labels = Vec::with_capacity(lists.iter().map(|(_, list)| list.len()).sum());
    for (label, list) in lists {
        files.append(list);
        labels.resize(files.len(), *label);
    }
    (files, labels)
}
