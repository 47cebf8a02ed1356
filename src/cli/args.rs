//! What the user typed: every flag of upstream's `main.py` under its own name
//! (kebab-case; the underscore spelling is an alias), and ours. Nothing is
//! decided here; [`super::resolve()`] gives it a meaning.
//!
//! One group a concern, each a heading of the help. A default that follows from
//! other flags is an `Option` and described in the flag's text. The first
//! paragraph of a text is what `-h` shows, which leaves out the rarer flags.

mod augmentation;
mod data;
mod doctor;
mod embed;
mod evaluation;
mod export;
mod inspect;
mod machine;
mod objective;
mod optimisation;
mod output;
mod preview;
mod report;
mod results;
mod tools;

pub use augmentation::AugmentationArgs;
pub use data::DataArgs;
pub use doctor::DoctorArgs;
pub use embed::EmbedArgs;
pub use evaluation::EvaluationArgs;
pub use export::ExportArgs;
pub use inspect::InspectArgs;
pub use machine::MachineArgs;
pub use objective::ObjectiveArgs;
pub use optimisation::OptimisationArgs;
pub use output::OutputArgs;
pub use preview::PreviewArgs;
pub use report::ReportArgs;
pub use results::ResultsArgs;
pub use tools::ToolArgs;

const EXAMPLES: &str = "\
Examples:
  Pre-train on the images inside the program, then judge the encoder:
    flatnce --dataset-name fashion_mnist_mini --model res10 --batch-size 64
    flatnce --dataset-name fashion_mnist_mini --train-mode eval \\
            --checkpoint-dir results/fashion_mnist_mini/64_FlatCLR/DATE
  See what a command would do, without doing it:
    flatnce --dataset-name cifar10 --dry-run
  Continue a run:
    flatnce --resume results/cifar10/512_FlatCLR/DATE

Switches read --flag, --flag true and --flag=False alike; underscores in the
names of flags work as well as dashes.";

/// Contrastive pre-training of image encoders with FlatNCE or InfoNCE (SimCLR),
/// and the evaluation of what they learned.
#[derive(Clone, Debug, clap::Parser)]
#[command(name = "flatnce", version, max_term_width = 100, after_long_help = EXAMPLES)]
#[command(args_conflicts_with_subcommands = true, subcommand_help_heading = "Tools", subcommand_value_name = "TOOL")]
#[command(after_help = "Every flag, with units and examples: --help")]
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
    pub output: OutputArgs,
}
