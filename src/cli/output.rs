//! What the program says.

use super::flags::{EVERY, Flag, PRETRAINING, flag};
use crate::config::{LogFormat, Verbosity};
use crate::values::{count, one_of, switch};
use anyhow::{Result, bail};
use clap::ArgAction::Set;

#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Output")]
pub struct OutputArgs {
    /// Resolve and print everything, train nothing, create nothing
    #[arg(long, value_name = "BOOL", default_value = "false", hide_default_value = true, action = Set, value_parser = switch)]
    pub dry_run: bool,
    /// Steps between two close looks at features and gradients; 0 is once an epoch
    ///
    /// Gradient norm, alignment, uniformity and spread, in steps.jsonl and
    /// TensorBoard. They change nothing in the training.
    #[arg(long, value_name = "STEPS", default_value = "50", hide_short_help = true, value_parser = count::<0>)]
    pub log_every: u32,
    /// Lines for people (text) or a JSON object a line (json)
    #[arg(long, value_name = "FORMAT", default_value = "text", hide_short_help = true, value_parser = one_of!(LogFormat))]
    pub log_format: LogFormat,
    /// Print errors and the final result only
    #[arg(long, short, value_name = "BOOL", default_value = "false", hide_default_value = true, action = Set, value_parser = switch)]
    pub quiet: bool,
    /// Print details too
    #[arg(long, short, value_name = "BOOL", default_value = "false", hide_default_value = true, action = Set, value_parser = switch)]
    pub verbose: bool,
}

pub const FLAGS: &[Flag] = &[
    flag("dry_run", EVERY),
    flag("log_every", PRETRAINING).adopted("log_every"),
    flag("log_format", EVERY),
    flag("quiet", EVERY),
    flag("verbose", EVERY),
];

impl OutputArgs {
    /// Errors: both ways at once.
    pub fn talk(&self) -> Result<Verbosity> {
        match (self.quiet, self.verbose) {
            (true, true) => bail!("--quiet and --verbose contradict each other; leave one of them out"),
            (true, false) => Ok(Verbosity::Quiet),
            (false, true) => Ok(Verbosity::Verbose),
            (false, false) => Ok(Verbosity::Normal),
        }
    }
}
