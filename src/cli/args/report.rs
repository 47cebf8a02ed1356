//! `flatnce report`.

use crate::cli::values::one_of;
use crate::config::ReportFormat;
use std::path::PathBuf;

#[derive(Clone, Debug, clap::Args)]
pub struct ReportArgs {
    /// Directories of results; everything below them is gathered
    #[arg(value_name = "DIR", required = true)]
    pub directories: Vec<PathBuf>,

    /// How the table is written
    ///
    /// csv and json have full numbers; markdown is aligned and rounded, for the terminal and for a README.
    #[arg(long, value_name = "FORMAT", default_value = "markdown", value_parser = one_of!(ReportFormat))]
    pub format: ReportFormat,

    /// Write the table into this file instead of the terminal
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,

    /// Draw accuracy over the epochs of the pre-training, a line a run
    #[arg(long, value_name = "FILE.png")]
    pub plot: Option<PathBuf>,

    /// Write one self-contained page: table, curves of all runs overlaid, and what their settings differ in
    #[arg(long, value_name = "FILE.html")]
    pub html: Option<PathBuf>,

    /// Draw PNG files into this directory, and with --html into the page
    ///
    /// Every chart; and for each run whose data and newest checkpoint are there, the nearest neighbours of 12 images and a
    /// map of the features (their two principal components) over up to 2,000 test images. Neighbours in the high-dimensional
    /// space are exact; the map is a linear projection: t-SNE and UMAP are left to other programs (flatnce embed).
    #[arg(long, value_name = "DIR")]
    pub pictures: Option<PathBuf>,
}
