//! What computes: the device, its arithmetic, threads and processes.

use super::flags::{EVERY, Flag, Only, PRETRAINING, flag};
use crate::config::{CudaGraph, DataOnDevice, DeviceChoice, Numerics, Precision, PrecisionAsked};
use crate::device;
use crate::distributed::{self, Placement};
use crate::values::{between, device, one_of, switch};
use anyhow::{Result, bail};
use clap::ArgAction::Set;

#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Machine")]
pub struct MachineArgs {
    /// Device: auto, cpu, cuda or cuda:N
    ///
    /// auto takes the first GPU where CUDA works and says what it chose. A
    /// device asked for by name is used or is an error.
    #[arg(long, value_name = "DEVICE", default_value = "auto", value_parser = device)]
    pub device: DeviceChoice,
    /// The same as --device cpu
    #[arg(long, value_name = "BOOL", default_value = "false", hide_short_help = true, action = Set, value_parser = switch)]
    pub disable_cuda: bool,
    /// Arithmetic of the encoder; loss and statistics are float32 always
    ///
    /// auto takes bf16 where the device computes with it, else fp32. fp16
    /// trains with a scaled loss; steps that overflow are left out and counted.
    /// On the CPU it is slow and meant for tests.
    #[arg(long, value_name = "NAME", default_value = "auto", value_parser = one_of!(PrecisionAsked))]
    pub precision: PrecisionAsked,
    /// The same as --precision fp16
    #[arg(long, value_name = "BOOL", default_value = "false", hide_short_help = true, action = Set, value_parser = switch)]
    pub fp16_precision: bool,
    /// float32 products of a GPU may be rounded to TF32
    ///
    /// Faster with --precision fp32; 10 bits behind the point instead of 23.
    #[arg(long, value_name = "BOOL", default_value = "false", hide_short_help = true, action = Set, value_parser = switch)]
    pub allow_tf32: bool,
    /// The same command gives the same bits on a GPU too
    ///
    /// Costs speed: cuDNN may not try its algorithms for the fastest, and sums
    /// are taken in a fixed order. An operation that has no such order stops the
    /// run with its name. The CPU gives the same bits with the same number of
    /// threads; on a machine crowded by other programs this keeps that number.
    #[arg(long, value_name = "BOOL", default_value = "false", hide_short_help = true, action = Set, value_parser = switch)]
    pub deterministic: bool,
    /// Threads that load and augment images (default: the number of cores)
    ///
    /// Of several processes on a machine, each has its part of the cores. A
    /// continued run keeps the number that it was given.
    #[arg(long, value_name = "N", value_parser = between::<1, 1024>)]
    pub workers: Option<u32>,
    /// Processes to start on this machine that train together (default: one)
    ///
    /// On several machines, or with torchrun or srun, they start the processes
    /// and this flag stays away.
    #[arg(long, value_name = "N", hide_short_help = true, value_parser = between::<1, 1024>)]
    pub nproc: Option<u32>,
    /// Seconds that processes wait for each other before they give up
    #[arg(long, value_name = "SECONDS", default_value = "600", hide_short_help = true)]
    #[arg(value_parser = between::<1, 1000000>)]
    pub distributed_timeout: u32,
}

/// What training alone reads: no tool has these flags.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Machine")]
pub struct TrainingMachineArgs {
    /// With --engine tensor: keep the data set in the training device's memory
    ///
    /// auto does so with data sets that are read whole, on a GPU if they take
    /// at most a third of its free memory. Otherwise worker threads decode and
    /// crop, and the device does the colours. yes is an error where the images
    /// are files, or do not fit.
    #[arg(long, value_name = "RULE", default_value = "auto", value_parser = one_of!(DataOnDevice), hide_short_help = true)]
    pub data_on_device: DataOnDevice,
    /// On a GPU: record the training step as a CUDA graph and replay it
    ///
    /// A replayed step costs the host a few launches instead of hundreds, which
    /// is what a small batch waits for. auto does so in pre-training on one GPU
    /// without --deterministic, --grad-cache and --ess-target, and says why where
    /// it does not; no never does. Same arithmetic, same order.
    #[arg(long, value_name = "RULE", default_value = "auto", value_parser = one_of!(CudaGraph), hide_short_help = true)]
    pub cuda_graph: CudaGraph,
    /// On a GPU: BatchNorm with ReLU, and augmentation, in kernels of our own
    ///
    /// NVRTC compiles them at the first start; where it is not to be had, the log
    /// says so and libtorch's operations are used, as with no.
    #[arg(long, value_name = "BOOL", default_value = "true", hide_short_help = true, action = Set, value_parser = switch)]
    pub fused_kernels: bool,
    /// Refuse a batch that cannot fit into memory, before anything is written
    ///
    /// By an estimate from the network's shapes, which off sets aside. Of
    /// pre-training and of evaluations that train the whole network.
    #[arg(long, value_name = "BOOL", default_value = "on", hide_short_help = true, action = Set, value_parser = switch)]
    pub memory_check: bool,
}

pub const FLAGS: &[Flag] = &[
    flag("device", EVERY).beside_the_job("device"),
    flag("disable_cuda", EVERY).beside_the_job("device"),
    flag("precision", EVERY).adopted_changing("precision", "its numbers").evaluated("precision"),
    flag("fp16_precision", EVERY).adopted_changing("precision", "its numbers").evaluated("precision"),
    flag("allow_tf32", EVERY)
        .adopted_changing("numerics.allow_tf32", "on a GPU its numbers")
        .evaluated("numerics.allow_tf32"),
    flag("deterministic", EVERY)
        .adopted_changing("numerics.deterministic", "on a GPU its numbers")
        .evaluated("numerics.deterministic"),
    flag("workers", EVERY).adopted("workers"),
    flag("nproc", EVERY),
    flag("distributed_timeout", EVERY).beside_the_job("distributed_timeout_seconds"),
    flag("data_on_device", PRETRAINING).beside_the_job("data_on_device"),
    flag("cuda_graph", PRETRAINING).beside_the_job("cuda.graph"),
    flag("fused_kernels", EVERY).beside_the_job("cuda.fused_kernels"),
    flag("memory_check", EVERY).only(Only::WholeNetwork).beside_the_job("memory_check"),
];

impl MachineArgs {
    pub fn numerics(&self) -> Numerics {
        Numerics { allow_tf32: self.allow_tf32, deterministic: self.deterministic }
    }

    /// How many processes this one is to start itself; `None` where it is one of several already, or the only one.
    pub fn own_processes(&self, placement: Option<&Placement>) -> Option<u32> {
        self.nproc.filter(|count| placement.is_none() && *count > 1)
    }

    /// This process's place, as its environment says.
    ///
    /// Errors: an environment that is set in part, two launchers at once.
    pub fn placement(&self) -> Result<Option<Placement>> {
        let placement = distributed::placement(&|name| std::env::var(name).ok())?;
        let asked = self.nproc.filter(|count| *count > 1);
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

    /// Errors: two flags that contradict each other.
    pub fn device_choice(&self) -> Result<DeviceChoice> {
        match self.device {
            DeviceChoice::Cuda(_) if self.disable_cuda => {
                bail!("--device {} and --disable-cuda contradict each other; leave one of them out", self.device)
            }
            _ if self.disable_cuda => Ok(DeviceChoice::Cpu),
            choice => Ok(choice),
        }
    }

    /// `None` leaves it to the program. Errors: two flags that contradict each other.
    pub fn precision_asked(&self) -> Result<Option<Precision>> {
        match Precision::parse(self.precision.name()) {
            Some(other) if self.fp16_precision && other != Precision::Fp16 => {
                bail!("--precision {other} and --fp16-precision contradict each other; leave one of them out")
            }
            _ if self.fp16_precision => Ok(Some(Precision::Fp16)),
            asked => Ok(asked),
        }
    }
}

/// The threads asked for, else the cores; where a launcher says how many processes share them, a part of these.
pub fn workers(asked: Option<u32>, placement: Option<&Placement>) -> u32 {
    let sharing = placement.and_then(|place| place.local_world_size).map_or(1, |count| count as u32);
    let cores = || std::thread::available_parallelism().map_or(1, |cores| cores.get() as u32);
    asked.unwrap_or_else(|| (cores() / sharing.max(1)).max(1))
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
