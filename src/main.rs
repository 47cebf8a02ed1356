//! Parse, run, report: everything else is in the library.

use flatnce::config::LogFormat;
use flatnce::report::{Console, Verbosity};
use flatnce::{Outcome, cli};
use std::io::Write;
use std::process::ExitCode;

/// The command line is at fault, or asks for what this machine does not have.
const USAGE: u8 = 2;
/// Stopped on request, after saving: sysexits' EX_TEMPFAIL, run it again to continue.
const STOPPED: u8 = 75;

fn main() -> ExitCode {
    flatnce::memory::keep_freed_blocks();
    // SAFETY: the program has one thread yet.
    unsafe { flatnce::distributed::quieten() };
    let typed = match cli::parse(std::env::args_os()) {
        Ok(typed) => typed,
        // Help and the version come this way too; clap prints each where it belongs.
        Err(error) => error.exit(),
    };
    if let Some(tool) = &typed.args.tool {
        return match cli::resolve_tool(tool) {
            Ok(tool) => flatnce::use_tool(&tool).map_or_else(|error| fail(&error, 1), |()| ExitCode::SUCCESS),
            Err(error) => fail(&error, USAGE),
        };
    }
    let resolved = match cli::resolve(&typed, &cli::resolve::read_saved) {
        Ok(resolved) => resolved,
        Err(error) => return fail(&error, USAGE),
    };
    let format = resolved.config.log_format;
    match flatnce::run(resolved) {
        Ok(Outcome::Done) => ExitCode::SUCCESS,
        Ok(Outcome::Stopped) => ExitCode::from(STOPPED),
        Err(error) if format == LogFormat::Json => {
            Console::new(Verbosity::Quiet, LogFormat::Json).error(&format!("{error:#}"));
            ExitCode::from(1)
        }
        Err(error) => fail(&error, 1),
    }
}

/// The error and its causes in one block.
fn fail(error: &anyhow::Error, code: u8) -> ExitCode {
    let causes: String = error.chain().skip(1).map(|cause| format!("  caused by: {cause}\n")).collect();
    // Whoever read it may have gone.
    let _ = write!(std::io::stderr(), "error: {error}\n{causes}");
    ExitCode::from(code)
}
