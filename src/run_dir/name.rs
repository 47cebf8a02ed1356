//! Runs that have a name of their own (`--name`) in the place of the time when they began.

use super::ABANDONED;
use anyhow::{Context, Result, anyhow};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

/// What file systems take for the name of a file.
const LONGEST_BYTES: usize = 255;

/// Reads the name of a run, which becomes that of a directory.
///
/// # Errors
/// No directory can have that name, or one that has it would be taken for something else.
pub fn run_name(text: &str) -> Result<String, String> {
    if text.is_empty() {
        return Err("a name is not empty".to_owned());
    }
    if text.contains('/') {
        return Err("a name has no slash; --save-dir says where the results go".to_owned());
    }
    if text.chars().any(char::is_control) {
        return Err("a name has no control characters".to_owned());
    }
    if text.starts_with(['.', '-']) || text.starts_with(ABANDONED) {
        return Err(format!("a name begins neither with a dot or a hyphen nor with {ABANDONED}"));
    }
    if text.len() > LONGEST_BYTES {
        return Err(format!("a name has at most {LONGEST_BYTES} bytes"));
    }
    Ok(text.to_owned())
}

/// The directory that a run with this name would have.
///
/// # Errors
/// It is there already; with the next step.
pub fn check_name(parent: &Path, name: &str) -> Result<PathBuf> {
    let directory = parent.join(name);
    if directory.symlink_metadata().is_ok() { Err(taken(&directory)) } else { Ok(directory) }
}

/// Creates that directory.
///
/// # Errors
/// It is there already, or cannot be created.
pub fn create_with_name(parent: &Path, name: &str) -> Result<PathBuf> {
    let directory = check_name(parent, name)?;
    let cannot = |path: &Path| format!("cannot create {}; choose another place with --save-dir", path.display());
    std::fs::create_dir_all(parent).with_context(|| cannot(parent))?;
    match std::fs::create_dir(&directory) {
        // Another process was faster.
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Err(taken(&directory)),
        made => made.with_context(|| cannot(&directory)).map(|()| directory),
    }
}

fn taken(directory: &Path) -> anyhow::Error {
    let place = directory.display();
    anyhow!("{place} is there already; go on with that run (--resume {place}), or give this one another --name")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_can_be_a_run_is_a_name() {
        for name in ["first try", "lr-0.5", "é", "a.b", &"x".repeat(255)] {
            assert_eq!(run_name(name).as_deref(), Ok(name));
        }
        for (name, why) in [
            ("", "empty"),
            ("a/b", "slash"),
            ("/", "slash"),
            ("a\nb", "control"),
            (".", "a dot"),
            ("..", "a dot"),
            ("-x", "hyphen"),
            ("abandoned-1", "abandoned-"),
            (&"x".repeat(256), "255 bytes"),
        ] {
            let error = run_name(name).unwrap_err();
            assert!(error.contains(why), "{name}: {error}");
        }
    }

    #[test]
    fn a_name_is_given_once() {
        let place = tempfile::tempdir().unwrap();
        let parent = place.path().join("mini/8_FlatCLR");
        let made = create_with_name(&parent, "first").unwrap();
        assert!(made.ends_with("mini/8_FlatCLR/first") && made.is_dir());
        for again in [check_name(&parent, "first"), create_with_name(&parent, "first")] {
            let error = again.unwrap_err().to_string();
            assert!(error.contains("is there already") && error.contains("--resume"), "{error}");
        }
        std::os::unix::fs::symlink("nowhere", parent.join("second")).unwrap();
        assert!(create_with_name(&parent, "second").is_err());
    }
}
