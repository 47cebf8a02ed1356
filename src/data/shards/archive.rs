//! The members of an uncompressed tar archive and where they lie in it: ustar, GNU's long names, pax.
//!
//! Headers are `tar`'s; its own iteration is not used, because it reads long names of any length into memory and, where
//! it leaves them to the caller, does not heed the sizes that pax gives.

use anyhow::{Context, Result, bail, ensure};
use std::fs::File;
use std::os::unix::fs::FileExt;
use tar::{EntryType, Header};

const BLOCK: u64 = 512;
/// A header, the beginning of its member, and often what follows a small one.
const WINDOW: u64 = 4096;
/// Where members are small they are read on.
const WIDE_WINDOW: u64 = 64 << 10;
/// Most bytes of a long name or of pax records.
const LONGEST_HEADER: u64 = 1 << 20;
/// So much after the end of an archive is looked at: GNU tar fills it up to some ten thousand bytes.
const LONGEST_END: u64 = 1 << 20;

/// Formats that archives are compressed in: how such files begin, their extensions, and what unpacks them.
const COMPRESSED: [(&[u8], &[&str], &str); 6] = [
    (&[0x1f, 0x8b], &["gz", "tgz", "taz"], "gunzip -k"),
    (&[0x28, 0xb5, 0x2f, 0xfd], &["zst", "tzst"], "zstd -d"),
    (b"\xfd7zXZ", &["xz", "txz"], "xz -dk"),
    (b"BZh", &["bz2", "tbz", "tbz2"], "bunzip2 -k"),
    (&[0x04, 0x22, 0x4d, 0x18], &["lz4"], "lz4 -dk"),
    (b"PK\x03\x04", &[], "unzip"),
];

/// The command that unpacks what has this extension.
pub fn unpacks(extension: &str) -> Option<&'static str> {
    let wanted = extension.to_ascii_lowercase();
    COMPRESSED.iter().find(|(_, extensions, _)| extensions.contains(&wanted.as_str())).map(|(.., command)| *command)
}

/// What a member is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    File,
    Directory,
    /// A link, a device, a file with holes: in words.
    Other(&'static str),
}

/// A member of an archive.
#[derive(Debug)]
pub struct Member {
    /// As it is written there, without `./` before it: not a path on any disk.
    pub name: Vec<u8>,
    pub kind: Kind,
    /// Where its bytes begin in the archive.
    pub offset: u64,
    pub length: u64,
}

/// An archive that is gone through from its beginning to its end.
pub struct Archive<'a> {
    file: &'a File,
    length: u64,
    at: u64,
    window: Vec<u8>,
    window_at: u64,
}

/// What stands before a member's own header.
#[derive(Default)]
struct Before {
    name: Option<Vec<u8>>,
    size: Option<u64>,
    sparse: bool,
}

impl<'a> Archive<'a> {
    /// Errors: it cannot be read; it is compressed, with the command that unpacks it.
    pub fn new(file: &'a File, path: &std::path::Path) -> Result<Self> {
        let length = file.metadata()?.len();
        let mut archive = Archive { file, length, at: 0, window: Vec::new(), window_at: 0 };
        let begins = archive.bytes(0, length.min(8))?.to_vec();
        if let Some((.., command)) = COMPRESSED.iter().find(|(magic, ..)| begins.starts_with(magic)) {
            bail!(
                "it is compressed, and images are read at random from uncompressed archives: unpack it with \
                 `{command} {}`",
                path.display()
            );
        }
        Ok(archive)
    }

    /// The next member; `None` at the end.
    ///
    /// Errors: a header that is none, a member that is longer than the archive, an archive without an end: with the
    /// place in bytes.
    pub fn next(&mut self) -> Result<Option<Member>> {
        let mut before = Before::default();
        loop {
            let at = self.at;
            ensure!(
                self.length - at >= BLOCK,
                "it ends at byte {} without the empty blocks that close an archive: it is truncated",
                self.length
            );
            let header = Header::from_byte_slice(self.bytes(at, BLOCK)?).clone();
            if header.as_bytes().iter().all(|&byte| byte == 0) {
                self.check_end()?;
                return Ok(None);
            }
            ensure!(header.cksum().ok() == Some(checksum(&header)), "at byte {at} is no header of a member");
            let kind = header.entry_type();
            let stated = header.entry_size().with_context(|| format!("at byte {at} is a member of no known length"))?;
            let special =
                [EntryType::GNULongName, EntryType::GNULongLink, EntryType::XHeader, EntryType::XGlobalHeader];
            let length = before.size.filter(|_| !special.contains(&kind)).unwrap_or(stated);
            let offset = at + BLOCK;
            let end = offset.checked_add(length).and_then(|end| end.checked_next_multiple_of(BLOCK));
            self.at = end.filter(|&end| end <= self.length).with_context(|| {
                let left = self.length - offset;
                format!("the member at byte {at} has {length} bytes, of which {left} are there: it is truncated")
            })?;
            match kind {
                EntryType::GNULongName => before.name = Some(self.text(at, length)?),
                EntryType::XHeader => {
                    let records = self.text(at, length)?;
                    heed(&records, &mut before)
                        .with_context(|| format!("at byte {at} are pax records that are none"))?;
                }
                EntryType::GNULongLink | EntryType::XGlobalHeader => {}
                _ => {
                    let name = before.name.unwrap_or_else(|| header.path_bytes().into_owned());
                    let kind = if before.sparse { Kind::Other("files with holes") } else { kind_of(kind) };
                    return Ok(Some(Member { name: plain(name), kind, offset, length }));
                }
            }
        }
    }

    /// The first bytes of a member, as many as tell an image from other files.
    pub fn beginning(&mut self, member: &Member) -> Result<&[u8]> {
        self.bytes(member.offset, member.length.min(64))
    }

    /// All bytes of a member of at most `most`; `None` if it is longer.
    pub fn content(&mut self, member: &Member, most: u64) -> Result<Option<&[u8]>> {
        if member.length > most { Ok(None) } else { self.bytes(member.offset, member.length).map(Some) }
    }

    /// The content of the header at `at`: a name, or records.
    fn text(&mut self, at: u64, length: u64) -> Result<Vec<u8>> {
        ensure!(
            length <= LONGEST_HEADER,
            "at byte {at} is a name of {length} bytes, and {LONGEST_HEADER} are the most"
        );
        Ok(self.bytes(at + BLOCK, length)?.to_vec())
    }

    /// Bytes that the archive has, from a window that moves on.
    fn bytes(&mut self, offset: u64, count: u64) -> Result<&[u8]> {
        let window_end = self.window_at + self.window.len() as u64;
        if offset < self.window_at || offset + count > window_end {
            let near = offset >= self.window_at && offset < window_end + WIDE_WINDOW / 2;
            let wanted = count.max(if near { WIDE_WINDOW } else { WINDOW }).min(self.length - offset);
            self.window.resize(wanted as usize, 0);
            self.window_at = offset;
            if let Err(error) = self.file.read_exact_at(&mut self.window, offset) {
                self.window.clear();
                return Err(error).with_context(|| format!("at byte {offset} it cannot be read"));
            }
        }
        let from = (offset - self.window_at) as usize;
        Ok(&self.window[from..from + count as usize])
    }

    /// Behind the empty blocks nothing may follow: archives that were joined would lose all but their first part.
    fn check_end(&mut self) -> Result<()> {
        let last = self.length.min(self.at + LONGEST_END);
        while self.at < last {
            let count = (last - self.at).min(WIDE_WINDOW);
            let empty = self.bytes(self.at, count)?.iter().all(|&byte| byte == 0);
            ensure!(
                empty,
                "behind its end, after byte {}, more follows: several archives in one file are not read; unpack them \
                 with `tar -xi` and pack them as one",
                self.at
            );
            self.at += count;
        }
        Ok(())
    }
}

/// The sum of a header's bytes, those of the sum itself as spaces.
fn checksum(header: &Header) -> u32 {
    let sum = |bytes: &[u8]| bytes.iter().map(|&byte| u32::from(byte)).sum::<u32>();
    let bytes = header.as_bytes();
    sum(&bytes[..148]) + 8 * u32::from(b' ') + sum(&bytes[156..])
}

fn kind_of(kind: EntryType) -> Kind {
    match kind {
        EntryType::Regular | EntryType::Continuous => Kind::File,
        EntryType::Directory => Kind::Directory,
        EntryType::Link | EntryType::Symlink => Kind::Other("links"),
        EntryType::GNUSparse => Kind::Other("files with holes"),
        _ => Kind::Other("entries of no known kind"),
    }
}

/// A name up to a zero byte, which ends it, without `./` before it.
fn plain(mut name: Vec<u8>) -> Vec<u8> {
    name.truncate(name.iter().position(|&byte| byte == 0).unwrap_or(name.len()));
    let dots = name.chunks_exact(2).take_while(|two| *two == b"./").count();
    name.drain(..2 * dots);
    name
}

/// Takes from pax records (`LENGTH KEY=VALUE\n`, the length of all of it) what says something of the next member.
/// `None` if they are none.
fn heed(mut records: &[u8], before: &mut Before) -> Option<()> {
    while !records.is_empty() {
        let space = records.iter().position(|&byte| byte == b' ')?;
        let length: usize = std::str::from_utf8(&records[..space]).ok()?.parse().ok()?;
        let record = records.get(space + 1..length)?.strip_suffix(b"\n")?;
        let (key, value) = record.split_at(record.iter().position(|&byte| byte == b'=')?);
        let value = &value[1..];
        match key {
            b"path" => before.name = Some(value.to_vec()),
            b"size" => before.size = Some(std::str::from_utf8(value).ok()?.parse().ok()?),
            key if key.starts_with(b"GNU.sparse.") => before.sparse = true,
            _ => {}
        }
        records = &records[length..];
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pax_records_are_counted_in_bytes() {
        let mut before = Before::default();
        // A line break in a value is no end of the record.
        let records = b"15 path=a\nb/c=\n16 size=8589934592\n".as_slice();
        assert_eq!(heed(b"15 path=a\nb/c=\n", &mut before), Some(()));
        assert_eq!(before.name.as_deref(), Some(b"a\nb/c=".as_slice()));
        assert_eq!(heed(records, &mut before), None, "the second is a byte longer than it says");
        assert_eq!(heed(b"19 size=8589934592\n", &mut before), Some(()));
        assert_eq!(before.size, Some(8_589_934_592));
        for broken in [&b"x"[..], b"3 a", b"99 path=a\n", b"2 path=a\n", b"9 patha=\0", b"7 path\n", b"10 size=-\n"] {
            assert_eq!(heed(broken, &mut before), None, "{broken:?}");
        }
        assert_eq!(plain(b"././a/./b\0c".to_vec()), b"a/./b");
    }
}
