//! Everything that prints, logs and draws: numbers and text in, no tensors.
//!
//! [`RunLog`] is what a training loop talks to; [`Console`] is the terminal for
//! everything else; [`plots`] draws curves; [`Table`] lays out evaluation results.

mod console;
mod contact_sheet;
mod epoch_line;
mod events;
mod format;
mod json_lines;
mod log;
mod log_file;
mod numbers;
pub mod plots;
mod png;
mod progress;
mod run_log;
mod table;

pub use console::{Console, Verbosity};
pub use contact_sheet::{contact_sheet, enlarged};
pub use events::{Events, Histogram};
pub use format::{duration, short};
pub use json_lines::{keep_later_lines, read_json_lines, salvage_json_lines};
pub use log::Log;
pub use numbers::{Chart, EvalRecord, Number, Record, Scale};
pub use png::{encode_png, save_png};
pub use progress::{Progress, Waiting};
pub use run_log::{Plan, RunLog};
pub use table::{Cell, Table};
