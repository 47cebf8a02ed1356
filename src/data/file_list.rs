//! Many file names in little memory.
//!
//! ImageNet has 1.28 million files; a `PathBuf` each would take 150 MB and as
//! many allocations. Here the names, relative to one root, lie in one block:
//! about 50 MB.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// Paths of files, relative to one root.
#[derive(Clone, Debug)]
pub struct FileList {
    root: PathBuf,
    /// All names, one after the other.
    names: Vec<u8>,
    /// Where each name ends in `names`.
    ends: Vec<usize>,
}

impl FileList {
    pub fn new(root: impl Into<PathBuf>) -> Self {
        FileList { root: root.into(), names: Vec::new(), ends: Vec::new() }
    }

    /// Adds a file by its path relative to the root.
    pub fn push(&mut self, relative: &Path) {
        self.names.extend_from_slice(relative.as_os_str().as_bytes());
        self.ends.push(self.names.len());
    }

    /// Adds all files of `other`, which must have the same root.
    pub fn append(&mut self, other: &FileList) {
        assert_eq!(self.root, other.root, "lists with different roots cannot be joined");
        let offset = self.names.len();
        self.names.extend_from_slice(&other.names);
        self.ends.extend(other.ends.iter().map(|end| offset + end));
    }

    /// All names as one block, of files whose names have the given `lengths`; `None` if these do not add up to it.
    pub(super) fn from_names(
        root: impl Into<PathBuf>,
        names: Vec<u8>,
        lengths: impl ExactSizeIterator<Item = usize>,
    ) -> Option<Self> {
        let mut ends = Vec::with_capacity(lengths.len());
        let mut end = 0usize;
        for length in lengths {
            end = end.checked_add(length)?;
            ends.push(end);
        }
        (end == names.len()).then_some(FileList { root: root.into(), names, ends })
    }

    /// All names, one after the other.
    pub(super) fn names(&self) -> &[u8] {
        &self.names
    }

    /// How long each name is in [`FileList::names`], in bytes.
    pub(super) fn lengths(&self) -> impl ExactSizeIterator<Item = usize> {
        let mut start = 0;
        self.ends.iter().map(move |&end| end - std::mem::replace(&mut start, end))
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
        let start = if index == 0 { 0 } else { self.ends[index - 1] };
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
    fn imagenet_fits_in_a_quarter_of_a_gigabyte() {
        let mut list = FileList::new("/data/imagenet/train");
        for index in 0..1_281_167u32 {
            list.push(Path::new(&format!("n{:08}/n{:08}_{}.JPEG", index / 1300, index / 1300, index % 20_000)));
        }
        assert!(list.memory_bytes() < 250 << 20, "{} bytes", list.memory_bytes());
        assert_eq!(list.relative(1_281_166), Path::new("n00000985/n00000985_1166.JPEG"));
    }
}
