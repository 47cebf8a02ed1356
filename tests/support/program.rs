//! The program as a child process, and what it says.

#![allow(dead_code, reason = "each test uses a part of it")]

use assert_cmd::cargo::CommandCargoExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// `flatnce` with these arguments, on one thread: tests run beside each other, and teams of threads would fight over the
/// cores.
pub fn flatnce(arguments: &[&str]) -> Command {
    let mut command = Command::cargo_bin("flatnce").expect("the binary is built");
    command.args(arguments).env("OMP_NUM_THREADS", "1");
    command
}

/// What comes of it.
pub fn start(arguments: &[&str]) -> Output {
    flatnce(arguments).output().expect("it starts")
}

/// All that a process printed.
pub fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

/// Runs a command to its end, which must be a good one.
pub fn succeeds(mut command: Command) -> Output {
    let output = command.output().expect("it starts");
    assert!(output.status.success(), "{command:?}\n{}", said(&output));
    output
}

/// The one run directory below a results directory, {dataset}/{batch}_{objective}/{date}, if it is there yet.
pub fn find_run(results: &Path) -> Option<PathBuf> {
    (0..3).try_fold(results.to_owned(), |at, _| {
        let entries: Vec<PathBuf> = std::fs::read_dir(&at).ok()?.flatten().map(|entry| entry.path()).collect();
        assert!(entries.len() <= 1, "a run writes into one directory: {entries:?}");
        entries.into_iter().next()
    })
}

/// The same of a run that has begun.
pub fn run_directory(results: &Path) -> PathBuf {
    find_run(results).unwrap_or_else(|| panic!("{} holds no run", results.display()))
}

/// The flag that sends a run's results there.
pub fn save_dir(results: &Path) -> String {
    format!("--save-dir={}", results.display())
}

/// A linear evaluation of a few embedded images, without its checkpoint and its place.
pub const SMALL_EVALUATION: &[&str] = &[
    "--train-mode=eval",
    "--transfer-mode=linear_eval",
    "--dataset-name=fashion_mnist_mini",
    "--train-images=64",
    "--image-size=16",
    "--fc-epochs=2",
    "--device=cpu",
];
