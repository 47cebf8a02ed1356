//! Images in uncompressed tar archives, as WebDataset packs them: shards.
//!
//! `--data` is a pattern, an archive, or a directory of them. Every archive is gone through once for names and places
//! (`index`, over `archive`), which is kept from one run to the next; images are then read at random by their place, so
//! that an epoch is shuffled over all shards and is continued exactly. `places` says which shards belong to a part,
//! `labels` what their classes are.

mod archive;
mod index;
mod labels;
mod places;

// Where it is used depends on the features.
#[cfg_attr(not(feature = "parquet"), allow(unused_imports, reason = "parquet files are meant by patterns too"))]
pub use places::matching;

use super::decode::BadImage;
use super::file_list::FileList;
use super::images::{Images, Stored};
use super::protocol::OWN_IMAGES;
use super::walk::{Stamp, file_fingerprint};
use super::{Part, Source, Split, grouped, index_cache};
use crate::config::{DataConfig, DatasetName, Labels};
use crate::files;
use crate::state::DataMarks;
use anyhow::{Result, bail};
use index::Index;
use labels::{ClassFile, Classes};
use std::borrow::Cow;
use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

pub static SHARDS: Source = Source {
    name: DatasetName::Shards,
    protocol: OWN_IMAGES,
    classes: None,
    homes: &[""],
    several_roots: true,
    how_to_get: "give tar archives of images with --data 'DIR/train-*.tar'; `flatnce pack` makes them",
    load: |_, data, part| load(data, part, index_cache::directory().as_deref()),
};

fn load(data: &DataConfig, part: Part, cache: Option<&Path>) -> Result<Split> {
    let roots: Vec<&Path> = data.roots().map(PathBuf::as_path).collect();
    let found = places::shards(&roots)?;
    let chosen = places::of_part(&found, part)?;
    let index = Index::of(&chosen.shards, cache)?;
    if index.len() == 0 {
        let passed = labels::passed_over(&index.passed).map_or(String::new(), |passed| format!(" ({passed})"));
        bail!("{} holds no image{passed}", described(&chosen.shards));
    }
    let mut notes = chosen.notes;
    notes.extend(labels::passed_over(&index.passed));
    let labelled = match labels::texts(&index, data.labels, &mut notes)? {
        Some(texts) => {
            let classes = classes(&texts, &index, &chosen.shards, &found, (data.labels, part), cache, &mut notes)?;
            Some((texts.labels(&classes, &index)?, classes.names))
        }
        None => None,
    };
    let (name, images) = (SHARDS.part_name(chosen.word), Shards::of(index));
    let split = match labelled {
        Some((labels, classes)) => Split::labelled(images, labels, classes, name),
        None => Split::unlabelled(images, name),
    };
    Ok(Split { notes, ..split })
}

/// The classes by the file that names them, else those of the training part.
fn classes(
    texts: &labels::Texts,
    index: &Index,
    shards: &[PathBuf],
    found: &[PathBuf],
    (asked, part): (Option<Labels>, Part),
    cache: Option<&Path>,
    notes: &mut Vec<String>,
) -> Result<Classes> {
    if let Some(file) = ClassFile::beside(shards)? {
        if let Some(classes) = texts.listed(&file, index)? {
            return Ok(classes);
        }
        notes.push(format!("{} is passed over: its lines are not the labels of the images", file.path().display()));
    }
    if part == Part::Test
        && let Ok(train) = places::of_part(found, Part::Train)
    {
        let train = Index::of(&train.shards, cache)?;
        if let Some(texts) = labels::texts(&train, asked, &mut Vec::new())? {
            return Ok(texts.classes(&train));
        }
    }
    Ok(texts.classes(index))
}

/// Shards in a few words.
fn described(shards: &[PathBuf]) -> String {
    match shards {
        [] => "no shard".to_owned(),
        [one] => one.display().to_string(),
        [first, ..] => format!("{} shards from {} on", grouped(shards.len()), first.display()),
    }
}

/// An archive, and its open file where it may stay open.
#[derive(Debug)]
struct Shard {
    path: PathBuf,
    stamp: Stamp,
    bytes: u64,
    kept: OnceLock<File>,
}

/// Files that stay open, in all shards of the process.
static KEPT: AtomicUsize = AtomicUsize::new(0);

/// How many may: half of those that the process may have open.
fn most_kept() -> usize {
    static MOST: OnceLock<usize> = OnceLock::new();
    *MOST.get_or_init(|| {
        let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
        // SAFETY: room for the answer.
        match unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit) } {
            0 => usize::try_from(limit.rlim_cur / 2).unwrap_or(usize::MAX),
            _ => 0,
        }
    })
}

impl Shard {
    /// Bytes from `offset` on.
    fn read(&self, offset: u64, count: usize) -> io::Result<Vec<u8>> {
        let opened;
        let file = match self.kept.get() {
            Some(file) => file,
            None => {
                let file = self.open()?;
                if KEPT
                    .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |kept| (kept < most_kept()).then_some(kept + 1))
                    .is_ok()
                {
                    if self.kept.set(file).is_err() {
                        // Another thread was faster.
                        KEPT.fetch_sub(1, Ordering::Relaxed);
                    }
                    self.kept.get().expect("it has been set")
                } else {
                    opened = file;
                    &opened
                }
            }
        };
        // The index has looked at what the shard holds: room for it is there to be taken.
        let mut bytes = vec![0; count];
        let read = file.read_exact_at(&mut bytes, offset);
        self.check(file)?;
        read.map(|()| bytes)
    }

    fn open(&self) -> io::Result<File> {
        let file = files::open(&self.path).map_err(|error| match error.raw_os_error() {
            Some(libc::EMFILE) => io::Error::other(format!("{error}: raise the limit of open files (ulimit -n)")),
            _ => error,
        })?;
        index::random_access(&file);
        self.check(&file)?;
        Ok(file)
    }

    /// Refuses a shard that has been written since it was indexed.
    fn check(&self, file: &File) -> io::Result<()> {
        let about = file.metadata()?;
        let Stamp([seconds, nanoseconds, ..]) = Stamp::of_metadata(&about);
        if about.len() == self.bytes && [seconds, nanoseconds] == self.stamp.0[..2] {
            return Ok(());
        }
        Err(io::Error::other(format!(
            "the shard has changed since it was indexed (it had {} bytes and has {}): run the command again",
            self.bytes,
            about.len()
        )))
    }
}

impl Drop for Shard {
    fn drop(&mut self) {
        if self.kept.get().is_some() {
            KEPT.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

/// Images in shards: 24 bytes of memory each beside their names.
#[derive(Clone, Debug)]
struct Shards {
    shards: Arc<[Shard]>,
    names: FileList,
    /// The shard of each image, where it begins there, and its bytes.
    shard: Vec<u32>,
    offsets: Vec<u64>,
    lengths: Vec<u32>,
}

impl Shards {
    fn of(index: Index) -> Shards {
        let numbered = index.shards.iter().zip(0u32..);
        let shard = numbered.flat_map(|(seen, number)| std::iter::repeat_n(number, seen.images)).collect();
        let shards = index.shards.into_iter().map(|seen| Shard {
            path: seen.path.into(),
            stamp: seen.stamp,
            bytes: seen.bytes,
            kept: OnceLock::new(),
        });
        Shards { shards: shards.collect(), names: index.names, shard, offsets: index.offsets, lengths: index.lengths }
    }

    fn read(&self, index: usize, most: usize) -> Result<Stored<'_>, BadImage> {
        let count = (self.lengths[index] as usize).min(most);
        match self.shards[self.shard[index] as usize].read(self.offsets[index], count) {
            Ok(bytes) => Ok(Stored::Encoded(Cow::Owned(bytes))),
            Err(error) => Err(BadImage { path: self.place(index), reason: error.to_string() }),
        }
    }

    fn picked(&self, indices: &[usize]) -> Shards {
        Shards {
            shards: Arc::clone(&self.shards),
            names: self.names.subset(indices),
            shard: indices.iter().map(|&index| self.shard[index]).collect(),
            offsets: indices.iter().map(|&index| self.offsets[index]).collect(),
            lengths: indices.iter().map(|&index| self.lengths[index]).collect(),
        }
    }

    #[cfg(test)]
    fn memory_bytes(&self) -> usize {
        self.names.memory_bytes()
            + 4 * self.shard.capacity()
            + 8 * self.offsets.capacity()
            + 4 * self.lengths.capacity()
    }
}

impl Images for Shards {
    fn count(&self) -> usize {
        self.offsets.len()
    }

    fn stored(&self, index: usize) -> Result<Stored<'_>, BadImage> {
        self.read(index, usize::MAX)
    }

    fn beginning(&self, index: usize, bytes: usize) -> Result<Stored<'_>, BadImage> {
        self.read(index, bytes)
    }

    fn place(&self, index: usize) -> PathBuf {
        let mut place: OsString = self.shards[self.shard[index] as usize].path.clone().into();
        place.push(": ");
        place.push(self.names.relative(index));
        place.into()
    }

    fn subset(&self, indices: &[usize]) -> Arc<dyn Images> {
        Arc::new(self.picked(indices))
    }

    fn describe(&self) -> String {
        let count = self.shards.len();
        format!("images in {} {}", grouped(count), if count == 1 { "shard" } else { "shards" })
    }

    /// The shards' names, sizes and times, and what of them is where: the pixels are not read.
    fn fingerprint(&self, hash: &mut dyn FnMut(&[u8])) -> Result<()> {
        self.shards.iter().try_for_each(|shard| file_fingerprint(&shard.path, hash))?;
        for index in 0..self.count() {
            hash(self.names.relative(index).as_os_str().as_encoded_bytes());
            hash(format!("\0{} {} {}\n", self.shard[index], self.offsets[index], self.lengths[index]).as_bytes());
        }
        Ok(())
    }

    /// Wherever the shards lie, and however the images are spread over them.
    fn marks(&self) -> DataMarks {
        let (mut names, mut sizes) = (crc32fast::Hasher::new(), crc32fast::Hasher::new());
        for index in 0..self.count() {
            names.update(self.names.relative(index).as_os_str().as_encoded_bytes());
            names.update(b"\0");
            sizes.update(&u64::from(self.lengths[index]).to_le_bytes());
        }
        DataMarks { names: names.finalize(), sizes: sizes.finalize(), ..DataMarks::default() }
    }

    fn file_name(&self, index: usize) -> Option<&Path> {
        Some(self.names.relative(index))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn imagenet_fits_in_a_quarter_of_a_gigabyte() {
        let mut index = Index { names: FileList::new(""), ..Index::default() };
        for image in 0..1_281_167u32 {
            index.names.push(Path::new(&format!("n{:08}/n{:08}_{}.JPEG", image / 1300, image / 1300, image % 20_000)));
            index.offsets.push(u64::from(image) * 110_000);
            index.lengths.push(110_000);
        }
        let seen = |images| index::Seen { path: "x.tar".into(), stamp: Stamp([0; 5]), bytes: 1 << 28, images };
        index.shards = (0..560).map(|_| seen(2288)).collect();
        index.shards.last_mut().unwrap().images = 1_281_167 - 559 * 2288;
        let images = Shards::of(index);
        assert_eq!((images.count(), images.shard.len()), (1_281_167, 1_281_167));
        assert!(images.memory_bytes() < 150 << 20, "{} bytes", images.memory_bytes());
        assert_eq!(images.place(1_281_166), Path::new("x.tar: n00000985/n00000985_1166.JPEG"));
    }
}
