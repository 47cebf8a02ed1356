//! Everything that prints, logs and draws: numbers and text in, no tensors.
//!
//! [`RunLog`] is what a training loop talks to; [`Console`] is the terminal for
//! everything else; [`plots`] draws curves; [`Table`] lays out evaluation results.

mod console;
mod contact_sheet;
mod epoch_line;
mod eval_log;
mod events;
mod format;
mod json_lines;
mod log_file;
mod numbers;
pub mod plots;
mod png;
mod progress;
mod run_log;
mod table;

pub use console::{Console, Verbosity};
pub use contact_sheet::{contact_sheet, enlarged};
pub use eval_log::EvalLog;
pub use events::{Events, Histogram};
pub use format::{duration, short};
pub use json_lines::read_json_lines;
pub use numbers::{CloserLook, EpochReport, EvalRecord, StepRecord, StepReport};
pub use png::{encode_png, save_png};
pub use progress::{Progress, Waiting};
pub use run_log::{Plan, RunLog};
pub use table::Table;
