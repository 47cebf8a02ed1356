//! Finds the records of an archive and refuses archives that do not add up.
//!
//! Every claim is checked before it is used: structures inside the file, local headers agreeing with the
//! directory, no record overlapping another, no name twice.

use super::super::error::Error;
use super::*;
use std::collections::HashSet;
use std::io::{Read, Seek, SeekFrom};

/// A record of the archive, its place already checked against the file and all other records.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in super::super) struct Entry {
    pub name: String,
    pub deflated: bool,
    pub crc: u32,
    /// Bytes in the file.
    pub packed: u64,
    /// Bytes of the contents.
    pub size: u64,
    pub header_at: u64,
    /// Where the contents start in the file.
    pub data_at: u64,
}

/// The records in the order of the file. `length` is the length of the file.
pub(in super::super) fn read_directory<R: Read + Seek>(source: &mut R, length: u64) -> Result<Vec<Entry>, Error> {
    let place = find_directory(source, length)?;
    let directory = read_at(source, place.start, place.size)?;
    let mut entries = Vec::new();
    let mut names = HashSet::new();
    let mut at = 0;
    while at < directory.len() {
        let here = place.start + at as u64;
        let (entry, used) = parse_entry(&directory[at..]).map_err(|error| error.at(here))?;
        at += used;
        if !names.insert(entry.name.clone()) {
            return Err(Error::damaged("the archive lists this record twice").in_record(&entry.name).at(here));
        }
        entries.push(entry);
    }
    if entries.len() as u64 != place.count {
        let problem = format!("the archive should have {} records and lists {}", place.count, entries.len());
        return Err(Error::damaged(problem).at(place.start));
    }
    entries.sort_by_key(|entry| entry.header_at);
    let mut free_from = 0;
    for entry in &mut entries {
        let name = entry.name.clone();
        free_from = check_header(source, entry, free_from, place.start)
            .map_err(|error| error.in_record(&name).at(entry.header_at))?;
    }
    Ok(entries)
}

/// Where the directory lies and how many records it must list.
struct DirectoryPlace {
    start: u64,
    size: u64,
    count: u64,
}

fn find_directory<R: Read + Seek>(source: &mut R, length: u64) -> Result<DirectoryPlace, Error> {
    let cut =
        || Error::damaged("the end of the archive is missing (the file is cut short or was not written to its end)");
    let tail_start = length.saturating_sub((END_BYTES + END64_LOCATOR_BYTES + usize::from(u16::MAX)) as u64);
    let tail = read_at(source, tail_start, length - tail_start)?;
    // A comment may follow the end record; its length must then reach exactly to the end of the file.
    let end_at = (0..=tail.len().saturating_sub(END_BYTES)).rev().find(|&at| {
        u32_at(&tail, at) == Some(END)
            && u16_at(&tail, at + 20).is_some_and(|comment| at + END_BYTES + usize::from(comment) == tail.len())
    });
    let at = end_at.ok_or_else(|| cut().at(length))?;
    let end = &tail[at..];
    let [disk, first_disk, here, count] = [4, 6, 8, 10].map(|field| u16_at(end, field).unwrap_or_default());
    let [size, start] = [12, 16].map(|field| u64::from(u32_at(end, field).unwrap_or_default()));
    if disk != 0 || first_disk != 0 || here != count {
        return Err(Error::damaged("the archive claims to span several files").at(tail_start + at as u64));
    }
    let mut place = DirectoryPlace { start, size, count: u64::from(count) };
    let mut directory_end = tail_start + at as u64;
    let locator = at.checked_sub(END64_LOCATOR_BYTES).filter(|&at| u32_at(&tail, at) == Some(END64_LOCATOR));
    if let Some(locator) = locator {
        let end64_at = u64_at(&tail, locator + 8).unwrap_or_default();
        // It stands right before its locator.
        if end64_at.checked_add(END64_BYTES as u64) != Some(tail_start + locator as u64) {
            return Err(
                Error::damaged("the end of the archive points to a wrong place").at(tail_start + locator as u64)
            );
        }
        let end64 = read_at(source, end64_at, END64_BYTES as u64)?;
        let [here, count, size, start] = [24, 32, 40, 48].map(|field| u64_at(&end64, field).unwrap_or_default());
        let agree =
            |small: u64, large: u64, saturated: u64| small == large || (small == saturated && large >= saturated);
        let consistent = agree(place.count, count, u64::from(u16::MAX))
            && agree(place.size, size, ZIP64_FROM)
            && agree(place.start, start, ZIP64_FROM);
        if u32_at(&end64, 0) != Some(END64) || here != count || !consistent {
            return Err(Error::damaged("the two ends of the archive contradict each other").at(end64_at));
        }
        place = DirectoryPlace { start, size, count };
        directory_end = end64_at;
    }
    if place.start.checked_add(place.size) != Some(directory_end) {
        return Err(Error::damaged("the list of records is not where the archive says").at(directory_end));
    }
    Ok(place)
}

/// One entry of the directory and its length there; `data_at` is not known yet.
fn parse_entry(bytes: &[u8]) -> Result<(Entry, usize), Error> {
    let short = || Error::damaged("the list of records is cut short");
    if u32_at(bytes, 0) != Some(DIRECTORY_ENTRY) || bytes.len() < DIRECTORY_ENTRY_BYTES {
        return Err(Error::damaged("the list of records is broken"));
    }
    let half = |field| u16_at(bytes, field).ok_or_else(short);
    let word = |field| u32_at(bytes, field).ok_or_else(short);
    let (flags, method) = (half(8)?, half(10)?);
    let [name_len, extra_len, comment_len] = [half(28)?, half(30)?, half(32)?].map(usize::from);
    let name_end = DIRECTORY_ENTRY_BYTES + name_len;
    let name = bytes.get(DIRECTORY_ENTRY_BYTES..name_end).ok_or_else(short)?;
    let extra = bytes.get(name_end..name_end + extra_len).ok_or_else(short)?;
    let used = name_end + extra_len + comment_len;
    if used > bytes.len() {
        return Err(short());
    }
    let name = std::str::from_utf8(name).map_err(|_| Error::damaged("a record has a name that is not UTF-8"))?;
    let deflated = compression(flags, method).map_err(|error| error.in_record(name))?;
    // The zip64 field holds, in this order, whichever of the three does not fit its 32 bits.
    let mut wide = zip64_values(extra).into_iter();
    let mut widen = |small: u32| match u64::from(small) {
        ZIP64_FROM => wide.next().ok_or_else(|| Error::damaged("its 64-bit sizes are missing").in_record(name)),
        small => Ok(small),
    };
    let (size, packed, header_at) = (widen(word(24)?)?, widen(word(20)?)?, widen(word(42)?)?);
    let crc = word(16)?;
    if !deflated && packed != size {
        return Err(Error::damaged("it has two different sizes").in_record(name));
    }
    Ok((Entry { name: name.to_owned(), deflated, crc, packed, size, header_at, data_at: 0 }, used))
}

/// Whether a record is deflated; an error for whatever is neither that nor stored.
fn compression(flags: u16, method: u16) -> Result<bool, Error> {
    let advice = "Extract the archive and pack it again without compression or password (`zip -0`)";
    if flags & !(FLAG_DESCRIPTOR | FLAG_UTF8 | 0b110) != 0 {
        return Err(Error::unsupported(format!("an encrypted or patched record (flags {flags:#06x})"), advice));
    }
    match method {
        0 => Ok(false),
        8 => Ok(true),
        other => Err(Error::unsupported(format!("compression method {other}"), advice)),
    }
}

/// The 64-bit words of the zip64 extra field.
fn zip64_values(mut extra: &[u8]) -> Vec<u64> {
    while let (Some(tag), Some(length)) = (u16_at(extra, 0), u16_at(extra, 2)) {
        let Some(body) = extra.get(4..4 + usize::from(length)) else { break };
        if tag == EXTRA_ZIP64 {
            return body.as_chunks::<8>().0.iter().map(|word| u64::from_le_bytes(*word)).collect();
        }
        extra = &extra[4 + body.len()..];
    }
    Vec::new()
}

/// Compares the header before the data with the directory; sets `data_at`; returns where the record ends.
fn check_header<R: Read + Seek>(
    source: &mut R,
    entry: &mut Entry,
    free_from: u64,
    directory_start: u64,
) -> Result<u64, Error> {
    let outside = || Error::damaged("it overlaps another record or reaches past the end of the file");
    let name_at = entry.header_at.checked_add(LOCAL_HEADER_BYTES as u64).ok_or_else(outside)?;
    let name_end = name_at.checked_add(entry.name.len() as u64).ok_or_else(outside)?;
    if entry.header_at < free_from || name_end > directory_start {
        return Err(outside());
    }
    let header = read_at(source, entry.header_at, name_end - entry.header_at)?;
    let half = |field| u16_at(&header, field).unwrap_or_default();
    let word = |field| u32_at(&header, field).unwrap_or_default();
    let deflated = compression(half(6), half(8))?;
    let same_name = usize::from(half(26)) == entry.name.len() && &header[LOCAL_HEADER_BYTES..] == entry.name.as_bytes();
    // With a descriptor after the data the three fields are 0 here; the directory's are then the only ones.
    let agrees = |small: u32, large: u64| u64::from(small) == large || u64::from(small) == ZIP64_FROM;
    let same_sizes = half(6) & FLAG_DESCRIPTOR != 0
        || (word(14) == entry.crc && agrees(word(18), entry.packed) && agrees(word(22), entry.size));
    if word(0) != LOCAL_HEADER || !same_name || deflated != entry.deflated || !same_sizes {
        return Err(Error::damaged("its header contradicts the list of records"));
    }
    entry.data_at = name_end + u64::from(half(28));
    let end = entry.data_at.checked_add(entry.packed).filter(|&end| end <= directory_start).ok_or_else(outside)?;
    Ok(end)
}

/// `length` bytes from `at`; the caller has checked that the file has them.
fn read_at<R: Read + Seek>(source: &mut R, at: u64, length: u64) -> Result<Vec<u8>, Error> {
    let length =
        usize::try_from(length).map_err(|_| Error::damaged("the list of records exceeds the address space"))?;
    let mut bytes = vec![0; length];
    source
        .seek(SeekFrom::Start(at))
        .and_then(|_| source.read_exact(&mut bytes))
        .map_err(|e| Error::io("read", e).at(at))?;
    Ok(bytes)
}
