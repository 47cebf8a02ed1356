//! The subcommands: what is done with checkpoints and results beside training.

mod doctor;
mod embed;
mod export;
mod inspect;
mod pack;
mod pages;
mod preview;
mod report;

use crate::report::Console;
use crate::train::ranks::Ranks;
use anyhow::Result;

pub use doctor::Doctor;
pub use embed::{Embed, FeatureFiles};
pub use export::Export;
pub use inspect::Inspect;
pub use pack::{Pack, Packing};
pub use pages::Pages;
pub use preview::{Preview, Sheet};
pub use report::Report;

/// A subcommand, and what it is to do.
#[derive(Clone, Debug)]
pub enum Tool {
    Doctor(Doctor),
    Export(Export),
    Inspect(Inspect),
    Embed(Box<Embed>),
    Pack(Box<Pack>),
    Pages(Pages),
    Preview(Box<Preview>),
    Report(Report),
}

/// Does what a subcommand asks for; `embed` alone is shared by several processes.
///
/// Errors: whatever stops it, with its causes.
pub fn run(tool: &Tool, console: &Console, ranks: &Ranks) -> Result<()> {
    match tool {
        Tool::Doctor(doctor) => doctor::run(doctor, console),
        Tool::Export(export) => export::run(export, console),
        Tool::Inspect(inspect) => inspect::run(inspect, console),
        Tool::Embed(embed) => embed::run(embed, console, ranks),
        Tool::Pack(pack) => pack::run(pack, console),
        Tool::Pages(pages) => pages::run(pages, console),
        Tool::Preview(preview) => preview::run(preview, console),
        Tool::Report(report) => report::run(report, console),
    }
}
