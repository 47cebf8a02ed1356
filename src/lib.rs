//! Contrastive pre-training of image encoders: SimCLR (InfoNCE) and FlatCLR
//! (FlatNCE, arXiv 2107.01152) over libtorch.
//!
//! Floors; a module uses only floors below its own (`tests/layers.rs`):
//! `tools`, F3 `train`, F2 `loader`, F1 `data` `augment` `model` `optim` `monitor`
//! `report` `run_dir` `checkpoint`, F0 `torch_file` `state` `clock` `config` `device` `digest` `distributed`
//! `durable` `files` `loss` `memory` `native` `own` `pixels` `rng` `threads` `values`
//! `vectorise`. `cli` sits on top of all.
//!
//! Where to begin: [`run`] below is the program; `train/pretrain.rs` has the method in one loop, `loss/` the two
//! objectives. What a newcomer adds, and the files that it touches:
//!
//! | new | files | told at the top of |
//! |---|---|---|
//! | data set | its own in `data/`, its place in `data/mod.rs`, its name in `config/choices.rs` | `data/mod.rs` |
//! | objective | its own in `loss/`, its rows in `loss/mod.rs` | `loss/mod.rs` |
//! | operation of a view | its own in `augment/`, its place in `augment/mod.rs`, its settings in `config/parts.rs`, its case in `native/cuda/kernels/view_color.cuh` | `augment/mod.rs` |
//! | number of a run | a function in `monitor/`, its row in `train/pretrain/numbers.rs` | `train/pretrain/numbers.rs` |
//! | flag | its text and row in its group in `cli/`, its setting in `config/`, whoever reads it | `cli/mod.rs` |

#[macro_use]
mod vectorise;

pub mod augment;
pub mod checkpoint;
pub mod cli;
mod clock;
#[macro_use]
pub mod config;
pub mod data;
pub mod device;
mod digest;
pub mod distributed;
pub mod durable;
pub mod files;
pub mod loader;
pub mod loss;
pub mod memory;
pub mod model;
pub mod monitor;
pub mod native;
pub mod optim;
pub mod own;
pub mod pixels;
mod protobuf;
pub mod report;
pub mod rng;
pub mod run_dir;
pub mod state;
mod threads;
pub mod tools;
pub mod torch_file;
pub mod train;
pub mod values;

use anyhow::Context;
use config::{Job, LogFormat};
use distributed::Placement;
use report::{Console, Verbosity};
use signal_hook::consts::{SIGINT, SIGTERM, SIGUSR1};
use signal_hook::iterator::Signals;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use tools::Tool;
use train::facts::Facts;
use train::ranks::Ranks;

pub use distributed::STOPPED;

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
pub fn run(resolved: cli::Resolved) -> anyhow::Result<Outcome> {
    native::caught(|| run_resolved(resolved)).unwrap_or_else(|error| Err(libtorch_failed(error)))
}

/// A failure of libtorch that nobody nearer to it has put into words.
fn libtorch_failed(error: native::NativeError) -> anyhow::Error {
    let text = if error.is_out_of_memory() {
        "out of memory: free some (nvidia-smi shows who holds a GPU's), or take a smaller --batch-size, --image-size or \
         --model"
    } else {
        "libtorch failed"
    };
    anyhow::Error::new(error).context(text)
}

fn run_resolved(resolved: cli::Resolved) -> anyhow::Result<Outcome> {
    let cli::Resolved {
        config,
        checkpoint,
        device,
        placement,
        device_note,
        precision_note,
        images_note,
        settings_note,
        warnings,
    } = resolved;
    let place = placement.as_ref();
    let console = console_of(place, || Console::new(config.talk, config.log_format));
    let timeout = Duration::from_secs(config.distributed_timeout_seconds.into());
    let processes = place.map_or(config.nproc.unwrap_or(1), |place| place.world_size as u32);
    train::ranks::check_job(&config.job, processes)?;
    if let Some(count) = config.nproc.filter(|_| !config.dry_run) {
        // The processes read it themselves, and their memory is wanted.
        drop(checkpoint);
        return start(count, timeout);
    }
    if config.dry_run && place.is_some_and(|place| place.rank > 0) {
        // One of those that a launcher has started speaks for all.
        return Ok(Outcome::Done);
    }
    warnings.iter().for_each(|warning| console.warn(warning));
    device::configure(config.numerics())?;
    let gpu = matches!(device, tch::Device::Cuda(_));
    let mut machine = format!("device: {device_note}; precision: {precision_note}");
    if config.cuda.fused_kernels && gpu {
        match native::cuda::kernels::enable(device) {
            Ok(()) => machine.push_str("\nkernels: fused BatchNorm and augmentation"),
            Err(reason) => {
                console.warn(&format!("kernels: libtorch's, because the fused ones cannot be used: {reason}"))
            }
        }
    }
    if config.dry_run {
        let mut facts = Facts::default();
        if let Some(note) = &settings_note {
            facts.say("settings", note);
        }
        facts.say("device", &device_note);
        facts.say("precision", &precision_note);
        facts.say("workers", format!("{} to load and augment", data::counted(config.workers as usize, "thread")));
        let told = native::caught(|| match &config.job {
            Job::Pretrain(run) => {
                train::pretrain::tell(&mut facts, &config, run, checkpoint, device, processes, &console)
            }
            Job::Evaluate(run) => train::evaluate::tell(&mut facts, &config, run, device, processes, &console),
        })
        .unwrap_or_else(|error| Err(libtorch_failed(error)));
        // What is known is said, whatever stops the run.
        console.results("plan", &[facts.record()], &facts.to_string());
        return told.and_then(|()| console.delivered()).map(|()| Outcome::Done);
    }
    settings_note.iter().for_each(|note| console.note(note));
    machine.lines().chain(images_note.as_deref()).for_each(|line| console.note(line));
    let hello = distributed::hello(&serde_json::to_value(&config)?);
    match &config.job {
        Job::Pretrain(run) => {
            let stop = Stop::on_signals(&console)?;
            let ended = distributed::together(place, &hello, gpu, timeout, |group| {
                let ranks = Ranks::from(group);
                let plan = train::pretrain::Plan::make(&config, run, checkpoint, device, &console, &ranks)?;
                train::pretrain::foresee(&plan, &config, &console)?;
                train::pretrain::run(plan, &console, stop.begin())
            })?;
            Ok(match ended {
                train::pretrain::Ended::Finished => Outcome::Done,
                train::pretrain::Ended::Stopped => Outcome::Stopped,
            })
        }
        Job::Evaluate(run) => {
            let stop = Stop::on_signals(&console)?;
            let ended = distributed::together(place, &hello, gpu, timeout, |group| {
                let ranks = Ranks::from(group);
                let plan = train::evaluate::Plan::make(&config, run, device, &console, &ranks)?;
                train::evaluate::run(&plan, &console, stop.begin())
            })?;
            console.delivered()?;
            Ok(if ended.stopped { Outcome::Stopped } else { Outcome::Done })
        }
    }
}

/// Does what a subcommand asks for.
///
/// Errors: whatever stops it, with its causes.
pub fn use_tool(tool: &Tool) -> anyhow::Result<()> {
    native::caught(|| use_resolved(tool)).unwrap_or_else(|error| Err(libtorch_failed(error)))
}

fn use_resolved(tool: &Tool) -> anyhow::Result<()> {
    let console = || Console::new(Verbosity::Normal, LogFormat::Text);
    let Tool::Embed(embed) = tool else {
        let console = console();
        return tools::run(tool, &console, &Ranks::alone()).and_then(|()| console.delivered());
    };
    let timeout = Duration::from_secs(embed.distributed_timeout_seconds.into());
    if let Some(count) = embed.nproc {
        return start(count, timeout).map(|_| ());
    }
    let place = distributed::placement(&|name| std::env::var(name).ok())?;
    let console = console_of(place.as_ref(), console);
    let hello = distributed::hello(&serde_json::json!({ "embed": format!("{:?}", embed.source) }));
    let gpu = place.is_some() && matches!(device::resolve(embed.device)?.0, tch::Device::Cuda(_));
    distributed::together(place.as_ref(), &hello, gpu, timeout, |group| {
        tools::run(tool, &console, &Ranks::from(group))
    })?;
    console.delivered()
}

/// One of several processes talks; the others have only their errors.
fn console_of(place: Option<&Placement>, console: impl FnOnce() -> Console) -> Console {
    match place {
        Some(place) if place.rank > 0 => Console::silent(),
        _ => console(),
    }
}

/// Starts this command line as several processes and waits for them.
fn start(count: u32, timeout: Duration) -> anyhow::Result<Outcome> {
    Ok(match distributed::nproc(count as usize, timeout)? {
        distributed::Ended::Done => Outcome::Done,
        distributed::Ended::Stopped => Outcome::Stopped,
    })
}

/// Whoever sends a signal to a whole group of processes, and a parent that hands it on, send it twice.
const ECHO: Duration = Duration::from_secs(1);

/// What SIGINT, SIGTERM and SIGUSR1 ask for: Ctrl-C, and the warnings of Slurm and Kubernetes before they kill.
struct Stop {
    asked: Arc<AtomicBool>,
    /// There is something to save.
    begun: Arc<AtomicBool>,
}

impl Stop {
    /// Listens. The first signal is answered at once, however long the work under way takes; before anything is trained it
    /// ends the program. A second SIGINT ends it in any case, and so does a second SIGTERM that is no echo of the first.
    fn on_signals(console: &Console) -> anyhow::Result<Stop> {
        let flag = || Arc::new(AtomicBool::new(false));
        let (stop, interrupted) = (Stop { asked: flag(), begun: flag() }, flag());
        // In this order: the first SIGINT finds the flag unset.
        signal_hook::flag::register_conditional_shutdown(SIGINT, 128 + SIGINT, Arc::clone(&interrupted))?;
        signal_hook::flag::register(SIGINT, interrupted)?;
        for signal in [SIGINT, SIGTERM, SIGUSR1] {
            signal_hook::flag::register(signal, Arc::clone(&stop.asked))?;
        }
        // A handler may neither print nor look at the time; this thread is told by one.
        let (mut signals, console) = (Signals::new([SIGINT, SIGTERM, SIGUSR1])?, console.clone());
        let begun = Arc::clone(&stop.begun);
        let answer = move || {
            let (mut answered, mut terminated) = (false, None);
            for signal in signals.forever() {
                if signal == SIGTERM && terminated.get_or_insert_with(Instant::now).elapsed() > ECHO {
                    signal_hook::low_level::exit(128 + SIGTERM);
                }
                let name = signal_hook::low_level::signal_name(signal).unwrap_or("a signal");
                if !begun.load(Ordering::Acquire) {
                    console.note(&format!("{name}: stopped before the first step: the same command begins again"));
                    signal_hook::low_level::exit(STOPPED);
                }
                if !std::mem::replace(&mut answered, true) {
                    console.note(&format!(
                        "{name}: stopping after the step under way, then saving; SIGINT or SIGTERM once more ends at \
                         once, without saving"
                    ));
                }
            }
        };
        let thread = std::thread::Builder::new().name("signals".into()).spawn(answer);
        thread.with_context(|| threads::refused("the thread that answers signals"))?;
        Ok(stop)
    }

    /// Everything is ready to be trained: from here on a stop is a request to save.
    fn begin(&self) -> &AtomicBool {
        self.begun.store(true, Ordering::Release);
        &self.asked
    }
}
