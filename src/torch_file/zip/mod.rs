//! The part of the zip format that PyTorch uses: stored or deflated records, zip64, no encryption, one file.
//!
//! Ours rather than a crate's: the writer must lay records out exactly as PyTorch's does (its readers
//! compute offsets from that), and the reader must refuse whatever two zip readers could see differently.

mod directory;
mod layout;
mod reader;
mod writer;

pub(super) use directory::{Entry, read_directory};
pub(super) use reader::{read_beginning, read_record, verify_record};
pub(super) use writer::{Record, write_records};

/// Signatures of the structures, as little-endian words.
const LOCAL_HEADER: u32 = 0x0403_4b50;
const DESCRIPTOR: u32 = 0x0807_4b50;
const DIRECTORY_ENTRY: u32 = 0x0201_4b50;
const END64: u32 = 0x0606_4b50;
const END64_LOCATOR: u32 = 0x0706_4b50;
const END: u32 = 0x0605_4b50;

/// Length of the fixed part of each structure.
const LOCAL_HEADER_BYTES: usize = 30;
const DIRECTORY_ENTRY_BYTES: usize = 46;
const END64_BYTES: usize = 56;
const END64_LOCATOR_BYTES: usize = 20;
const END_BYTES: usize = 22;

/// Bit 3: sizes and checksum follow the data. Bit 11: names are UTF-8.
const FLAG_DESCRIPTOR: u16 = 1 << 3;
const FLAG_UTF8: u16 = 1 << 11;

/// Values from here on do not fit their 32-bit field and are written to the zip64 extra field.
const ZIP64_FROM: u64 = 0xffff_ffff;
const EXTRA_ZIP64: u16 = 1;

/// Whether a file starts as a zip archive does.
pub(super) fn starts_like_zip(head: &[u8]) -> bool {
    head.starts_with(&LOCAL_HEADER.to_le_bytes())
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_le_bytes(bytes.get(at..)?.first_chunk().copied()?))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..)?.first_chunk().copied()?))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(bytes.get(at..)?.first_chunk().copied()?))
}
