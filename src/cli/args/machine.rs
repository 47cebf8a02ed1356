//! What computes.

use crate::cli::values::{PrecisionAsked, between, device, one_of, switch};
use crate::config::{CudaGraph, DataOnDevice, DeviceChoice};
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
    #[arg(long, value_name = "BOOL", default_value = "false", hide_short_help = true)]
    #[arg(num_args = 0..=1, default_missing_value = "true", action = Set, value_parser = switch)]
    pub disable_cuda: bool,
    /// Arithmetic of the encoder; loss and statistics are float32 always
    ///
    /// auto takes bf16 where the device computes with it, else fp32. fp16
    /// trains with a scaled loss; steps that overflow are left out and counted.
    /// On the CPU it is slow and meant for tests.
    #[arg(long, value_name = "NAME", default_value = "auto", value_parser = one_of!(PrecisionAsked))]
    pub precision: PrecisionAsked,
    /// The same as --precision fp16
    #[arg(long, value_name = "BOOL", default_value = "false", hide_short_help = true)]
    #[arg(num_args = 0..=1, default_missing_value = "true", action = Set, value_parser = switch)]
    pub fp16_precision: bool,
    /// float32 products of a GPU may be rounded to TF32
    ///
    /// Faster with --precision fp32; 10 bits behind the point instead of 23.
    #[arg(long, value_name = "BOOL", default_value = "false", hide_short_help = true)]
    #[arg(num_args = 0..=1, default_missing_value = "true", action = Set, value_parser = switch)]
    pub allow_tf32: bool,
    /// The same command gives the same bits on a GPU too
    ///
    /// Costs speed: cuDNN may not try its algorithms for the fastest, and sums
    /// are taken in a fixed order. An operation that has no such order stops the
    /// run with its name. The CPU always gives the same bits.
    #[arg(long, value_name = "BOOL", default_value = "false", hide_short_help = true)]
    #[arg(num_args = 0..=1, default_missing_value = "true", action = Set, value_parser = switch)]
    pub deterministic: bool,
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
    /// Off until they have been confirmed on a GPU.
    #[arg(long, value_name = "BOOL", default_value = "false", hide_short_help = true)]
    #[arg(num_args = 0..=1, default_missing_value = "true", action = Set, value_parser = switch)]
    pub fused_kernels: bool,
    /// Threads that load and augment images (default: the number of cores)
    ///
    /// Of several processes on a machine, each has its part of the cores.
    #[arg(long, value_name = "N", value_parser = between::<1, 1024>)]
    pub workers: Option<u32>,
    /// Processes to start on this machine that train together (default: one)
    ///
    /// Of a build with the feature distributed. On several machines, or with
    /// torchrun or srun, they start the processes and this flag stays away.
    #[arg(long, value_name = "N", hide_short_help = true, value_parser = between::<1, 1024>)]
    pub nproc: Option<u32>,
    /// Seconds that processes wait for each other before they give up
    #[arg(long, value_name = "SECONDS", default_value = "600", hide_short_help = true)]
    #[arg(value_parser = between::<1, 1000000>)]
    pub distributed_timeout: u32,
}
