//! A shard: written in one go, and read back.

use super::manifest::ShardRecord;
use super::picture::{self, Made, Maker, Rule};
use super::plan::PartPlan;
use crate::digest::hex;
use crate::durable;
use crate::files;
use crate::report::Progress;
use anyhow::{Context, Result, bail};
use rayon::prelude::*;
use sha2::{Digest, Sha256};
use std::ffi::OsStr;
use std::io::{Read, Write};
use std::ops::Range;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use tar::{Builder, Header};

/// What passes through is counted and summed up.
struct Summed<W> {
    inner: W,
    sum: Sha256,
    bytes: u64,
}

impl<W: Write> Write for Summed<W> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let count = self.inner.write(bytes)?;
        self.sum.update(&bytes[..count]);
        self.bytes += count as u64;
        Ok(count)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.inner.flush()
    }
}

/// Writes shard `number` of a part. While some images are written the next ones are made ready by all threads.
///
/// Errors: an image that is missing or broken; the file cannot be written.
pub fn write(out: &Path, part: &PartPlan, number: usize, rule: &Rule, bar: &mut Progress) -> Result<ShardRecord> {
    let (name, range) = (part.shard_name(number), part.range(number));
    let together = 8 * rayon::current_num_threads();
    let mut written = None;
    durable::replace(&out.join(&name), |file| {
        let mut archive = Builder::new(Summed { inner: file, sum: Sha256::new(), bytes: 0 });
        let chunk = |start: usize| start.min(range.end)..(start + together).min(range.end);
        let mut at = chunk(range.start);
        let mut ready = made(part, at.clone(), rule)?;
        while !at.is_empty() {
            let next = chunk(at.end);
            let (put, following) =
                rayon::join(|| append(&mut archive, part, at.clone(), &ready), || made(part, next.clone(), rule));
            put?;
            bar.advance(at.len() as u64);
            (at, ready) = (next, following?);
        }
        let Summed { sum, bytes, .. } = archive.into_inner()?;
        written = Some((bytes, hex(&sum.finalize())));
        Ok(())
    })?;
    let (bytes, sha256) = written.context("the shard has not been written")?;
    Ok(ShardRecord { name, images: range.len(), bytes, sha256 })
}

fn made(part: &PartPlan, range: Range<usize>, rule: &Rule) -> Result<Vec<Made>> {
    let each = |maker: &mut Maker, index| picture::make(&part.split, index, rule, maker);
    range.into_par_iter().map_init(Maker::default, each).collect()
}

/// For each image its label, then itself: sorted by name, as WebDataset wants what belongs together.
fn append(archive: &mut Builder<impl Write>, part: &PartPlan, range: Range<usize>, ready: &[Made]) -> Result<()> {
    for (index, made) in range.zip(ready) {
        let key = part.key(index);
        let mut put = |extension: &[u8], bytes: &[u8]| -> std::io::Result<()> {
            let mut header = Header::new_gnu();
            header.set_mode(0o644);
            header.set_size(bytes.len() as u64);
            let name = [key.as_slice(), b".", extension].concat();
            archive.append_data(&mut header, OsStr::from_bytes(&name), bytes)
        };
        if let Some(label) = part.split.label(index) {
            put(b"cls", label.to_string().as_bytes())?;
        }
        let name = part.split.file_name(index).and_then(|path| path.file_name());
        let kept = name.and_then(|name| picture::extension_of(name.as_bytes()));
        put(made.extension.map(str::as_bytes).or(kept).unwrap_or(b"img"), &made.bytes)?;
    }
    Ok(())
}

/// Compares a shard with what was written.
///
/// Errors: it cannot be read; it has other bytes.
pub fn verify(path: &Path, record: &ShardRecord) -> Result<()> {
    let unreadable = || format!("{} cannot be read back", path.display());
    let mut file = files::open(path).with_context(unreadable)?;
    from_the_disk(&file);
    let (mut sum, mut bytes, mut buffer) = (Sha256::new(), 0, vec![0; 1 << 20]);
    loop {
        match file.read(&mut buffer).with_context(unreadable)? {
            0 => break,
            count => {
                sum.update(&buffer[..count]);
                bytes += count as u64;
            }
        }
    }
    if bytes != record.bytes || hex(&sum.finalize()) != record.sha256 {
        bail!(
            "{} reads back other bytes than were written ({bytes} of them instead of {}): it has been changed, or the \
             disk or the memory is at fault; run the command again, which writes it anew",
            path.display(),
            record.bytes
        );
    }
    Ok(())
}

/// What has just been written is in memory too; what counts is what the disk has.
fn from_the_disk(file: &std::fs::File) {
    #[cfg(target_os = "linux")]
    {
        use std::os::fd::AsRawFd;
        // SAFETY: plain numbers, and a descriptor that `file` keeps open. A hint: refused, it changes nothing.
        unsafe { libc::posix_fadvise(file.as_raw_fd(), 0, 0, libc::POSIX_FADV_DONTNEED) };
    }
    #[cfg(not(target_os = "linux"))]
    let _ = file;
}
