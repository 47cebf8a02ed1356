//! `flatnce doctor`.

use crate::cli::values::device;
use crate::config::DeviceChoice;

#[derive(Clone, Debug, clap::Args)]
pub struct DoctorArgs {
    /// Device that is to work: auto, cpu, cuda or cuda:N
    ///
    /// With auto a GPU is wanted only where there is one.
    #[arg(long, value_name = "DEVICE", default_value = "auto", value_parser = device)]
    pub device: DeviceChoice,
    /// Measure products of matrices, copies and training steps too
    #[arg(long)]
    pub bench: bool,
    /// JSON instead of a table
    #[arg(long)]
    pub json: bool,
}
