//! What a set of shards holds: every image's name and place, and what is written beside it as its label.
//!
//! A sample is what has one key, as WebDataset has it: the path of a member up to the first dot of its base name.

use super::archive::{Archive, Kind, Member};
use crate::data::decode::{self, MAX_BYTES};
use crate::data::file_list::FileList;
use crate::data::index_cache as cache;
use crate::data::walk::Stamp;
use crate::files;
use anyhow::{Context, Result, ensure};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, HashMap};
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

/// An image that has no label of a kind.
pub const NONE: u32 = u32::MAX;
/// Longer texts are no class.
const LONGEST_LABEL: u64 = 256;
/// More different texts are no classes.
const MOST_TEXTS: usize = 1 << 17;
/// Longer descriptions are not looked into.
const LONGEST_JSON: u64 = 1 << 20;

/// Where a label may stand beside an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Beside {
    Cls = 0,
    Json = 1,
    Txt = 2,
}

impl Beside {
    pub const ALL: [Beside; 3] = [Beside::Cls, Beside::Json, Beside::Txt];

    /// The extension.
    pub fn name(self) -> &'static str {
        ["cls", "json", "txt"][self as usize]
    }
}

/// The labels of one kind: for every image the number of its text, or [`NONE`]; empty where no image has one.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Column {
    #[serde(skip)]
    pub ids: Vec<u32>,
    pub texts: Vec<String>,
    /// The first that is no label, and why.
    pub fault: Option<String>,
    #[serde(skip)]
    numbers: HashMap<String, u32>,
}

impl Column {
    fn number(&mut self, text: &str) -> u32 {
        if let Some(&number) = self.numbers.get(text) {
            return number;
        }
        if self.texts.len() == MOST_TEXTS {
            self.fault = Some(format!("{text:?} is one of more than {MOST_TEXTS} different ones"));
            return NONE;
        }
        let number = self.texts.len() as u32;
        self.texts.push(text.to_owned());
        self.numbers.insert(text.to_owned(), number);
        number
    }

    /// For image `image`, the next one or a later one than has a label yet.
    fn set(&mut self, image: usize, id: u32) {
        if id != NONE {
            self.ids.resize(image, NONE);
            self.ids.push(id);
        }
    }

    /// The label of an image as text.
    pub fn text(&self, image: usize) -> Option<&str> {
        let id = self.ids.get(image).copied().filter(|&id| id != NONE)?;
        Some(&self.texts[id as usize])
    }

    /// Adds the labels of images that come behind the first `count`.
    fn append(&mut self, count: usize, more: Column) {
        let numbers: Vec<u32> = more.texts.iter().map(|text| self.number(text)).collect();
        if !more.ids.is_empty() {
            self.ids.resize(count, NONE);
            self.ids.extend(more.ids.iter().map(|&id| if id == NONE { NONE } else { numbers[id as usize] }));
        }
        self.fault = self.fault.take().or(more.fault);
    }
}

/// A shard as it was when it was read.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Seen {
    pub path: OsString,
    pub stamp: Stamp,
    pub bytes: u64,
    /// How many images it has.
    pub images: usize,
}

impl Seen {
    fn of(path: &Path) -> std::io::Result<Seen> {
        let about = std::fs::metadata(path)?;
        Ok(Seen { path: path.into(), stamp: Stamp::of_metadata(&about), bytes: about.len(), images: 0 })
    }
}

/// The images of some shards, one shard after the other, each in its own order.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Index {
    pub shards: Vec<Seen>,
    #[serde(skip)]
    pub names: FileList,
    /// Where each image begins in its shard, and its bytes.
    #[serde(skip)]
    pub offsets: Vec<u64>,
    #[serde(skip)]
    pub lengths: Vec<u32>,
    pub beside: [Column; 3],
    /// The names of classes that JSON gives, by the text of the label.
    pub class_names: BTreeMap<String, String>,
    /// What was passed over, by kind, and how often.
    pub passed: BTreeMap<String, usize>,
}

/// A label file that does not stand next to its image; by key.
type Strays = HashMap<Vec<u8>, [u32; 3]>;

/// The members of one key that follow each other.
#[derive(Default)]
struct Sample {
    key: Vec<u8>,
    images: Vec<Member>,
    labels: Option<[u32; 3]>,
}

impl Index {
    /// What `shards` hold, in that order: from the index of an earlier run where nothing has changed, which lies in
    /// `cache`.
    ///
    /// Errors: a shard that cannot be read or is no whole archive, with its path and the place in it.
    pub fn of(shards: &[PathBuf], cache: Option<&Path>) -> Result<Index> {
        let kept = cache.and_then(|cache| {
            let whole: std::io::Result<Vec<PathBuf>> = shards.iter().map(|path| path.canonicalize()).collect();
            let key: Vec<u8> =
                whole.ok()?.iter().flat_map(|path| [path.as_os_str().as_bytes(), b"\0"].concat()).collect();
            Some(cache.join(cache::file_name(&[b"shards\0", key.as_slice()].concat())))
        });
        let fresh = kept.as_ref().and_then(|file| files::read(file, cache::LARGEST_BYTES).ok());
        if let Some(index) = fresh.and_then(|bytes| Index::decode(&bytes, shards)) {
            return Ok(index);
        }
        let before = cache::now();
        let parts: Result<Vec<Index>> = shards.par_iter().map(|path| Index::of_shard(path)).collect();
        let mut all = Index { names: FileList::new(""), ..Index::default() };
        // Each part is freed as it is joined.
        parts?.into_iter().for_each(|part| all.append(part));
        if let Some(file) =
            kept.filter(|_| cache::is_worth_keeping(all.len(), all.shards.iter().map(|s| s.stamp), before))
        {
            // Without a place to keep it the next run reads the shards again; this one has what it needs.
            let _ = cache::keep(&file, |out| all.encode(out));
        }
        Ok(all)
    }

    pub fn len(&self) -> usize {
        self.offsets.len()
    }

    /// The first image of each shard, and the number of all.
    pub fn starts(&self) -> Vec<usize> {
        let sum = self.shards.iter().scan(0, |sum, shard| {
            *sum += shard.images;
            Some(*sum)
        });
        std::iter::once(0).chain(sum).collect()
    }

    /// Where an image lies, for people.
    pub fn place(&self, image: usize) -> String {
        let shard = self.starts().partition_point(|&start| start <= image) - 1;
        format!("{}: {}", Path::new(&self.shards[shard].path).display(), self.names.relative(image).display())
    }

    fn of_shard(path: &Path) -> Result<Index> {
        let mut index = Index { names: FileList::new(""), ..Index::default() };
        // Older than what is read, so that a change meanwhile shows.
        index.shards.push(Seen::of(path).with_context(|| format!("cannot read {}", path.display()))?);
        index.read(path).with_context(|| format!("{} cannot be used as a shard", path.display()))?;
        index.shards[0].images = index.len();
        Ok(index)
    }

    fn read(&mut self, path: &Path) -> Result<()> {
        let file = files::open(path)?;
        random_access(&file);
        let mut archive = Archive::new(&file, path)?;
        let (mut sample, mut strays) = (Sample::default(), Strays::new());
        while let Some(member) = archive.next()? {
            let base = member.name.rsplit(|&byte| byte == b'/').next().unwrap_or_default();
            let dot = base.iter().position(|&byte| byte == b'.').unwrap_or(base.len());
            let suffix = String::from_utf8_lossy(base.get(dot + 1..).unwrap_or_default()).to_lowercase();
            let hidden = dot == 0 || member.name.starts_with(b"__MACOSX/");
            match member.kind {
                Kind::Directory => continue,
                Kind::Other(what) => {
                    self.pass(what);
                    continue;
                }
                Kind::File if hidden => {
                    self.pass("hidden files");
                    continue;
                }
                Kind::File => {}
            }
            let key = &member.name[..member.name.len() - base.len() + dot];
            if key != sample.key {
                let next = Sample { key: key.to_vec(), ..Sample::default() };
                self.take(std::mem::replace(&mut sample, next), &mut strays);
            }
            if let Some(beside) = Beside::ALL.into_iter().find(|beside| beside.name() == suffix) {
                let id = self.label(&mut archive, &member, beside)?;
                sample.labels.get_or_insert([NONE; 3])[beside as usize] = id;
            } else if self.is_image(&mut archive, &member, &suffix)? {
                sample.images.push(member);
            }
        }
        self.take(sample, &mut strays);
        self.bring_home(strays);
        Ok(())
    }

    /// Counts what is no image as passed over.
    fn is_image(&mut self, archive: &mut Archive, member: &Member, suffix: &str) -> Result<bool> {
        let last = suffix.rsplit('.').next().unwrap_or_default();
        // What its name promises and it is not shows itself when it is decoded.
        if !decode::promises_image(last.as_bytes()) && !decode::is_read(archive.beginning(member)?) {
            self.pass(&if suffix.is_empty() { "files without an extension".to_owned() } else { format!(".{suffix}") });
            return Ok(false);
        }
        ensure!(
            member.length <= MAX_BYTES,
            "the image {} has {} bytes, and none has more than {MAX_BYTES}",
            String::from_utf8_lossy(&member.name),
            member.length
        );
        Ok(true)
    }

    fn pass(&mut self, what: &str) {
        *self.passed.entry(what.to_owned()).or_default() += 1;
    }

    /// Adds the images of a sample: one with an extension of one word, else all of them, whose names have dots.
    fn take(&mut self, mut sample: Sample, strays: &mut Strays) {
        let one_word = |member: &Member| {
            let base = member.name.rsplit(|&byte| byte == b'/').next().unwrap_or_default();
            base.iter().filter(|&&byte| byte == b'.').count() <= 1
        };
        if let Some(first) = sample.images.iter().position(one_word) {
            for _ in 1..sample.images.len() {
                self.pass("further images of a sample");
            }
            sample.images.swap(0, first);
            sample.images.truncate(1);
        }
        if let (true, Some(labels)) = (sample.images.is_empty(), sample.labels) {
            let stray = strays.entry(sample.key).or_insert([NONE; 3]);
            stray.iter_mut().zip(labels).filter(|(_, label)| *label != NONE).for_each(|(stray, label)| *stray = label);
            return;
        }
        for member in sample.images {
            for (column, id) in self.beside.iter_mut().zip(sample.labels.unwrap_or([NONE; 3])) {
                column.set(self.offsets.len(), id);
            }
            self.names.push(Path::new(OsStr::from_bytes(&member.name)));
            self.offsets.push(member.offset);
            self.lengths.push(member.length as u32);
        }
    }

    /// Gives labels that stand elsewhere in the shard to their images: so it is where files were packed unsorted.
    fn bring_home(&mut self, mut strays: Strays) {
        if strays.is_empty() {
            return;
        }
        for column in &mut self.beside {
            column.ids.resize(self.offsets.len(), NONE);
        }
        for image in 0..self.len() {
            let name = self.names.relative(image).as_os_str().as_bytes();
            let base = name.iter().rposition(|&byte| byte == b'/').map_or(0, |slash| slash + 1);
            let dot = name[base..].iter().position(|&byte| byte == b'.').unwrap_or(name.len() - base);
            if let Some(labels) = strays.get_mut(&name[..base + dot]) {
                for (column, label) in self.beside.iter_mut().zip(labels) {
                    if *label != NONE {
                        column.ids[image] = *label;
                    }
                }
            }
        }
        for column in &mut self.beside {
            if column.ids.iter().all(|&id| id == NONE) {
                column.ids.clear();
            }
        }
    }

    /// The number of a label's text, or [`NONE`] with the fault noted.
    fn label(&mut self, archive: &mut Archive, member: &Member, beside: Beside) -> Result<u32> {
        let most = if beside == Beside::Json { LONGEST_JSON } else { LONGEST_LABEL };
        let content = archive.content(member, most)?;
        let found = match (beside, content) {
            (Beside::Json, Some(bytes)) => match described(bytes) {
                Some((label, name)) => {
                    name.map(|name| self.class_names.entry(label.clone()).or_insert(name));
                    Ok(label)
                }
                None => Err("has no field label, cls or class with a number or a name"),
            },
            (_, Some(bytes)) => one_line(bytes),
            (_, None) => Err("is too long for a label"),
        };
        let column = &mut self.beside[beside as usize];
        Ok(match found {
            Ok(text) => column.number(&text),
            Err(what) => {
                column.fault.get_or_insert_with(|| format!("{} {what}", String::from_utf8_lossy(&member.name)));
                NONE
            }
        })
    }

    fn append(&mut self, part: Index) {
        let count = self.len();
        self.names.append(&part.names);
        self.offsets.extend(part.offsets);
        self.lengths.extend(part.lengths);
        self.shards.extend(part.shards);
        self.beside.iter_mut().zip(part.beside).for_each(|(column, more)| column.append(count, more));
        for (label, name) in part.class_names {
            self.class_names.entry(label).or_insert(name);
        }
        for (what, times) in part.passed {
            *self.passed.entry(what).or_default() += times;
        }
    }

    fn encode(&self, out: &mut dyn std::io::Write) -> Result<()> {
        let offsets: Vec<u8> = self.offsets.iter().flat_map(|offset| offset.to_le_bytes()).collect();
        let small = |numbers: &[u32]| numbers.iter().flat_map(|number| number.to_le_bytes()).collect::<Vec<u8>>();
        let counts = self.beside.each_ref().map(|column| column.ids.len());
        let ids = self.beside.each_ref().map(|column| small(&column.ids));
        let parts = [&offsets, &small(&self.lengths), &ids[0], &ids[1], &ids[2], self.names.names()];
        cache::seal(out, &(self, self.len(), counts), &parts)
    }

    /// The index that was kept; `None` if it is damaged, of other shards, or out of date.
    fn decode(bytes: &[u8], shards: &[PathBuf]) -> Option<Index> {
        let ((mut index, count, counts), mut rest): ((Index, usize, [usize; 3]), &[u8]) = cache::unseal(bytes)?;
        let mut take = |count: usize, size: usize| {
            let (taken, left) = rest.split_at_checked(count.checked_mul(size)?)?;
            rest = left;
            Some(taken)
        };
        let small = |bytes: &[u8]| bytes.as_chunks().0.iter().map(|&number| u32::from_le_bytes(number)).collect();
        index.offsets = take(count, 8)?.as_chunks().0.iter().map(|&offset| u64::from_le_bytes(offset)).collect();
        index.lengths = small(take(count, 4)?);
        for (column, count) in index.beside.iter_mut().zip(counts) {
            column.ids = small(take(count, 4)?);
        }
        index.names = FileList::from_names(Path::new(""), rest.to_vec());
        let fresh = |(seen, path): (&Seen, &PathBuf)| {
            Seen::of(path).is_ok_and(|now| now.stamp == seen.stamp && now.bytes == seen.bytes)
        };
        let current = index.shards.len() == shards.len() && index.shards.iter().zip(shards).all(fresh);
        let whole = index.names.len() == count && index.shards.iter().map(|shard| shard.images).sum::<usize>() == count;
        let labels = index.beside.iter().all(|column| {
            column.ids.len() <= count && column.ids.iter().all(|&id| id == NONE || (id as usize) < column.texts.len())
        });
        // One set of shards has one index, however its path was typed.
        index.shards.iter_mut().zip(shards).for_each(|(seen, path)| seen.path = path.into());
        (current && whole && labels).then_some(index)
    }
}

/// Tells the system that reading on helps nobody.
pub fn random_access(file: &std::fs::File) {
    #[cfg(target_os = "linux")]
    {
        use std::os::fd::AsRawFd;
        // SAFETY: plain numbers, and a descriptor that `file` keeps open. A hint: refused, it changes nothing.
        unsafe { libc::posix_fadvise(file.as_raw_fd(), 0, 0, libc::POSIX_FADV_RANDOM) };
    }
    #[cfg(not(target_os = "linux"))]
    let _ = file;
}

/// A text of one line, without the spaces around it.
fn one_line(bytes: &[u8]) -> Result<String, &'static str> {
    let text = std::str::from_utf8(bytes).map_err(|_| "is no text (UTF-8)")?.trim();
    match text {
        "" => Err("is empty"),
        text if text.contains(['\n', '\r', '\0']) => Err("has several lines"),
        text => Ok(text.to_owned()),
    }
}

/// The label in a description, and the name of its class.
fn described(bytes: &[u8]) -> Option<(String, Option<String>)> {
    let all: serde_json::Map<String, serde_json::Value> = serde_json::from_slice(bytes).ok()?;
    let text = |field: &str| match all.get(field)? {
        serde_json::Value::Number(number) if number.is_i64() || number.is_u64() => Some(number.to_string()),
        serde_json::Value::String(text) if text.len() as u64 <= LONGEST_LABEL => one_line(text.as_bytes()).ok(),
        _ => None,
    };
    let label = ["label", "cls", "class"].into_iter().find_map(text)?;
    let name = ["class_name", "classname", "label_name"].into_iter().find_map(text);
    Some((label, name))
}

/// The directory that an image lies in, in its archive.
pub fn directory(name: &Path) -> &[u8] {
    let name = name.as_os_str().as_bytes();
    &name[..name.iter().rposition(|&byte| byte == b'/').unwrap_or(0)]
}

/// Bytes of a name as text that stands for them.
pub fn lossy(name: &[u8]) -> String {
    OsString::from_vec(name.to_vec()).to_string_lossy().into_owned()
}
