//! From what was typed to what is meant: every default, every check that looks
//! at more than one flag, the device and the precision.

pub use super::resume::{Origin, ReadSaved, Saved, read_saved};

use super::machine::{own_device, workers};
use super::{Typed, evaluate, flags, pretrain, resume, settings};
use crate::checkpoint::Checkpoint;
use crate::config::{
    CheckpointPolicy, Config, CudaSettings, DataOnDevice, Engine, Job, Precision, Settings, Start, TrainMode,
};
use crate::device;
use crate::distributed::Placement;
use anyhow::{Result, bail};
use std::path::{Path, PathBuf};

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
    /// Which images were chosen, and why, where the command does not name them.
    pub images_note: Option<String>,
    /// What the command changes of the settings in the file that it names.
    pub settings_note: Option<String>,
    /// What the user should know before the run starts.
    pub warnings: Vec<String>,
}

/// Resolves a command line; `saved` reads what a run to be continued says of itself ([`read_saved`]).
///
/// Errors: flags that contradict each other or the run to be continued, a device or precision that this machine
/// does not have, a checkpoint that cannot be read.
pub fn resolve(typed: &Typed, saved: &ReadSaved) -> Result<Resolved> {
    let file = typed.args.results.config.as_deref().map(|path| settings::File::read(path, typed)).transpose()?;
    let filled = file.as_ref().map(|file| file.under(typed)).transpose()?;
    let typed = filled.as_ref().unwrap_or(typed);
    let args = &typed.args;
    flags::refuse(typed)?;
    let named = typed.names_other_images() || typed.taken.is_some();
    // What goes on from settings knows its images.
    if !named && !["resume", "log_dir", "config"].iter().any(|id| typed.has(id)) {
        args.data.check_named(typed)?;
    }
    let ssl = args.evaluation.train_mode == TrainMode::Ssl;
    if ssl && args.evaluation.checkpoint_key.is_some() && args.results.from_pretrained.is_none() {
        bail!("--checkpoint-key goes with --from-pretrained, or with the --checkpoint of an evaluation");
    }
    let mut warnings = flags::without_effect(typed);
    let placement = args.machine.placement()?;
    let choice = own_device(args.machine.device_choice()?, placement.as_ref());
    let (device, device_note) = device::resolve(choice)?;
    let asked = args.machine.precision_asked()?;
    let (mut checkpoint, mut adopted) = (None, Vec::new());
    let (mut job, start, precision_note) = if args.evaluation.train_mode == TrainMode::Ssl {
        let origin = resume::origin(typed)?;
        let run = origin.map(|origin| saved(&origin, &mut |text| warnings.push(text))).transpose()?;
        // A continued run keeps its precision unless another one is asked for.
        let kept = run.as_ref().and_then(|run| run.checkpoint.config.as_ref()).map(|config| config.precision);
        let (precision, mut note) = device::resolve_precision(asked.or(kept), device);
        if asked.is_none() && kept.is_some() {
            note.push_str(", as the run began");
        }
        let (pretrain, start) = match &run {
            Some(run) => resume::continued(typed, run, precision, device, &mut adopted, &mut warnings)?,
            None => (pretrain::from_flags(typed, precision, device)?, fresh(typed)),
        };
        if let CheckpointPolicy { keep_every: Some(every), keep_last: None, .. } = pretrain.checkpoints {
            bail!("--keep-every {every} spares checkpoints that --keep-last N removes; give --keep-last as well");
        }
        if pretrain.engine == Engine::Cpu && args.training_machine.data_on_device == DataOnDevice::Yes {
            bail!("--data-on-device yes goes with --engine tensor: worker threads render from main memory");
        }
        checkpoint = run.map(|run| run.checkpoint);
        (Job::Pretrain(Box::new(pretrain)), start, note)
    } else {
        let (precision, note) = device::resolve_precision(asked, device);
        (Job::Evaluate(Box::new(evaluate::from_flags(typed, precision)?)), Start::Fresh, note)
    };
    let settings_note = file.map(|file| {
        file.complete(typed, &mut job);
        file.told(typed, &job)
    });
    let settings_note = settings_note.transpose()?;
    match &job {
        Job::Pretrain(run) => run.check()?,
        Job::Evaluate(run) => run.check()?,
    }
    if device == tch::Device::Cpu && (asked == Some(Precision::Fp16) || precision_note.starts_with("fp16")) {
        warnings.push("fp16 is slow on the CPU and meant for tests there; bf16 and fp32 are faster".to_owned());
    }
    // A continued run keeps the number that it was given.
    let threads = if let Job::Pretrain(run) = &job { run.workers } else { args.machine.workers };
    let gpu = &args.training_machine;
    let config = Config {
        job,
        start,
        device: args.machine.device_choice()?,
        workers: workers(threads, placement.as_ref()),
        data_on_device: gpu.data_on_device,
        cuda: CudaSettings { graph: gpu.cuda_graph, fused_kernels: gpu.fused_kernels },
        nproc: args.machine.own_processes(placement.as_ref()),
        distributed_timeout_seconds: args.machine.distributed_timeout,
        memory_check: gpu.memory_check,
        save_dir: args.results.save_dir.clone(),
        save_dir_is_default: !typed.has("save_dir") && args.results.save_dir == Path::new("results"),
        name: args.results.name.clone(),
        checkpoint_key: args.evaluation.checkpoint_key.clone(),
        feature_cache: feature_cache(args.evaluation.feature_cache.as_deref()),
        talk: args.output.talk()?,
        log_format: args.output.log_format,
        dry_run: args.output.dry_run,
        command: typed.words.clone(),
        adopted,
    };
    Ok(Resolved {
        config,
        checkpoint,
        device,
        placement,
        device_note,
        precision_note,
        images_note: typed.taken.clone(),
        settings_note,
        warnings,
    })
}

fn fresh(typed: &Typed) -> Start {
    typed.args.results.from_pretrained.clone().map_or(Start::Fresh, Start::Pretrained)
}

/// The directory that was asked for, or the user's own for caches; `off` and a user without a home are none.
fn feature_cache(asked: Option<&Path>) -> Option<PathBuf> {
    match asked {
        Some(off) if off == Path::new("off") => None,
        Some(directory) => Some(directory.to_owned()),
        None => {
            let cache = std::env::var_os("XDG_CACHE_HOME").filter(|path| !path.is_empty()).map(PathBuf::from);
            let cache = cache.or_else(|| std::env::home_dir().map(|home| home.join(".cache")));
            cache.map(|cache| cache.join("flatnce/features"))
        }
    }
}
