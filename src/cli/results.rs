//! Where results go and where a run begins.

use super::flags::{EVERY, Flag, Only, PRETRAINING, flag};
use crate::config::KeyPrefix;
use crate::config::TrainMode::{Eval, Ssl};
use crate::run_dir::run_name;
use crate::values::{count, one_of};
use std::path::PathBuf;

#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Results and resuming")]
pub struct ResultsArgs {
    /// Directory of all results
    ///
    /// A run makes {dataset}/{batch}_FlatCLR/{date}/ or {batch}_SimCLR/ in it; with --name NAME the name stands for the date.
    /// An evaluation lies in the directory of its encoder's run, unless this flag is given: then as main.py has it.
    #[arg(long, value_name = "DIR", default_value = "results")]
    pub save_dir: PathBuf,
    /// Name of the run, which its directory has in the place of the date [default: none]
    #[arg(long, value_name = "NAME", hide_short_help = true, value_parser = run_name, conflicts_with_all = ["resume", "log_dir"])]
    pub name: Option<String>,
    /// Epochs between two checkpoints
    #[arg(long, value_name = "N", default_value = "2", hide_short_help = true, value_parser = count::<1>)]
    pub save_every_n_epochs: u32,
    /// Steps between two checkpoints within epochs; 0 is none
    ///
    /// They go when the epoch's own checkpoint is written.
    #[arg(long, value_name = "N", default_value = "0", hide_short_help = true, value_parser = count::<0>)]
    pub save_every_n_steps: u32,
    /// Keep the newest N checkpoints of a run; 0 keeps all
    ///
    /// An older one goes when a newer one has been written and read back.
    #[arg(long, value_name = "N", default_value = "0", hide_short_help = true, value_parser = count::<0>)]
    pub keep_last: u32,
    /// With --keep-last: keep those whose number is a multiple of K as well
    #[arg(long, value_name = "K", default_value = "0", hide_short_help = true, value_parser = count::<0>)]
    pub keep_every: u32,
    /// What stands before the names of weights in checkpoints
    ///
    /// module. is the spelling of torch.nn.DataParallel, which main.py needs.
    /// Both are read, whatever is written.
    #[arg(long, value_name = "PREFIX", default_value = "none", hide_short_help = true)]
    #[arg(value_parser = one_of!(KeyPrefix))]
    pub checkpoint_prefix: KeyPrefix,
    /// Continue the run in this directory from its newest good checkpoint
    ///
    /// The run's own settings apply; a flag that contradicts them is an error.
    /// Device, precision, workers, --data, output and which checkpoints are kept
    /// may differ, and --epochs may grow: the cosine schedule is then
    /// stretched to the new total from this step on, so the learning rate
    /// jumps to where the longer schedule would be.
    #[arg(long, value_name = "DIR", conflicts_with_all = ["log_dir", "train_from"])]
    pub resume: Option<PathBuf>,
    /// The same as --resume; with --train-from from that checkpoint
    #[arg(long, value_name = "DIR", hide_short_help = true)]
    pub log_dir: Option<PathBuf>,
    /// Checkpoint file to continue from, in --log-dir
    ///
    /// What the run had saved later goes into a directory abandoned-DATE in --log-dir.
    #[arg(long, value_name = "FILE", requires = "log_dir", hide_short_help = true)]
    pub train_from: Option<PathBuf>,
    /// Begin anew with the settings of an earlier run or evaluation: its directory, or its config.yml
    ///
    /// Its settings are the defaults of this command, places and the evaluated
    /// checkpoint among them; flags that are typed win. What would follow from
    /// a typed flag stays the file's: the learning rate with --batch-size. To
    /// continue a run there is --resume.
    #[arg(long, value_name = "FILE", hide_short_help = true)]
    #[arg(conflicts_with_all = ["resume", "log_dir", "train_from", "fc_log_dir"])]
    pub config: Option<PathBuf>,
    /// Begin a new run with this checkpoint's trunk
    #[arg(long, value_name = "FILE", conflicts_with_all = ["resume", "log_dir"])]
    pub from_pretrained: Option<PathBuf>,
}

const ADVICE: &str = ": an evaluation is continued with --fc-log-dir and --fc-train-from";

pub const FLAGS: &[Flag] = &[
    flag("save_dir", EVERY).beside_the_job("save_dir"),
    flag("name", PRETRAINING),
    flag("save_every_n_epochs", &[Ssl, Eval]).only(Only::Sweep).adopted("save_every_n_epochs"),
    flag("save_every_n_steps", PRETRAINING).adopted("checkpoints.every_n_steps"),
    flag("keep_last", PRETRAINING).adopted("checkpoints.keep_last"),
    flag("keep_every", PRETRAINING).adopted("checkpoints.keep_every"),
    flag("checkpoint_prefix", PRETRAINING).adopted("checkpoints.prefix"),
    flag("resume", PRETRAINING).refused(ADVICE),
    flag("log_dir", PRETRAINING).refused(ADVICE),
    flag("train_from", PRETRAINING).refused(ADVICE),
    flag("config", EVERY),
    flag("from_pretrained", PRETRAINING)
        .refused(": give the encoder with --checkpoint")
        .beside_the_job("start.pretrained"),
];
