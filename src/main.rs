//! Parse, run, report: everything else is in the library.

use flatnce::config::LogFormat;
use flatnce::report::{Console, Verbosity};
use flatnce::{Outcome, cli};
use std::io::{ErrorKind, Write};
use std::process::ExitCode;

/// The command line is at fault, or asks for what this machine does not have.
const USAGE: u8 = 2;

fn main() -> ExitCode {
    flatnce::memory::keep_freed_blocks();
    // SAFETY: the program has one thread yet.
    unsafe { flatnce::distributed::quieten() };
    if let Err(error) = flatnce::durable::let_writes_fail() {
        return fail(LogFormat::Text, &error, 1);
    }
    let typed = match cli::parse(std::env::args_os()) {
        Ok(typed) => typed,
        Err(error) if error.use_stderr() => error.exit(),
        Err(asked) => return tell(&asked),
    };
    let typed = match typed.completed() {
        Ok(typed) => typed,
        Err(error) => return fail(LogFormat::Text, &error, USAGE),
    };
    if let Some(tool) = &typed.args.tool {
        return match cli::resolve_tool(&typed, tool) {
            Ok(tool) => {
                flatnce::use_tool(&tool).map_or_else(|error| fail(LogFormat::Text, &error, 1), |()| ExitCode::SUCCESS)
            }
            Err(error) => fail(LogFormat::Text, &error, USAGE),
        };
    }
    let resolved = match cli::resolve(&typed, &cli::resolve::read_saved) {
        Ok(resolved) => resolved,
        Err(error) => return fail(LogFormat::Text, &error, USAGE),
    };
    let format = resolved.config.log_format;
    match flatnce::run(resolved) {
        Ok(Outcome::Done) => ExitCode::SUCCESS,
        Ok(Outcome::Stopped) => ExitCode::from(flatnce::STOPPED as u8),
        Err(error) => fail(format, &error, 1),
    }
}

/// Help and the version, which were asked for.
fn tell(asked: &clap::Error) -> ExitCode {
    match asked.print().and_then(|()| std::io::stdout().flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            let error = anyhow::Error::new(error).context("cannot write to standard output");
            fail(LogFormat::Text, &error, 1)
        }
        _ => ExitCode::SUCCESS,
    }
}

fn fail(format: LogFormat, error: &anyhow::Error, code: u8) -> ExitCode {
    Console::new(Verbosity::Quiet, format).error(error);
    ExitCode::from(code)
}
