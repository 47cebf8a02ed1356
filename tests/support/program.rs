//! The program as a child process, and what it says.

use assert_cmd::cargo::CommandCargoExt;
use std::process::{Command, Output};

/// `flatnce` with these arguments, on one thread: tests run beside each other, and teams of threads would fight over the
/// cores.
pub fn flatnce(arguments: &[&str]) -> Command {
    let mut command = Command::cargo_bin("flatnce").expect("the binary is built");
    command.args(arguments).env("OMP_NUM_THREADS", "1");
    command
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
