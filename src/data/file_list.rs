//! Many file names in little memory.
//!
//! ImageNet has 1.28 million files; a `PathBuf` each would take 150 MB and as
//! many allocations. Here the names, relative to one root, lie in one block:
//! about 50 MB.

use super::decode::{BadImage, MAX_BYTES};
use super::images::{Images, Stored};
use crate::files;
use crate::state::DataMarks;
use anyhow::{Context, Result};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::UNIX_EPOCH;

/// Files whose sizes count for [`Images::marks`].
const SIZES_ASKED: usize = 4096;

/// Paths of files, relative to one root.
#[derive(Clone, Debug, Default)]
pub struct FileList {
    root: PathBuf,
    /// All names, one after the other, each with a zero behind it, which no name holds.
    names: Vec<u8>,
    /// Where each name ends in `names`.
    ends: Vec<usize>,
}

impl FileList {
    pub fn new(root: impl Into<PathBuf>) -> Self {
        FileList { root: root.into(), ..FileList::default() }
    }

    /// Adds a file by its path relative to the root.
    pub fn push(&mut self, relative: &Path) {
        self.names.extend_from_slice(relative.as_os_str().as_bytes());
        self.ends.push(self.names.len());
        self.names.push(0);
    }

    /// Adds all files of `other`, which must have the same root.
    pub fn append(&mut self, other: &FileList) {
        assert_eq!(self.root, other.root, "lists with different roots cannot be joined");
        let offset = self.names.len();
        self.names.extend_from_slice(&other.names);
        self.ends.extend(other.ends.iter().map(|end| offset + end));
    }

    /// Adds all files of `other`, whose root must lie below this one's or be the same.
    pub(super) fn append_below(&mut self, other: &FileList) {
        let between = other.root.strip_prefix(&self.root).expect("a list below this one").to_owned();
        for index in 0..other.len() {
            self.push(&between.join(other.relative(index)));
        }
    }

    /// The list whose [`FileList::names`] these are.
    pub(super) fn from_names(root: &Path, names: Vec<u8>) -> Self {
        let ends = names.iter().enumerate().filter(|(_, byte)| **byte == 0).map(|(at, _)| at).collect();
        FileList { root: root.to_owned(), names, ends }
    }

    /// All names, one after the other, each with a zero behind it.
    pub(super) fn names(&self) -> &[u8] {
        &self.names
    }

    /// The files from number `first` on.
    pub(super) fn starting_at(self, first: usize) -> FileList {
        if first == 0 { self } else { self.subset(&(first..self.len()).collect::<Vec<_>>()) }
    }

    pub fn len(&self) -> usize {
        self.ends.len()
    }

    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    pub fn root(&self) -> &Path {
        &self.root
    }

    /// File `index`, relative to the root. Panics beyond the last one.
    pub fn relative(&self, index: usize) -> &Path {
        let start = if index == 0 { 0 } else { self.ends[index - 1] + 1 };
        Path::new(OsStr::from_bytes(&self.names[start..self.ends[index]]))
    }

    /// File `index` with the root before it.
    pub fn path(&self, index: usize) -> PathBuf {
        self.root.join(self.relative(index))
    }

    /// The files at `indices`, in that order.
    pub fn subset(&self, indices: &[usize]) -> FileList {
        let mut list = FileList::new(self.root.clone());
        for &index in indices {
            list.push(self.relative(index));
        }
        list
    }

    /// Bytes of memory that the names take.
    pub fn memory_bytes(&self) -> usize {
        self.names.capacity() + self.ends.capacity() * size_of::<usize>()
    }
}

impl Images for FileList {
    fn count(&self) -> usize {
        self.len()
    }

    fn stored(&self, index: usize) -> Result<Stored<'_>, BadImage> {
        let path = self.path(index);
        match files::read(&path, MAX_BYTES) {
            Ok(bytes) => Ok(Stored::Encoded(bytes.into())),
            Err(error) => Err(BadImage { path, reason: error.to_string() }),
        }
    }

    fn beginning(&self, index: usize, bytes: usize) -> Result<Stored<'_>, BadImage> {
        let path = self.path(index);
        match files::beginning(&path, bytes, MAX_BYTES) {
            Ok(bytes) => Ok(Stored::Encoded(bytes.into())),
            Err(error) => Err(BadImage { path, reason: error.to_string() }),
        }
    }

    fn place(&self, index: usize) -> PathBuf {
        self.path(index)
    }

    fn subset(&self, indices: &[usize]) -> Arc<dyn Images> {
        Arc::new(self.subset(indices))
    }

    fn describe(&self) -> String {
        format!("image files under {}", self.root.display())
    }

    /// Names, sizes and times: the pixels are not read. The time of a change counts too, which nobody can set.
    fn fingerprint(&self, hash: &mut dyn FnMut(&[u8])) -> Result<()> {
        for index in 0..self.len() {
            let path = self.path(index);
            let about = std::fs::metadata(&path).with_context(|| format!("cannot read {}", path.display()))?;
            let changed = about.modified().unwrap_or(UNIX_EPOCH).duration_since(UNIX_EPOCH).unwrap_or_default();
            hash(self.relative(index).as_os_str().as_bytes());
            let noticed = [about.ctime(), about.ctime_nsec()];
            hash(format!("\0{} {} {noticed:?}", about.len(), changed.as_nanos()).as_bytes());
        }
        Ok(())
    }

    /// Asking a million files for their sizes takes a file server minutes: of more than `SIZES_ASKED` files so many,
    /// spread evenly, are asked, which is enough to notice that all of them have been written anew.
    fn marks(&self) -> DataMarks {
        let (count, mut sizes) = (self.len(), crc32fast::Hasher::new());
        for asked in 0..count.min(SIZES_ASKED) {
            let path = self.path(if count > SIZES_ASKED { asked * count / SIZES_ASKED } else { asked });
            // One that is not there is missed when it is read.
            let bytes = std::fs::metadata(path).map_or(u64::MAX, |about| about.len());
            sizes.update(&bytes.to_le_bytes());
        }
        DataMarks { names: crc32fast::hash(&self.names), sizes: sizes.finalize(), ..DataMarks::default() }
    }

    fn file_name(&self, index: usize) -> Option<&Path> {
        Some(self.relative(index))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_come_back_as_they_went_in() {
        let odd = OsStr::from_bytes(b"b/\xff odd.JPG");
        let mut list = FileList::new("/root");
        list.push(Path::new("a/one.png"));
        let mut more = FileList::new("/root");
        more.push(Path::new(odd));
        more.push(Path::new("c"));
        list.append(&more);
        assert_eq!(list.len(), 3);
        assert_eq!(list.path(0), Path::new("/root/a/one.png"));
        assert_eq!(list.relative(1), Path::new(odd));
        assert_eq!(list.subset(&[2, 0]).relative(0), Path::new("c"));
    }

    #[test]
    fn an_image_in_the_place_of_another_is_seen() {
        let place = tempfile::tempdir().unwrap();
        let file = place.path().join("a.png");
        std::fs::write(&file, b"one").unwrap();
        let written = std::fs::metadata(&file).unwrap().modified().unwrap();
        let mut list = FileList::new(place.path());
        list.push(Path::new("a.png"));
        let fingerprint = || {
            let mut all = Vec::new();
            list.fingerprint(&mut |bytes| all.extend_from_slice(bytes)).unwrap();
            all
        };
        let before = fingerprint();
        assert_eq!(before, fingerprint());
        // Of the same length, and as old as it: the clock of the file system has to move on first.
        while fingerprint() == before {
            std::fs::write(&file, b"two").unwrap();
            std::fs::File::options().append(true).open(&file).unwrap().set_modified(written).unwrap();
        }
    }

    #[test]
    fn imagenet_fits_in_a_quarter_of_a_gigabyte() {
        let mut list = FileList::new("/data/imagenet/train");
        for index in 0..1_281_167u32 {
            list.push(Path::new(&format!("n{:08}/n{:08}_{}.JPEG", index / 1300, index / 1300, index % 20_000)));
        }
        assert!(list.memory_bytes() < 250 << 20, "{} bytes", list.memory_bytes());
        assert_eq!(list.relative(1_281_166), Path::new("n00000985/n00000985_1166.JPEG"));
    }
}
