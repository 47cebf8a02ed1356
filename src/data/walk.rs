//! Listing directories of images: sorted, so that an index means the same image
//! on every machine, and parallel over classes.
//!
//! What counts as an image:
//! - A name with an extension of images is taken at its word, also where a dead link
//!   bears it: whoever reads it says what is wrong. A million names cost no look.
//! - Any other name is looked into, unless its extension is known as that of something else.
//! - Hidden entries are left out, and so is what the program wrote itself ([`own`]) and what
//!   operating systems leave behind. Apart from the hidden ones all that is passed over is counted by kind.
//!
//! Looking into every PNG of a large tree is too dear: of each directory the 32 whose
//! names are least like the others' are looked into, and where one of them is the program's
//! own, a thousand.

use super::decode;
use super::file_list::FileList;
use super::split::grouped;
use crate::digest::fnv1a;
use crate::{files, own};
use anyhow::{Context, Result, bail};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, HashMap};
use std::ffi::{OsStr, OsString};
use std::fs::FileType;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// Extensions of files that hold no image, or, as those of cameras' raw files, one that has to be developed first.
const OTHERS: &str = "txt csv tsv json jsonl xml html htm md rst yml yaml toml ini cfg conf log py pyc ipynb sh bat c h js css \
                      npy npz mat pkl pickle pt pth onnx safetensors h5 hdf5 parquet arrow tfrecord mdb db sqlite zip tar \
                      gz tgz bz2 xz 7z rar zst pdf doc docx xls xlsx ppt pptx mp4 m4v mov avi mkv webm mpg mpeg wmv mp3 wav \
                      flac svg ico lnk url exe dll tmp part crdownload xmp aae thm xcf dng cr2 cr3 crw nef nrw arw srw orf \
                      rw2 raf pef";
/// Directories that programs and operating systems leave behind.
const FOREIGN: [&str; 6] =
    ["__MACOSX", "lost+found", "@eaDir", "__pycache__", "$RECYCLE.BIN", "System Volume Information"];
/// Deeper trees are taken for a loop of symbolic links.
const MAX_DEPTH: usize = 32;
/// PNG files of a directory that are looked into, and where one of them is the program's own.
const LOOKED_INTO: [usize; 2] = [32, 1000];
/// A look at the beginning of a file; all formats show themselves in less.
const LOOK_BYTES: usize = 64;
const _: () = assert!(own::PICTURE_BYTES <= LOOK_BYTES);

/// What was passed over: of each kind how many, and the first of them. `(s)` and `(y)` in a kind stand where its plural
/// differs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PassedOver(BTreeMap<String, (usize, OsString)>);

impl PassedOver {
    fn add(&mut self, kind: &str, path: impl AsRef<OsStr>) {
        self.join(PassedOver(BTreeMap::from([(kind.to_owned(), (1, path.as_ref().to_owned()))])));
    }

    fn join(&mut self, others: PassedOver) {
        for (kind, (count, first)) in others.0 {
            let known = self.0.entry(kind).or_insert_with(|| (0, first.clone()));
            *known = (known.0 + count, first.min(std::mem::take(&mut known.1)));
        }
    }

    /// `passed over in DIR: 3 .txt files (a.txt, ...), 1 dead link (b/x)`; `None` where nothing was.
    pub fn sentence(&self, root: &Path) -> Option<String> {
        const KINDS: usize = 12;
        let one = |(kind, (count, first)): (&String, &(usize, OsString))| {
            let (s, y, more) = if *count == 1 { ("", "y", "") } else { ("s", "ies", ", ...") };
            let kind = kind.replace("(s)", s).replace("(y)", y);
            format!("{} {kind} ({}{more})", grouped(*count), first.display())
        };
        let mut kinds: Vec<String> = self.0.iter().take(KINDS).map(one).collect();
        let rest: usize = self.0.values().skip(KINDS).map(|(count, _)| count).sum();
        kinds.extend((rest > 0).then(|| format!("{} of other kinds", grouped(rest))));
        (!kinds.is_empty()).then(|| format!("passed over in {}: {}", root.display(), kinds.join(", ")))
    }
}

/// What one directory holds: image files and directories, each sorted by name.
#[derive(Default)]
pub struct Listing {
    pub images: Vec<OsString>,
    pub directories: Vec<OsString>,
    passed_over: PassedOver,
    /// It is one of the program's results.
    own: bool,
}

/// Lists the directory `below` a root, following symbolic links.
pub fn list(root: &Path, below: &Path) -> Result<Listing> {
    let directory = root.join(below);
    let (mut listing, mut config) = (Listing::default(), false);
    for entry in entries(&directory)? {
        let (name, kind) = entry?;
        let is_directory = kind.is_some_and(|kind| kind.is_dir());
        if is_directory && is_foreign(&name) {
            listing.passed_over.add(&format!("director(y) {}", name.display()), below.join(name));
        } else if is_directory {
            listing.directories.push(name);
        } else {
            config |= name == "config.yml";
            match content(&directory, &name, kind) {
                Content::Image => listing.images.push(name),
                Content::OwnPicture => listing.passed_over.add(OWN_PICTURES, below.join(name)),
                Content::Other if kind.is_none() => listing.passed_over.add("dead link(s)", below.join(name)),
                Content::Other => listing.passed_over.add(&kind_of(&name), below.join(name)),
            }
        }
    }
    listing.own = config && own::is_run(&directory);
    listing.images.sort_unstable();
    listing.directories.sort_unstable();
    leave_out_own_pictures(&mut listing, &directory, below);
    Ok(listing)
}

const OWN_PICTURES: &str = "picture(s) drawn by flatnce";

/// Names and kinds of what lies in a directory, unless hidden; links are followed, and one that leads nowhere has no kind.
fn entries(directory: &Path) -> Result<impl Iterator<Item = Result<(OsString, Option<FileType>)>>> {
    let unreadable = || format!("the directory {} cannot be read", directory.display());
    let entries = std::fs::read_dir(directory).with_context(unreadable)?;
    Ok(entries.filter_map(move |entry| {
        let named = |entry: std::fs::DirEntry| {
            let name = entry.file_name();
            if name.as_encoded_bytes().starts_with(b".") {
                return Ok(None);
            }
            // The kind comes with the name on usual file systems; only links cost a further look.
            let kind = entry.file_type()?;
            let followed = if kind.is_symlink() {
                std::fs::metadata(entry.path()).ok().map(|about| about.file_type())
            } else {
                Some(kind)
            };
            Ok(Some((name, followed)))
        };
        entry.and_then(named).with_context(unreadable).transpose()
    }))
}

fn has_extension(name: &OsStr, known: &str) -> bool {
    let extension = Path::new(name).extension();
    extension.is_some_and(|extension| known.split_ascii_whitespace().any(|known| extension.eq_ignore_ascii_case(known)))
}

fn promises_image(name: &OsStr) -> bool {
    Path::new(name).extension().is_some_and(|extension| decode::promises_image(extension.as_encoded_bytes()))
}

/// What a file without an image is counted as.
fn kind_of(name: &OsStr) -> String {
    match Path::new(name).extension().and_then(OsStr::to_str) {
        None => "file(s) without extension".to_owned(),
        Some(extension) if extension.len() <= 8 && extension.bytes().all(|byte| byte.is_ascii_alphanumeric()) => {
            format!(".{} file(s)", extension.to_ascii_lowercase())
        }
        Some(_) => "file(s) of other kinds".to_owned(),
    }
}

fn is_foreign(name: &OsStr) -> bool {
    FOREIGN.iter().any(|foreign| name == *foreign)
}

/// What is in a file, or in what a link leads to, if it leads anywhere.
fn content(directory: &Path, name: &OsStr, kind: Option<FileType>) -> Content {
    if promises_image(name) {
        Content::Image
    } else if kind.is_some_and(|kind| kind.is_file()) && !has_extension(name, OTHERS) {
        look(&directory.join(name))
    } else {
        Content::Other
    }
}

enum Content {
    Image,
    OwnPicture,
    Other,
}

/// Looks at the beginning of a file. One that cannot be opened, and does not promise an image, is none.
fn look(path: &Path) -> Content {
    let mut beginning = Vec::with_capacity(LOOK_BYTES);
    let read = files::open(path).and_then(|file| file.take(LOOK_BYTES as u64).read_to_end(&mut beginning));
    match read {
        Ok(_) if own::is_picture(&beginning) => Content::OwnPicture,
        Ok(_) if decode::is_read(&beginning) || decode::is_unread_image(&beginning) => Content::Image,
        _ => Content::Other,
    }
}

/// Takes the program's own pictures out of the images.
fn leave_out_own_pictures(listing: &mut Listing, directory: &Path, below: &Path) {
    let mut odd = odd_ones(listing.images.iter().filter(|name| has_extension(name, "png")));
    let is_own = |name: &&OsString| matches!(look(&directory.join(name)), Content::OwnPicture);
    if !odd.iter().take(LOOKED_INTO[0]).any(is_own) {
        return;
    }
    odd.truncate(LOOKED_INTO[1]);
    for name in odd.into_iter().filter(is_own).cloned().collect::<Vec<_>>() {
        listing.images.retain(|other| *other != name);
        listing.passed_over.add(OWN_PICTURES, below.join(name));
    }
}

/// The names, those that are least like the others first: of another length, or, with every number alike, of other
/// letters.
fn odd_ones<'a>(names: impl Iterator<Item = &'a OsString>) -> Vec<&'a OsString> {
    // The name with a zero for every number.
    let shape = |name: &OsString| {
        let mut digit = false;
        fnv1a(name.as_encoded_bytes().iter().filter_map(|&byte| {
            let again = std::mem::replace(&mut digit, byte.is_ascii_digit()) && digit;
            (!again).then_some(if digit { b'0' } else { byte })
        }))
    };
    let mut names: Vec<&OsString> = names.collect();
    if names.len() > LOOKED_INTO[0] {
        let (mut shapes, mut lengths) = (HashMap::new(), HashMap::new());
        for name in &names {
            *shapes.entry(shape(name)).or_insert(0) += 1;
            *lengths.entry(name.len()).or_insert(0) += 1;
        }
        names.sort_by_cached_key(|name| (shapes[&shape(name)].max(lengths[&name.len()]), *name));
    }
    names
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

/// Hands what tells a file of many images from others to `hash`: its name, size and times. Its content is not read.
pub fn file_fingerprint(path: &Path, hash: &mut dyn FnMut(&[u8])) -> Result<()> {
    let about = std::fs::metadata(path).with_context(|| format!("cannot read {}", path.display()))?;
    hash(path.file_name().unwrap_or_default().as_encoded_bytes());
    hash(format!("\0{} {:?}\n", about.len(), Stamp::of_metadata(&about)).as_bytes());
    Ok(())
}

/// Images found below a root, and the directories that were looked through: paths relative to the root.
struct Found {
    files: FileList,
    classes: Vec<(OsString, usize)>,
    visited: Vec<(OsString, Stamp)>,
    passed_over: PassedOver,
}

impl Found {
    fn new(root: &Path) -> Found {
        let files = FileList::new(root);
        Found { files, classes: Vec::new(), visited: Vec::new(), passed_over: PassedOver::default() }
    }

    /// Adds the images in `below` itself and gives its directories. The stamp is older than the listing, so that
    /// a change during it shows.
    fn look_into(&mut self, below: &Path) -> Result<Vec<OsString>> {
        let root = self.files.root();
        let directory = root.join(below);
        let stamp =
            Stamp::of(&directory).with_context(|| format!("the directory {} cannot be read", directory.display()))?;
        let listing = list(root, below)?;
        let inside = !below.as_os_str().is_empty();
        if inside && listing.own {
            // Its checkpoints come and go, which changes nothing of the images.
            self.passed_over.add("director(y) of flatnce's results", below);
            return Ok(Vec::new());
        }
        self.visited.push((below.into(), stamp));
        self.passed_over.join(listing.passed_over);
        if inside && !listing.images.is_empty() {
            self.classes.push((below.into(), listing.images.len()));
        }
        if inside && listing.images.is_empty() && listing.directories.is_empty() {
            self.passed_over.add("director(y) without images", below);
        }
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

    fn below(root: &Path, name: &OsString) -> Result<Found> {
        let mut found = Found::new(root);
        found.collect(Path::new(name), 1)?;
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
    /// The directories below it that hold images, relative to it, and how many each; in the order of the images.
    pub classes: Vec<(OsString, usize)>,
    /// Every directory that was read, relative to the root (`""` is the root), as it was before.
    pub visited: Vec<(OsString, Stamp)>,
    pub passed_over: PassedOver,
}

/// Lists `root` and everything below it, in parallel over its subdirectories.
///
/// Errors: a directory that cannot be read, a loop of links.
pub fn tree(root: &Path) -> Result<Tree> {
    let mut all = Found::new(root);
    let names = all.look_into(Path::new(""))?;
    let direct = all.files.len();
    let parts: Result<Vec<Found>> = names.par_iter().map(|name| Found::below(root, name)).collect();
    // Each part is freed as it is joined.
    for part in parts? {
        all.files.append(&part.files);
        all.classes.extend(part.classes);
        all.visited.extend(part.visited);
        all.passed_over.join(part.passed_over);
    }
    let Found { files, classes, visited, passed_over } = all;
    Ok(Tree { files, direct, classes, visited, passed_over })
}

/// Whether images lie below a directory; `Some(true)`: in it itself. It stops at the first one.
///
/// Errors: as [`tree`].
pub fn holds_images(directory: &Path) -> Result<Option<bool>> {
    holds_images_within(directory, MAX_DEPTH)
}

/// The same, looking into at most so many directories below each other.
pub fn holds_images_within(directory: &Path, most: usize) -> Result<Option<bool>> {
    /// How many directories further down the first image lies.
    fn first(directory: &Path, depth: usize, most: usize) -> Result<Option<usize>> {
        if own::is_run(directory) || depth > most {
            return Ok(None);
        }
        let mut directories = Vec::new();
        for entry in entries(directory)? {
            let (name, kind) = entry?;
            if kind.is_some_and(|kind| kind.is_dir()) {
                directories.push(name);
            } else if matches!(content(directory, &name, kind), Content::Image)
                && !(has_extension(&name, "png") && matches!(look(&directory.join(&name)), Content::OwnPicture))
            {
                return Ok(Some(depth));
            }
        }
        directories.retain(|name| !is_foreign(name));
        directories.sort_unstable();
        let inner = directories.iter().map(|name| first(&directory.join(name), depth + 1, most));
        inner.filter_map(Result::transpose).next().transpose()
    }
    Ok(first(directory, 0, most)?.map(|depth| depth == 0))
}

/// The names of the directories in `directory`, sorted, without those that [`tree`] passes over by their names.
pub fn directories(directory: &Path) -> Result<Vec<OsString>> {
    let mut names = Vec::new();
    for entry in entries(directory)? {
        let (name, kind) = entry?;
        if kind.is_some_and(|kind| kind.is_dir()) && !is_foreign(&name) {
            names.push(name);
        }
    }
    names.sort_unstable();
    Ok(names)
}

/// The name of a class directory as text.
///
/// Errors: it is not UTF-8.
pub fn class_name(directory: &Path, name: &OsStr) -> Result<String> {
    name.to_str()
        .map(str::to_owned)
        .with_context(|| format!("the directory {} has a name that is not UTF-8", directory.join(name).display()))
}
