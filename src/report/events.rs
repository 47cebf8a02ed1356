//! TensorBoard's event files, written by ourselves: scalars, histograms, images and text.
//!
//! One file a process, `events.out.tfevents.<time>.<host>.<pid>.0`. Records are
//! gathered and written together at every flush; a crash in the middle leaves
//! a file whose whole records can all be read. A resumed run starts a file
//! that withdraws what earlier ones hold beyond the step it continues from.
//!
//! Field numbers are those of TensorFlow's `event.proto`, `summary.proto` and `tensor.proto`.

mod histogram;
mod records;

pub use histogram::Histogram;

use super::console::Console;
use super::log_file::{LogFile, file_in};
use super::numbers::{Number, Record};
use super::png::encode_png;
use crate::pixels::RgbRef;
use crate::protobuf::Message;
use anyhow::Result;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

const PREFIX: &str = "events.out.tfevents.";

/// The writer of one event file.
pub struct Events {
    file: LogFile,
    pending: Vec<u8>,
}

impl Events {
    /// Creates the process's event file in `directory`, if there is one. A resumed run passes
    /// the steps that it does not tell again, and TensorBoard forgets older records of later ones.
    ///
    /// # Errors
    /// The file cannot be created.
    pub fn create(directory: Option<&Path>, resumed_after: Option<u64>) -> Result<Self> {
        let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        // TensorBoard reads a directory's files by their names: this one comes last, however soon the run was continued.
        let later = directory.and_then(newest).map_or(0, |newest| newest + 1);
        let seconds = since_1970.as_secs().max(later);
        let name = format!("{PREFIX}{seconds:010}.{}.{}", host(), std::process::id());
        // Two runs of one process within a second differ in the last number.
        let path = (0..)
            .map(|number| file_in(directory, &format!("{name}.{number}")))
            .find(|path| directory.is_none() || !path.exists())
            .expect("the numbers do not end");
        let mut events = Events { file: LogFile::append(&path)?, pending: Vec::new() };
        events.push(0, |event| event.text(3, "brain.Event:2"));
        if let Some(steps) = resumed_after {
            // SessionLog { status: START }: TensorBoard purges what earlier files hold at or after this step.
            events.push(steps + 1, |event| event.message(7, |session| session.varint(1, 1)));
        }
        Ok(events)
    }

    /// A point of the curve `tag`.
    pub fn scalar(&mut self, tag: &str, step: u64, value: f64) {
        self.value(tag, step, |summary| summary.float(2, value as f32));
    }

    pub fn histogram(&mut self, tag: &str, step: u64, histogram: &Histogram) {
        self.value(tag, step, |summary| summary.message(5, |message| histogram.write(message)));
    }

    /// A picture; it is stored as PNG.
    ///
    /// # Errors
    /// As [`encode_png`].
    pub fn image(&mut self, tag: &str, step: u64, picture: RgbRef) -> Result<()> {
        const RGB: u64 = 3;
        let png = encode_png(picture)?;
        self.value(tag, step, |summary| {
            summary.message(4, |image| {
                image.varint(1, picture.height as u64);
                image.varint(2, picture.width as u64);
                image.varint(3, RGB);
                image.bytes(4, &png);
            });
        });
        Ok(())
    }

    /// Text, shown as Markdown.
    pub fn text(&mut self, tag: &str, step: u64, markdown: &str) {
        const STRING_TYPE: u64 = 7;
        self.value(&format!("{tag}/text_summary"), step, |summary| {
            summary.message(9, |metadata| metadata.message(1, |plugin| plugin.text(1, "text")));
            summary.message(8, |tensor| {
                tensor.varint(1, STRING_TYPE);
                tensor.message(2, |shape| shape.message(2, |dimension| dimension.varint(1, 1)));
                tensor.text(8, markdown);
            });
        });
    }

    /// An epoch's numbers under their tags; one that is none of `numbers` keeps its name.
    pub fn epoch(&mut self, record: &Record, numbers: &[Number]) {
        for number in numbers {
            number.of(record).into_iter().for_each(|value| self.scalar(number.tag, record.step, value));
        }
        for key in record.numbers.keys().filter(|key| numbers.iter().all(|number| number.key != **key)) {
            record.get(key).into_iter().for_each(|value| self.scalar(key, record.step, value));
        }
    }

    /// One step's numbers, under `step/`.
    pub fn step(&mut self, record: &Record, numbers: &[Number]) {
        for (number, tag) in numbers.iter().filter_map(|number| Some((number, number.step_tag?))) {
            number.of(record).into_iter().for_each(|value| self.scalar(tag, record.step, value));
        }
    }

    /// Writes what was gathered.
    pub fn flush(&mut self, console: &Console) {
        self.file.write(&self.pending, console);
        self.pending.clear();
    }

    fn value(&mut self, tag: &str, step: u64, content: impl FnOnce(&mut Message)) {
        self.push(step, |event| {
            event.message(5, |summary| {
                summary.message(1, |value| {
                    value.text(1, tag);
                    content(value);
                });
            });
        });
    }

    fn push(&mut self, step: u64, what: impl FnOnce(&mut Message)) {
        let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let mut event = Message::default();
        event.double(1, since_1970.as_secs_f64());
        event.varint(2, step);
        what(&mut event);
        records::append(&mut self.pending, event.as_bytes());
    }
}

/// The latest time in the names of a directory's event files.
fn newest(directory: &Path) -> Option<u64> {
    let names = std::fs::read_dir(directory).ok()?.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    names.filter_map(|name| name.strip_prefix(PREFIX)?.split('.').next()?.parse().ok()).max()
}

/// The machine's name as far as a file name can carry it.
fn host() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname")
        .ok()
        .or_else(|| std::env::var("HOSTNAME").ok())
        .unwrap_or_default();
    let name: String = name.trim().chars().filter(|c| c.is_ascii_alphanumeric() || "-_".contains(*c)).collect();
    if name.is_empty() { "localhost".into() } else { name }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::Verbosity;

    #[test]
    fn a_resumed_run_withdraws_what_it_tells_again_in_the_file_that_is_read_last() {
        let directory = tempfile::tempdir().unwrap();
        let console = Console::to_writers(Verbosity::Normal, std::io::sink(), std::io::sink());
        // A clock that was ahead, and the number of a process that sorts last.
        std::fs::write(directory.path().join("events.out.tfevents.9999999990.host.99.0"), b"").unwrap();
        let start = |step: u8| [0x10, step, 0x3a, 0x02, 0x08, 0x01]; // Of this step: SessionLog { status: START }.
        for (resumed_after, expected) in [(None, None), (Some(0), Some(start(1))), (Some(40), Some(start(41)))] {
            let mut events = Events::create(Some(directory.path()), resumed_after).unwrap();
            events.flush(&console);
            let mut files: Vec<_> =
                std::fs::read_dir(directory.path()).unwrap().map(|entry| entry.unwrap().path()).collect();
            files.sort();
            let bytes = std::fs::read(files.last().unwrap()).unwrap();
            assert!(!bytes.is_empty(), "{files:?}");
            let found = bytes.windows(6).find(|window| window[2..] == start(0)[2..]);
            assert_eq!(found, expected.as_ref().map(|bytes| &bytes[..]), "{resumed_after:?}");
        }
    }
}
