//! Contrastive pre-training of image encoders: SimCLR (InfoNCE) and FlatCLR
//! (FlatNCE, arXiv 2107.01152) over libtorch.
//!
//! Floors; a module uses only floors below its own (`tests/layers.rs`):
//! `tools`, F3 `train`, F2 `loader`, F1 `data` `augment` `model` `loss` `optim` `monitor`
//! `report` `run_dir` `checkpoint`, F0 `torch_file` `state` `config` `device`
//! `durable` `memory` `native` `pixels` `rng` `vectorise`. `cli` sits on top of all.

#[macro_use]
mod vectorise;

pub mod augment;
pub mod checkpoint;
pub mod cli;
pub mod config;
pub mod data;
pub mod device;
pub mod durable;
pub mod loader;
pub mod loss;
pub mod memory;
pub mod model;
pub mod monitor;
pub mod native;
pub mod optim;
pub mod pixels;
pub mod report;
pub mod rng;
pub mod run_dir;
pub mod state;
pub mod tools;
pub mod torch_file;
pub mod train;

use config::{Job, LogFormat, Talk};
use report::{Console, Verbosity};
use signal_hook::consts::{SIGINT, SIGTERM, SIGUSR1};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

/// How a run ended, when it did not fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    Done,
    /// Stopped on request; everything is saved.
    Stopped,
}

/// Does what the command line asks for.
///
/// Errors: whatever stops the run, with its causes.
pub fn run(resolved: &cli::Resolved) -> anyhow::Result<Outcome> {
    let console = Console::new(
        match resolved.config.talk {
            Talk::Quiet => Verbosity::Quiet,
            Talk::Normal => Verbosity::Normal,
            Talk::Verbose => Verbosity::Verbose,
        },
        resolved.config.log_format,
    );
    for warning in &resolved.warnings {
        console.warn(warning);
    }
    if resolved.config.dry_run {
        cli::dry_run::run(resolved, &console)?;
        return Ok(Outcome::Done);
    }
    device::configure(resolved.config.numerics())?;
    match &resolved.config.job {
        Job::Pretrain(pretrain) => {
            console.note(&format!("device: {}; precision: {}", resolved.device_note, resolved.precision_note));
            let stop = stop_on_signals()?;
            Ok(match train::pretrain::run(&resolved.config, pretrain, resolved.device, &console, &stop)? {
                train::pretrain::Ended::Finished => Outcome::Done,
                train::pretrain::Ended::Stopped => Outcome::Stopped,
            })
        }
        Job::Evaluate(evaluate) => {
            console.note(&format!("device: {}; precision: {}", resolved.device_note, resolved.precision_note));
            train::evaluate::run(&resolved.config, evaluate, resolved.device, &console)?;
            Ok(Outcome::Done)
        }
    }
}

/// Does what a subcommand asks for.
///
/// Errors: whatever stops it, with its causes.
pub fn use_tool(tool: &config::Tool) -> anyhow::Result<()> {
    tools::run(tool, &Console::new(Verbosity::Normal, LogFormat::Text))
}

/// A flag that SIGINT, SIGTERM and SIGUSR1 set: Ctrl-C, and the warnings of Slurm and Kubernetes before they kill. A
/// second SIGINT ends the program at once.
fn stop_on_signals() -> anyhow::Result<Arc<AtomicBool>> {
    let stop = Arc::new(AtomicBool::new(false));
    // In this order: the first SIGINT finds the flag unset.
    signal_hook::flag::register_conditional_shutdown(SIGINT, 130, Arc::clone(&stop))?;
    for signal in [SIGINT, SIGTERM, SIGUSR1] {
        signal_hook::flag::register(signal, Arc::clone(&stop))?;
    }
    Ok(stop)
}
