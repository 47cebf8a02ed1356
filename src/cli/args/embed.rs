//! `flatnce embed`.

use std::path::PathBuf;

#[derive(Clone, Debug, clap::Args)]
pub struct EmbedArgs {
    /// Checkpoint of the encoder
    #[arg(long, value_name = "FILE")]
    pub checkpoint: PathBuf,
    /// Where the features go
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,
}
