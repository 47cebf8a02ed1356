//! The command line, in two steps: [`parse`] reads what the user typed
//! ([`Typed`]), [`resolve()`] turns it into what was meant (a
//! [`Config`](crate::config::Config), with every default filled in and every
//! cross-check done).
//!
//! The flags are every one of upstream's `main.py` under its own name, and ours. They stand in groups, each a file and
//! a heading of the help: the flags, their rows in the table of who reads them ([`flags`]), and their meaning. A name is
//! written once, in kebab-case; [`command`] adds the underscore spelling of upstream's scripts. A default that follows
//! from other flags is an `Option` and described in the flag's text. The first paragraph of a text is what `-h` shows,
//! which leaves out the rarer flags. A new flag touches its group here, the configuration, and whoever reads it there.
//! A subcommand is a tool ([`ToolArgs`], [`resolve_tool`]); without one, the flags
//! describe a run.

mod about;
mod augmentation;
mod data;
mod evaluate;
pub mod flags;
mod list;
mod machine;
mod output;
mod pretrain;
pub mod resolve;
mod results;
mod resume;
mod settings;
mod tool;
pub mod train;

pub use augmentation::AugmentationArgs;
pub use data::DataArgs;
pub use evaluate::EvaluationArgs;
pub use machine::{MachineArgs, TrainingMachineArgs};
pub use output::OutputArgs;
pub use pretrain::{ObjectiveArgs, OptimisationArgs};
pub use resolve::{Resolved, resolve};
pub use results::ResultsArgs;
pub use tool::{ToolArgs, resolve_tool};
pub use train::TrainArgs;

use crate::config::{DatasetName, TrainMode};
use crate::native;
use crate::train::encoder_source;
use crate::values::OnePath;
use anyhow::{Result, anyhow};
use clap::parser::ValueSource;
use clap::{CommandFactory, FromArgMatches};
use settings::FlagValues;
use std::any::TypeId;
use std::ffi::OsString;
use std::path::PathBuf;

const EXAMPLES: &str = "\
Examples:
  Train on your own images for about an hour, with settings that suit them:
    flatnce train photos
  Pre-train on the images inside the program, then judge the encoder:
    flatnce --dataset-name fashion_mnist_mini --model res10 --batch-size 64
    flatnce --train-mode eval \\
            --checkpoint-dir results/fashion_mnist_mini/64_FlatCLR/DATE
  See what a command would do, without doing it:
    flatnce --dataset-name cifar10 --dry-run
  Continue a run:
    flatnce --resume results/cifar10/512_FlatCLR/DATE

Switches read --flag, --flag true and --flag=False alike; underscores in the
names of flags work as well as dashes.";

/// Behind the short help, which is also what a command without a word gets.
const FIRST_COMMANDS: &str = "\
First commands, for images in photos: a look, a training of an hour, every flag:
  flatnce preview --dataset-name folder --data photos --out views.png
  flatnce train photos
  flatnce --help";

/// Every flag's row, in the order of the help.
pub fn table() -> impl Iterator<Item = &'static flags::Flag> {
    let groups = [
        data::FLAGS,
        pretrain::FLAGS,
        augmentation::FLAGS,
        evaluate::FLAGS,
        results::FLAGS,
        machine::FLAGS,
        output::FLAGS,
    ];
    groups.into_iter().flatten()
}

/// The version, and what the program was made of: scripts/release.sh names the commit.
fn version(commit: Option<&str>) -> String {
    let commit = commit.map(|commit| format!("commit {commit}"));
    let libtorch = format!("libtorch {}", native::LIBTORCH);
    let cuda = native::cuda::built().is_ok().then(|| "CUDA part".to_owned());
    let parquet = cfg!(feature = "parquet").then(|| "parquet".to_owned());
    let parts: Vec<String> = commit.into_iter().chain([libtorch]).chain(cuda).chain(parquet).collect();
    format!("{} ({})", env!("CARGO_PKG_VERSION"), parts.join(", "))
}

/// Contrastive pre-training of image encoders with FlatNCE or InfoNCE (SimCLR),
/// and the evaluation of what they learned.
#[derive(Clone, Debug, clap::Parser)]
#[command(name = "flatnce", version, long_version = version(option_env!("FLATNCE_COMMIT")))]
#[command(max_term_width = 100, after_long_help = EXAMPLES)]
#[command(args_conflicts_with_subcommands = true, subcommand_help_heading = "Tools", subcommand_value_name = "TOOL")]
#[command(after_help = FIRST_COMMANDS, arg_required_else_help = true)]
pub struct Args {
    #[command(subcommand)]
    pub tool: Option<ToolArgs>,
    #[command(flatten)]
    pub data: DataArgs,
    #[command(flatten)]
    pub objective: ObjectiveArgs,
    #[command(flatten)]
    pub optimisation: OptimisationArgs,
    #[command(flatten)]
    pub augmentation: AugmentationArgs,
    #[command(flatten)]
    pub evaluation: EvaluationArgs,
    #[command(flatten)]
    pub results: ResultsArgs,
    #[command(flatten)]
    pub machine: MachineArgs,
    #[command(flatten)]
    pub training_machine: TrainingMachineArgs,
    #[command(flatten)]
    pub output: OutputArgs,
}

/// What the user typed: the values, which of them were typed rather than defaults, and the words themselves.
#[derive(Clone, Debug)]
pub struct Typed {
    pub args: Args,
    /// The command line with the program's name.
    pub words: Vec<String>,
    /// What of the images follows from the encoder's training, in a sentence.
    pub taken: Option<String>,
    matches: clap::ArgMatches,
    /// The same with the settings that stand in for flags, see [`Typed::over`].
    given: clap::ArgMatches,
}

impl Typed {
    /// True when the flag stands on the command line; `id` is its name with underscores.
    ///
    /// Panics if there is no such flag.
    pub fn has(&self, id: &str) -> bool {
        self.matches.value_source(id) == Some(ValueSource::CommandLine)
    }

    /// The same command with what it leaves open: the settings of `train`, and the images of an encoder's training where it
    /// names no others.
    ///
    /// Errors: an encoder that cannot be read, images that are no longer where they were; those of [`train::chosen`].
    pub fn completed(self) -> Result<Typed> {
        match self.args.tool.clone() {
            Some(ToolArgs::Train(args)) => train::chosen(&self, &args),
            // The file has them.
            None if self.has("config") => Ok(self),
            _ => self.with_images_of_encoder(),
        }
    }

    fn with_images_of_encoder(mut self) -> Result<Typed> {
        if self.has_too("dataset_name") && self.has_too("data") {
            return Ok(self);
        }
        let (source, key) = match &self.args.tool {
            Some(ToolArgs::Embed(embed)) => (embed.source(), embed.checkpoint_key.as_deref()),
            Some(_) => return Ok(self),
            None => match evaluate::judged(&self)? {
                Some(source) => (source, self.args.evaluation.checkpoint_key.as_deref()),
                None => return Ok(self),
            },
        };
        let images = match encoder_source::trained_on(&source, key) {
            Ok(Some(images)) => images,
            Ok(None) => return Ok(self),
            // Whoever opens it to evaluate it says what is wrong.
            Err(_) if self.has_too("dataset_name") => return Ok(self),
            Err(error) => return Err(error),
        };
        let mut data = self.data().clone();
        self.taken = data.take(&images, |id| self.has_too(id))?;
        match &mut self.args.tool {
            Some(ToolArgs::Embed(embed)) => embed.data = data,
            _ => self.args.data = data,
        }
        Ok(self)
    }

    /// The flags of the images.
    fn data(&self) -> &DataArgs {
        self.args.tool.as_ref().and_then(ToolArgs::data).unwrap_or(&self.args.data)
    }

    /// True when the flag stands on the command line, or a setting in its place.
    ///
    /// Panics if there is no such flag.
    fn says(&self, id: &str) -> bool {
        self.given.value_source(id) == Some(ValueSource::CommandLine)
    }

    /// This command, with these flags in the place of those that were not typed: what was typed, and what it decides, wins.
    /// [`Typed::words`] and [`Typed::has`] stay those of the command line.
    ///
    /// Errors: clap's, without the advice to look at the help.
    fn over(&self, flags: &[FlagValues]) -> Result<Typed> {
        let typed: Vec<_> = table().filter(|row| self.has(row.id)).collect();
        let kept = flags.iter().filter(|flag| !typed.iter().any(|row| settings::decides(row, flag.id)));
        let (program, words) = self.words.split_at(1);
        let words = program.iter().cloned().chain(kept.flat_map(FlagValues::words)).chain(words.iter().cloned());
        let Typed { args, given, .. } = parse(words).map_err(|error| {
            let text = error.to_string();
            anyhow!("{}", text.lines().next().unwrap_or_default().trim_start_matches("error: "))
        })?;
        Ok(Typed { args, given, ..self.clone() })
    }

    /// Whether --transfer-dataset-name names the images.
    fn names_other_images(&self) -> bool {
        match self.args.evaluation.train_mode {
            TrainMode::Transfer => true,
            TrainMode::Eval => false,
            TrainMode::Ssl | TrainMode::Semi | TrainMode::Supervised => self.says("transfer_dataset_name"),
        }
    }

    /// Whether a word of the command, of a tool or of a run, is this flag; not where the tool has no such flag.
    fn has_too(&self, id: &str) -> bool {
        let matches = self.matches.subcommand().map_or(&self.matches, |(_, tool)| tool);
        matches.try_contains_id(id).is_ok() && matches.value_source(id) == Some(ValueSource::CommandLine)
    }

    /// The images that a run trains or judges on.
    fn dataset(&self) -> DatasetName {
        let Args { data, evaluation, .. } = &self.args;
        if self.names_other_images() { evaluation.transfer_dataset_name } else { data.dataset_name }
    }

    /// A flag on the command line, with its value, as one word for each time that it was given.
    ///
    /// Panics if there is no such flag.
    fn words(&self, id: &str) -> Vec<String> {
        words(&self.matches, id)
    }

    /// The same of a tool's flag; none where the tool has no such flag, or it was not typed.
    fn words_too(&self, id: &str) -> Vec<String> {
        let matches = self.matches.subcommand().map_or(&self.matches, |(_, tool)| tool);
        if self.has_too(id) { words(matches, id) } else { Vec::new() }
    }
}

fn words(matches: &clap::ArgMatches, id: &str) -> Vec<String> {
    let mut words = Vec::new();
    for values in matches.get_raw_occurrences(id).into_iter().flatten() {
        let values: Vec<_> = values.map(|value| value.to_string_lossy()).collect();
        words.push(format!("{}={}", flag_name(id), values.join(",")));
    }
    words
}

/// A flag's name as help shows it: `batch_size` is `--batch-size`.
pub fn flag_name(id: &str) -> String {
    format!("--{}", id.replace('_', "-"))
}

/// The whole command line, with what holds for every flag of it.
pub fn command() -> clap::Command {
    let names: Vec<String> = Args::command().get_subcommands().map(|tool| tool.get_name().to_owned()).collect();
    let run = Args::command();
    let all = run.clone().mut_subcommand("train", |tool| train::with_flags_of(&run, tool));
    names.iter().fold(rules(all), |all, name| all.mut_subcommand(name, rules))
}

/// Of a flag given twice the last one counts, as argparse has it; names with dashes are read with underscores too. All
/// paths are read alike.
fn rules(command: clap::Command) -> clap::Command {
    command.args_override_self(true).mut_args(|arg| {
        let underscores = arg.get_long().filter(|long| long.contains('-')).map(|long| long.replace('-', "_"));
        // A negative number is a wrong value of its flag, not an unknown flag.
        let arg = if arg.get_action().takes_values() { arg.allow_negative_numbers(true) } else { arg };
        let switch = arg.get_value_names().is_some_and(|names| names == ["BOOL"]);
        let arg = if switch { arg.num_args(0..=1).default_missing_value("true") } else { arg };
        let arg =
            if arg.get_value_parser().type_id() == TypeId::of::<PathBuf>() { arg.value_parser(OnePath) } else { arg };
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
    Ok(Typed { args, words, taken: None, given: matches.clone(), matches })
}

#[cfg(test)]
mod tests {
    use super::version;

    #[test]
    fn the_version_says_what_the_program_is_made_of() {
        let (plain, released) = (version(None), version(Some("0123abc")));
        assert!(plain.starts_with(concat!(env!("CARGO_PKG_VERSION"), " (libtorch 2.11.0")), "{plain}");
        assert_eq!(released, plain.replace("(libtorch", "(commit 0123abc, libtorch"));
        assert_eq!(plain.contains(", parquet"), cfg!(feature = "parquet"));
    }
}
