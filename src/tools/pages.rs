//! `flatnce completions`, `flatnce man` and `flatnce list`: texts about the program itself, which the command line knows.

use crate::durable;
use crate::report::Console;
use anyhow::{Context, Result};
use std::io::Write;
use std::path::PathBuf;

/// Texts, and where they go.
#[derive(Clone, Debug)]
pub struct Pages {
    /// The name of each text's file, and the text.
    pub pages: Vec<(String, String)>,
    /// Directory for their files, which is made where it is not there; without one they are printed, one after the other.
    pub out: Option<PathBuf>,
}

/// Writes or prints them.
///
/// Errors: a directory or a file that cannot be written.
pub fn run(pages: &Pages, console: &Console) -> Result<()> {
    let Some(out) = &pages.out else {
        pages.pages.iter().for_each(|(_, text)| console.result(text));
        return Ok(());
    };
    std::fs::create_dir_all(out).with_context(|| format!("cannot create {}; choose another --out", out.display()))?;
    for (name, text) in &pages.pages {
        let path = out.join(name);
        let unwritten = || format!("cannot write {}", path.display());
        durable::replace(&path, |file| file.write_all(text.as_bytes()).with_context(unwritten))?;
        console.note(&path.display().to_string());
    }
    Ok(())
}
