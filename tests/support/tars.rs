//! Tar archives written in every way that they come in.

#![allow(dead_code, reason = "each test uses a part of it")]

use std::path::Path;
use tar::{Builder, EntryType, Header};

/// An archive with these members, in this order.
pub fn tar<'a>(members: impl IntoIterator<Item = (&'a str, Vec<u8>)>) -> Vec<u8> {
    let mut archive = Builder::new(Vec::new());
    for (name, bytes) in members {
        let mut header = Header::new_gnu();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        archive.append_data(&mut header, name, bytes.as_slice()).unwrap();
    }
    archive.into_inner().unwrap()
}

/// One member whose name is written as it is, whatever it leads to.
pub fn raw(name: &[u8], kind: EntryType, bytes: &[u8]) -> Vec<u8> {
    let mut header = Header::new_ustar();
    header.as_old_mut().name[..name.len()].copy_from_slice(name);
    header.set_size(bytes.len() as u64);
    header.set_entry_type(kind);
    header.set_cksum();
    let mut all = [header.as_bytes().as_slice(), bytes].concat();
    all.resize(all.len().next_multiple_of(512), 0);
    all
}

/// Pax records and the member that they describe, whose own header has another name and the length 0.
pub fn pax(records: &[(&str, &str)], bytes: &[u8]) -> Vec<u8> {
    let record = |(key, value): &(&str, &str)| {
        let rest = format!(" {key}={value}\n");
        let length = (1..).find(|length: &usize| length.to_string().len() + rest.len() == *length).unwrap();
        format!("{length}{rest}")
    };
    let records: String = records.iter().map(record).collect();
    let mut member = raw(b"other", EntryType::Regular, b"");
    member.extend_from_slice(bytes);
    member.resize(member.len().next_multiple_of(512), 0);
    [raw(b"pax", EntryType::XHeader, records.as_bytes()), member].concat()
}

/// Members one after the other, and the end of an archive.
pub fn closed(members: &[Vec<u8>]) -> Vec<u8> {
    [members.concat(), vec![0; 1024]].concat()
}

/// The golden image of this name.
pub fn golden(name: &str) -> Vec<u8> {
    std::fs::read(Path::new("tests/golden/data/images").join(name)).unwrap()
}
