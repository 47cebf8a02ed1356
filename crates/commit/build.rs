//! Asks git for the commit that the sources are of.
//!
//! It asks again when a source has changed, since the program is compiled again then anyway. A commit alone compiles
//! nothing again: the program goes on to name the commit that it was built at, whose sources it has.

use std::path::{Path, PathBuf};
use std::process::Command;

/// What the program is made of.
const SOURCES: &[&str] = &["src", "crates", "build.rs", "Cargo.toml", "Cargo.lock"];

fn main() {
    let package = PathBuf::from(std::env::var_os("CARGO_MANIFEST_DIR").expect("cargo sets it"));
    let root = package.join("../..");
    for source in SOURCES {
        println!("cargo:rerun-if-changed={}", root.join(source).display());
    }
    println!("cargo:rustc-env=FLATNCE_COMMIT={}", said(&root));
}

/// The commit of the sources in `root`, or that it is unknown and why; one line.
pub fn said(root: &Path) -> String {
    commit(root).unwrap_or_else(|why| format!("unknown: {why}"))
}

fn commit(root: &Path) -> Result<String, String> {
    // An archive of the sources may have been unpacked inside somebody else's repository.
    match git(root, &["rev-parse", "--show-prefix"])?.as_str() {
        "" => {}
        _ => return Err("built from sources that are no git repository of their own".to_owned()),
    }
    let commit = git(root, &["log", "-1", "--abbrev=12", "--format=%h of %cs"])?;
    let changes = git(root, &[&["status", "--porcelain", "--"], SOURCES].concat())?;
    Ok(commit + if changes.is_empty() { "" } else { ", with changes" })
}

/// What a command of git prints.
///
/// Errors: there is no git, or the first line of what it complains about.
fn git(root: &Path, words: &[&str]) -> Result<String, String> {
    let mut command = Command::new("git");
    // A hook of git has these set, to a repository that need not be this one.
    for name in ["GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_PREFIX"] {
        command.env_remove(name);
    }
    let output = command.arg("--no-optional-locks").args(words).current_dir(root).env("LC_ALL", "C").output();
    let output = output.map_err(|error| format!("git does not start ({error})"))?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
    if output.status.success() {
        return Ok(text(&output.stdout));
    }
    let complaint = text(&output.stderr);
    Err(format!("built without git's knowledge ({})", complaint.lines().next().unwrap_or("git failed")))
}
