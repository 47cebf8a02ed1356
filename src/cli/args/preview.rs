//! `flatnce preview`.

use super::{AugmentationArgs, DataArgs};
use crate::cli::values::count;
use std::path::PathBuf;

#[derive(Clone, Debug, clap::Args)]
pub struct PreviewArgs {
    /// Picture to write
    #[arg(long, value_name = "FILE.png", default_value = "views.png", help_heading = "Preview")]
    pub out: PathBuf,
    /// Images on the sheet, the first ones of the epoch
    #[arg(long, value_name = "N", default_value = "16", help_heading = "Preview", value_parser = count::<1>)]
    pub images: u32,
    /// Epoch whose views are shown, counted from 0
    #[arg(long, value_name = "N", default_value = "0", help_heading = "Preview", value_parser = count::<0>)]
    pub epoch: u32,
    /// Seed of the run whose views are shown
    #[arg(long, value_name = "N", default_value = "42", help_heading = "Preview")]
    pub seed: u64,
    /// Print what was drawn for each view
    #[arg(long, help_heading = "Preview")]
    pub parameters: bool,
    /// Also write batches of views, for training elsewhere on exactly these pixels
    ///
    /// A safetensors file with `views`, u8 [--batches, 2 x --images, side, side, 3]: the first views of a batch's images,
    /// then their second views, as a run with --batch-size equal to --images sees them; and `samples`, i64 [--batches,
    /// --images], the images' places in the data set.
    #[arg(long, value_name = "FILE.safetensors", help_heading = "Preview")]
    pub views: Option<PathBuf>,
    /// Batches in --views, the first ones of the epoch
    #[arg(long, value_name = "N", default_value = "1", help_heading = "Preview", value_parser = count::<1>)]
    pub batches: u32,
    #[command(flatten)]
    pub data: DataArgs,
    #[command(flatten)]
    pub augmentation: AugmentationArgs,
}
