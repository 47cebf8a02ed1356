//! From what was typed to what is meant: every default, every check that looks
//! at more than one flag, the device and the precision.

mod evaluate;
mod modes;
pub(super) mod pretrain;
mod resume;

pub use resume::{Origin, ReadSaved, Saved, read_saved};

use super::{MachineArgs, Typed, flag_name};
use crate::checkpoint::Checkpoint;
use crate::config::{
    CheckpointPolicy, Config, CudaSettings, DataOnDevice, DeviceChoice, Engine, Job, Precision, Start, Talk, TrainMode,
};
use crate::device;
use crate::distributed::{self, Placement};
use anyhow::{Result, bail};
use std::path::PathBuf;

/// A command line, resolved: what to do and what to do it with.
#[derive(Debug)]
pub struct Resolved {
    pub config: Config,
    /// That of the run to be continued, read and verified.
    pub checkpoint: Option<Checkpoint>,
    pub device: tch::Device,
    /// This process's place among others; `None` = it is alone (or the parent that starts them).
    pub placement: Option<Placement>,
    /// What was chosen as device, and why.
    pub device_note: String,
    /// What was chosen as precision, and why.
    pub precision_note: String,
    /// What the user should know before the run starts.
    pub warnings: Vec<String>,
}

/// Resolves a command line; `saved` reads what a run to be continued says of itself ([`read_saved`]).
///
/// Errors: flags that contradict each other or the run to be continued, a device or precision that this machine
/// does not have, a checkpoint that cannot be read.
pub fn resolve(typed: &Typed, saved: &ReadSaved) -> Result<Resolved> {
    let args = &typed.args;
    modes::refuse(typed)?;
    let mut warnings = modes::without_effect(typed);
    let placement = placement(&args.machine)?;
    let choice = own_device(device_choice(&args.machine)?, placement.as_ref());
    let (device, device_note) = device::resolve(choice)?;
    let asked = precision_asked(&args.machine)?;
    let mut checkpoint = None;
    let (job, start, precision_note) = if args.evaluation.train_mode == TrainMode::Ssl {
        let origin = resume::origin(typed)?;
        let run = origin.map(|origin| saved(&origin, &mut |text| warnings.push(text))).transpose()?;
        // A continued run keeps its precision unless another one is asked for.
        let kept = run.as_ref().and_then(|run| run.checkpoint.config.as_ref()).map(|config| config.precision);
        let (precision, mut note) = device::resolve_precision(asked.or(kept), device);
        if asked.is_none() && kept.is_some() {
            note.push_str(", as the run began");
        }
        let (pretrain, start) = match &run {
            Some(run) => resume::continued(typed, run, precision, device, &mut warnings)?,
            None => (pretrain::from_flags(typed, precision, device)?, fresh(typed)),
        };
        if let CheckpointPolicy { keep_every: Some(every), keep_last: None, .. } = pretrain.checkpoints {
            bail!("--keep-every {every} spares checkpoints that --keep-last N removes; give --keep-last as well");
        }
        if pretrain.engine == Engine::Cpu && args.machine.data_on_device == DataOnDevice::Yes {
            bail!("--data-on-device yes goes with --engine tensor: worker threads render from main memory");
        }
        checkpoint = run.map(|run| run.checkpoint);
        (Job::Pretrain(Box::new(pretrain)), start, note)
    } else {
        let (precision, note) = device::resolve_precision(asked, device);
        (Job::Evaluate(Box::new(evaluate::from_flags(typed, precision)?)), Start::Fresh, note)
    };
    if device == tch::Device::Cpu && (asked == Some(Precision::Fp16) || precision_note.starts_with("fp16")) {
        warnings.push("fp16 is slow on the CPU and meant for tests there; bf16 and fp32 are faster".to_owned());
    }
    let config = Config {
        job,
        start,
        device: device_choice(&args.machine)?,
        workers: workers(&args.machine, placement.as_ref()),
        data_on_device: args.machine.data_on_device,
        cuda: CudaSettings { graph: args.machine.cuda_graph, fused_kernels: args.machine.fused_kernels },
        nproc: own_processes(&args.machine, placement.as_ref()),
        distributed_timeout_seconds: args.machine.distributed_timeout,
        save_dir: args.results.save_dir.clone(),
        feature_cache: feature_cache(args.evaluation.feature_cache.as_deref()),
        talk: talk(typed)?,
        log_format: args.output.log_format,
        dry_run: args.output.dry_run,
        command: typed.words.clone(),
    };
    Ok(Resolved { config, checkpoint, device, placement, device_note, precision_note, warnings })
}

fn fresh(typed: &Typed) -> Start {
    typed.args.results.from_pretrained.clone().map_or(Start::Fresh, Start::Pretrained)
}

/// The threads asked for, else the cores; where a launcher says how many processes share them, a part of these.
pub(super) fn workers(machine: &MachineArgs, placement: Option<&Placement>) -> u32 {
    let sharing = placement.and_then(|place| place.local_world_size).map_or(1, |count| count as u32);
    let cores = || std::thread::available_parallelism().map_or(1, |cores| cores.get() as u32);
    machine.workers.unwrap_or_else(|| (cores() / sharing.max(1)).max(1))
}

/// How many processes this one is to start itself; `None` where it is one of several already, or the only one.
pub(super) fn own_processes(machine: &MachineArgs, placement: Option<&Placement>) -> Option<u32> {
    machine.nproc.filter(|count| placement.is_none() && *count > 1)
}

/// This process's place, as its environment says.
///
/// Errors: an environment that is set in part, two launchers at once.
pub(super) fn placement(machine: &MachineArgs) -> Result<Option<Placement>> {
    let placement = distributed::placement(&|name| std::env::var(name).ok())?;
    let asked = machine.nproc.filter(|count| *count > 1);
    if let (Some(count), Some(place)) = (asked, &placement)
        && place.launcher != distributed::Launcher::Ourselves
    {
        bail!(
            "--nproc {count} starts processes, and this is already one of {} that {:?} started; leave --nproc out",
            place.world_size,
            place.launcher
        );
    }
    // Where the launcher has not said how many threads each process may have.
    if let Some(sharing) = placement.as_ref().and_then(|place| place.local_world_size)
        && std::env::var_os("OMP_NUM_THREADS").is_none()
    {
        tch::set_num_threads((tch::get_num_threads() / sharing.max(1) as i32).max(1));
    }
    Ok(placement)
}

/// Every process of a machine has a GPU of its own, by its number there.
pub fn own_device(choice: DeviceChoice, placement: Option<&Placement>) -> DeviceChoice {
    match (choice, placement) {
        (DeviceChoice::Auto, Some(place)) if device::cuda_obstacle().is_none() => DeviceChoice::Cuda(place.local_rank),
        // `cuda` is cuda:0, the default of main.py's flag: the first of this process's.
        (DeviceChoice::Cuda(0), Some(place)) => DeviceChoice::Cuda(place.local_rank),
        _ => choice,
    }
}

pub(super) fn device_choice(machine: &MachineArgs) -> Result<DeviceChoice> {
    match machine.device {
        DeviceChoice::Cuda(_) if machine.disable_cuda => {
            bail!("--device {} and --disable-cuda contradict each other; leave one of them out", machine.device)
        }
        _ if machine.disable_cuda => Ok(DeviceChoice::Cpu),
        choice => Ok(choice),
    }
}

pub(super) fn precision_asked(machine: &MachineArgs) -> Result<Option<Precision>> {
    match machine.precision.0 {
        Some(other) if machine.fp16_precision && other != Precision::Fp16 => {
            bail!("--precision {other} and --fp16-precision contradict each other; leave one of them out")
        }
        _ if machine.fp16_precision => Ok(Some(Precision::Fp16)),
        asked => Ok(asked),
    }
}

fn talk(typed: &Typed) -> Result<Talk> {
    match (typed.args.output.quiet, typed.args.output.verbose) {
        (true, true) => bail!("--quiet and --verbose contradict each other; leave one of them out"),
        (true, false) => Ok(Talk::Quiet),
        (false, true) => Ok(Talk::Verbose),
        (false, false) => Ok(Talk::Normal),
    }
}

/// The directory that was asked for, or the user's own for caches; `off` and a user without a home are none.
fn feature_cache(asked: Option<&str>) -> Option<PathBuf> {
    match asked {
        Some("off") => None,
        Some(directory) => Some(directory.into()),
        None => {
            let cache = std::env::var_os("XDG_CACHE_HOME").filter(|path| !path.is_empty()).map(PathBuf::from);
            let cache = cache.or_else(|| std::env::home_dir().map(|home| home.join(".cache")));
            cache.map(|cache| cache.join("flatnce/features"))
        }
    }
}

/// Checks that two values stand in order; `ids` are their flags.
fn ordered(ids: [&str; 2], low: f64, high: f64) -> Result<()> {
    if low > high {
        bail!("{} {low} is above {} {high}", flag_name(ids[0]), flag_name(ids[1]));
    }
    Ok(())
}
