//! What the program itself has written, and knows again: it is never data.
//!
//! A directory of results has a `config.yml` that begins with [`CONFIG_LINE`]; every
//! version wrote it. A picture is a PNG whose header a text chunk follows, which
//! names the program. Both marks move with what they mark.

use crate::files;
use std::io::Read;
use std::path::Path;

/// How the `config.yml` of a run or an evaluation begins.
pub const CONFIG_LINE: &str = "# Every setting of this run, resolved.";

/// What a complete pre-training run leaves beside its checkpoints: the encoder alone, and what it is.
pub const ENCODER_WEIGHTS: &str = "encoder.safetensors";
pub const ENCODER_DESCRIPTION: &str = "encoder.json";

/// Type and content of the text chunk (PNG specification, section 11.3.4.3).
const CHUNK: &[u8] = b"tEXtSoftware\0flatnce";
/// Bytes of a PNG's signature and header.
const HEADER_BYTES: usize = 8 + 25;
/// So many first bytes of a file show whether it is [`is_picture`].
pub const PICTURE_BYTES: usize = HEADER_BYTES + 4 + CHUNK.len();

/// Marks a PNG file in memory as the program's own.
pub fn mark_picture(png: &mut Vec<u8>) {
    let mut chunk = (CHUNK.len() as u32 - 4).to_be_bytes().to_vec();
    chunk.extend_from_slice(CHUNK);
    chunk.extend_from_slice(&crc32fast::hash(CHUNK).to_be_bytes());
    png.splice(HEADER_BYTES..HEADER_BYTES, chunk);
}

/// Whether a file that begins so is a picture of the program.
pub fn is_picture(beginning: &[u8]) -> bool {
    beginning.get(HEADER_BYTES + 4..).is_some_and(|text| text.starts_with(CHUNK))
}

/// Whether a directory that holds a `config.yml` is one of the program's results. Where somebody has taken the first
/// line away, the log or the numbers beside it tell.
pub fn is_run(directory: &Path) -> bool {
    let mut line = Vec::new();
    let most = CONFIG_LINE.len() as u64;
    let read = files::open(&directory.join("config.yml")).and_then(|file| file.take(most).read_to_end(&mut line));
    read.is_ok()
        && (line == CONFIG_LINE.as_bytes()
            || ["training.log", "metrics.jsonl"].iter().any(|name| directory.join(name).is_file()))
}
