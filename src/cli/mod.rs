//! The command line, in two steps: [`parse`] reads what the user typed
//! ([`Typed`]), [`resolve()`] turns it into what was meant (a
//! [`Config`](crate::config::Config), with every default filled in and every
//! cross-check done).
//!
//! A flag's name is written once, in kebab-case; [`command`] adds the
//! underscore spelling of upstream's scripts to every flag. A subcommand is a tool
//! ([`ToolArgs`], [`resolve_tool`]); without one, the flags describe a run.

mod args;
pub mod resolve;
mod tool;
mod values;

pub use args::*;
pub use resolve::{Resolved, resolve};
pub use tool::resolve_tool;
pub use values::{LarsExclude, PrecisionAsked};

use clap::parser::ValueSource;
use clap::{CommandFactory, FromArgMatches};
use std::ffi::OsString;

/// What the user typed: the values, which of them were typed rather than defaults, and the words themselves.
#[derive(Clone, Debug)]
pub struct Typed {
    pub args: Args,
    /// The command line with the program's name.
    pub words: Vec<String>,
    matches: clap::ArgMatches,
}

impl Typed {
    /// True when the flag stands on the command line; `id` is its name with underscores.
    ///
    /// Panics if there is no such flag.
    pub fn has(&self, id: &str) -> bool {
        self.matches.value_source(id) == Some(ValueSource::CommandLine)
    }
}

/// A flag's name as help shows it: `batch_size` is `--batch-size`.
pub fn flag_name(id: &str) -> String {
    format!("--{}", id.replace('_', "-"))
}

/// The whole command line, with the underscore spelling of every flag that has a dash.
pub fn command() -> clap::Command {
    let names: Vec<String> = Args::command().get_subcommands().map(|tool| tool.get_name().to_owned()).collect();
    names.iter().fold(with_underscores(Args::command()), |all, name| all.mut_subcommand(name, with_underscores))
}

fn with_underscores(command: clap::Command) -> clap::Command {
    command.mut_args(|arg| {
        let underscores = arg.get_long().filter(|long| long.contains('-')).map(|long| long.replace('-', "_"));
        // A negative number is a wrong value of its flag, not an unknown flag.
        let arg = if arg.get_action().takes_values() { arg.allow_negative_numbers(true) } else { arg };
        match underscores {
            Some(alias) => arg.alias(alias),
            None => arg,
        }
    })
}

/// Reads a command line, the program's name first.
///
/// Errors: clap's, which print themselves; `--help` and `--version` are among them.
pub fn parse(words: impl IntoIterator<Item = impl Into<OsString>>) -> Result<Typed, clap::Error> {
    let words: Vec<OsString> = words.into_iter().map(Into::into).collect();
    let matches = command().try_get_matches_from(&words)?;
    let args = Args::from_arg_matches(&matches).map_err(|error| error.format(&mut command()))?;
    let words = words.iter().map(|word| word.to_string_lossy().into_owned()).collect();
    Ok(Typed { args, words, matches })
}
