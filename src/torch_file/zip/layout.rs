//! The bytes around the records, laid out as PyTorch's writer does.
//!
//! `.format_version` 1 promises that layout: `torch.load` may compute where a storage starts without
//! looking at the headers. Contents start on multiples of 64 bytes, padded in the header's extra field.

use super::*;

/// Contents of records start on multiples of this.
const ALIGNMENT: u64 = 64;
/// Extra field of the padding: two letters, a length, as many `Z`.
const EXTRA_PADDING: &[u8; 2] = b"FB";
const EXTRA_HEADER_BYTES: u64 = 4;
/// Version that made the archive and version needed, as PyTorch's zip64 end record states them.
const END64_VERSIONS: [u16; 2] = [0x031e, 45];

/// The zip64 extra field for those of the values that need it; empty where none does.
fn zip64_extra(values: &[u64]) -> Vec<u8> {
    let wide: Vec<u8> =
        values.iter().filter(|&&value| value >= ZIP64_FROM).flat_map(|value| value.to_le_bytes()).collect();
    if wide.is_empty() {
        return wide;
    }
    [&EXTRA_ZIP64.to_le_bytes(), &(wide.len() as u16).to_le_bytes(), wide.as_slice()].concat()
}

fn saturated(value: u64) -> [u8; 4] {
    (value.min(ZIP64_FROM) as u32).to_le_bytes()
}

/// Sizes and checksum follow the contents, so that these are read once; an empty record needs none.
fn flags(size: u64) -> u16 {
    if size == 0 { FLAG_UTF8 } else { FLAG_UTF8 | FLAG_DESCRIPTOR }
}

/// The header in front of `size` bytes of contents, for a record that starts at byte `at`.
pub(super) fn local_header(name: &str, size: u64, at: u64) -> Vec<u8> {
    let wide = zip64_extra(&[size, size, at]);
    let unpadded = at + (LOCAL_HEADER_BYTES + name.len() + wide.len()) as u64 + EXTRA_HEADER_BYTES;
    let padding = unpadded.next_multiple_of(ALIGNMENT) - unpadded;
    let extra_len = wide.len() as u64 + EXTRA_HEADER_BYTES + padding;
    let mut header = LOCAL_HEADER.to_le_bytes().to_vec();
    header.extend([0; 2]); // version needed
    header.extend(flags(size).to_le_bytes());
    header.extend([0; 18]); // stored; no date, so that equal values give equal files; checksum and sizes follow
    header.extend((name.len() as u16).to_le_bytes());
    header.extend((extra_len as u16).to_le_bytes());
    header.extend(name.as_bytes());
    header.extend(wide);
    header.extend(EXTRA_PADDING);
    header.extend((padding as u16).to_le_bytes());
    header.resize(header.len() + padding as usize, b'Z');
    header
}

/// Checksum and sizes behind the contents.
pub(super) fn descriptor(crc: u32, size: u64, at: u64) -> Vec<u8> {
    if size == 0 {
        return Vec::new();
    }
    let mut bytes = [DESCRIPTOR.to_le_bytes(), crc.to_le_bytes()].concat();
    for _ in 0..2 {
        if size >= ZIP64_FROM || at >= ZIP64_FROM {
            bytes.extend(size.to_le_bytes());
        } else {
            bytes.extend((size as u32).to_le_bytes());
        }
    }
    bytes
}

/// The entry of the directory for a record that starts at byte `at`.
pub(super) fn directory_entry(name: &str, crc: u32, size: u64, at: u64) -> Vec<u8> {
    let wide = zip64_extra(&[size, size, at]);
    let mut entry = DIRECTORY_ENTRY.to_le_bytes().to_vec();
    entry.extend([0; 4]); // versions
    entry.extend(flags(size).to_le_bytes());
    entry.extend([0; 6]); // stored, no date
    entry.extend(crc.to_le_bytes());
    entry.extend(saturated(size));
    entry.extend(saturated(size));
    entry.extend((name.len() as u16).to_le_bytes());
    entry.extend((wide.len() as u16).to_le_bytes());
    entry.extend([0; 10]); // comment, disk, attributes
    entry.extend(saturated(at));
    entry.extend(name.as_bytes());
    entry.extend(wide);
    entry
}

/// The three records that close an archive of `count` records.
pub(super) fn ends(count: u64, directory_bytes: u64, directory_at: u64) -> Vec<u8> {
    let mut end = END64.to_le_bytes().to_vec();
    end.extend((END64_BYTES as u64 - 12).to_le_bytes());
    end.extend(END64_VERSIONS.iter().flat_map(|version| version.to_le_bytes()));
    end.extend([0; 8]); // disks
    for value in [count, count, directory_bytes, directory_at] {
        end.extend(value.to_le_bytes());
    }
    end.extend(END64_LOCATOR.to_le_bytes());
    end.extend([0; 4]); // disk
    end.extend((directory_at + directory_bytes).to_le_bytes());
    end.extend(1u32.to_le_bytes()); // disks in all
    end.extend(END.to_le_bytes());
    end.extend([0; 4]); // disks
    let small_count = count.min(u64::from(u16::MAX)) as u16;
    end.extend(small_count.to_le_bytes());
    end.extend(small_count.to_le_bytes());
    end.extend(saturated(directory_bytes));
    end.extend(saturated(directory_at));
    end.extend([0; 2]); // comment
    end
}
