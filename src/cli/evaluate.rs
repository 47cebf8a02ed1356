//! Evaluation: what is done with a trained encoder; its flags, and an evaluation from them (upstream: `main_eval`,
//! `main_transfer`, `main_transfer_ft`, `main_supervised`).
//!
//! | `--train-mode` | images | what is trained |
//! |---|---|---|
//! | eval | `--dataset-name` | what `--transfer-mode` says |
//! | transfer | `--transfer-dataset-name` | what `--transfer-mode` says |
//! | semi | a share of `--transfer-dataset-name` if given, else of `--dataset-name` | everything, from a checkpoint |
//! | supervised | `--transfer-dataset-name` if given, else `--dataset-name` | everything, from scratch |
//!
//! Upstream's `eval` and `semi` know ImageNet only; here they take the images that the command names. What upstream has
//! to be told of the encoder (`--clr`, `--model`, `--batch-size`, in `transfer` and `semi` the `--dataset-name` of the
//! pre-training) is checked against the checkpoint, and stands in where it does not say it.

use super::Typed;
use super::flags::{ENCODER, ENCODER_TOO, EVERY, Flag, LABELS, Only, PRETRAINING, flag};
use crate::config::TrainMode::{self, Eval, Semi, Supervised, Transfer};
use crate::config::{
    CheckpointChoice, ClassifierAugment, DatasetName, EarlyStopOn, EncoderSource, Evaluate, KnnConfig, OptimizerConfig,
    OptimizerName, Precision, ScheduleConfig, ScheduleName, StatedEncoder, TransferMode,
};
use crate::data;
use crate::values::{above_zero, checkpoint_choice, count, momentum, not_negative, one_of, share, switch};
use anyhow::{Result, bail};
use clap::ArgAction::Set;
use std::path::PathBuf;

/// Epochs without a gain after which upstream's fine-tuning stops.
const FINETUNE_PATIENCE_EPOCHS: u32 = 5;

#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Evaluation")]
pub struct EvaluationArgs {
    /// What to do: pre-train (ssl), or train with labels (the others)
    ///
    /// eval judges an encoder on --dataset-name, transfer on
    /// --transfer-dataset-name; semi fine-tunes it with few labels;
    /// supervised trains with labels from scratch. --model, --clr and --batch-size
    /// of an encoder's pre-training are checked against its checkpoint.
    #[arg(long, value_name = "MODE", default_value = "ssl", value_parser = one_of!(TrainMode))]
    pub train_mode: TrainMode,
    /// Train a linear classifier on the frozen trunk, or the whole network
    #[arg(long, value_name = "MODE", default_value = "linear_eval", value_parser = one_of!(TransferMode))]
    pub transfer_mode: TransferMode,
    /// Labelled images of --train-mode transfer, and if given of semi and supervised
    #[arg(long, value_name = "NAME", default_value = "caltech", value_parser = one_of!(DatasetName), hide_short_help = true)]
    pub transfer_dataset_name: DatasetName,
    /// Directory of a run whose checkpoints are evaluated
    #[arg(long, value_name = "DIR")]
    pub checkpoint_dir: Option<PathBuf>,
    /// Which checkpoint of --checkpoint-dir: its number, last or all
    ///
    /// all evaluates every one, oldest first. Without this flag --train-mode eval
    /// counts as main.py does where it is told to: every --save-every-n-epochs
    /// up to --epochs.
    #[arg(long, value_name = "N|last|all", default_value = "last", value_parser = checkpoint_choice, hide_short_help = true)]
    pub transfer_from_epoch: CheckpointChoice,
    /// One checkpoint file to evaluate
    #[arg(long, value_name = "FILE", conflicts_with_all = ["checkpoint_dir", "transfer_from_epoch"])]
    pub checkpoint: Option<PathBuf>,
    /// Where in another program's file the network stands
    ///
    /// What is before the names of its tensors, or words of that, such as
    /// encoder_q or teacher: needed where a file holds several networks.
    /// For --checkpoint and --from-pretrained.
    #[arg(long, value_name = "PREFIX", hide_short_help = true)]
    pub checkpoint_key: Option<String>,
    /// Share of the labels that --train-mode semi uses, above 0 and at most 1
    #[arg(long, value_name = "SHARE", default_value = "0.1", hide_short_help = true, value_parser = share)]
    pub semi_ratio: f64,
    /// Passes over the labelled images
    #[arg(long, value_name = "N", default_value = "100", value_parser = count::<1>)]
    pub fc_epochs: u32,
    /// Images per step of the evaluation
    #[arg(long, value_name = "IMAGES", default_value = "4096", hide_short_help = true, value_parser = count::<2>)]
    pub fc_batch_size: u32,
    /// Peak learning rate of the evaluation
    ///
    /// Where all training images are fewer than a batch, the default shrinks in
    /// proportion; a rate that is given stays.
    #[arg(long, value_name = "RATE", default_value = "1.6", hide_short_help = true, value_parser = above_zero)]
    pub fc_lr: f64,
    /// Optimiser of the evaluation; LBFGS for linear_eval only
    #[arg(long, value_name = "NAME", default_value = "sgd", value_parser = one_of!(OptimizerName), hide_short_help = true)]
    pub fc_optimizer: OptimizerName,
    /// Schedule of the evaluation's learning rate
    ///
    /// Default: cosine; constant for fine-tuning.
    #[arg(long, value_name = "NAME", value_parser = one_of!(ScheduleName), hide_short_help = true)]
    pub fc_scheduler: Option<ScheduleName>,
    /// Weight decay of the evaluation
    #[arg(long, value_name = "FACTOR", default_value = "0", hide_short_help = true, value_parser = not_negative)]
    pub fc_weight_decay: f64,
    /// Momentum of the evaluation
    #[arg(long, value_name = "FACTOR", default_value = "0.9", hide_short_help = true, value_parser = momentum)]
    pub fc_momentum: f64,
    /// Bring features to mean 0 and variance 1 before the linear classifier
    ///
    /// Over the training images. main.py does not.
    #[arg(long, value_name = "BOOL", default_value = "false", hide_short_help = true, action = Set, value_parser = switch)]
    pub fc_standardize: bool,
    /// L2 penalty on the linear classifier, or several to choose from: 0,1e-4,1e-2
    #[arg(long, value_name = "FACTORS", default_value = "0", hide_short_help = true)]
    #[arg(value_delimiter = ',', action = Set, value_parser = not_negative)]
    pub reg_weight: Vec<f64>,
    /// Random crops or shifts of the classifier's training images: none, crop-flip or shift-flip
    ///
    /// crop-flip: 8 to 100% of the area, resized. shift-flip: moved by up to an
    /// eighth of the side, black beyond. Both are mirrored half of the time.
    /// Default: crop-flip for imagenet, and for folder where the whole network is
    /// trained; else none. On a frozen trunk none makes the features once for
    /// all epochs, the others make them anew in every epoch.
    #[arg(long, value_name = "NAME", value_parser = one_of!(ClassifierAugment), hide_short_help = true)]
    pub fc_augment: Option<ClassifierAugment>,
    /// End the training of a whole network after so many epochs without gain; 0 is never
    ///
    /// Default: 5 for fine-tuning, 0 otherwise.
    #[arg(long, value_name = "N", hide_short_help = true, value_parser = count::<0>)]
    pub patience_epochs: Option<u32>,
    /// What --patience-epochs looks at: a tenth of the training images, or the test images
    ///
    /// held-out keeps a tenth of every class from training. test is what main.py
    /// does: the test images then choose when to stop, which flatters the result.
    #[arg(long, value_name = "IMAGES", default_value = "held-out", value_parser = one_of!(EarlyStopOn), hide_short_help = true)]
    pub early_stop_on: EarlyStopOn,
    /// Neighbours that vote in the kNN evaluation
    #[arg(long, value_name = "K", default_value = "200", hide_short_help = true, value_parser = count::<1>)]
    pub knn_neighbours: u32,
    /// Temperature of the kNN vote
    #[arg(long, value_name = "T", default_value = "0.1", hide_short_help = true, value_parser = above_zero)]
    pub knn_temperature: f64,
    /// Epochs of pre-training between two kNN evaluations; 0 is none
    ///
    /// At most 10,000 labelled training images vote on at most 2,000 test
    /// images, where there are labels. It changes nothing in the training.
    #[arg(long, value_name = "N", default_value = "10", hide_short_help = true, value_parser = count::<0>)]
    pub knn_every: u32,
    /// Epochs of pre-training between two linear probes; 0 is none
    ///
    /// A logistic regression on the standardised features of the labelled
    /// images of --knn-every, with a small penalty, judged on its test images.
    /// It changes nothing in the training.
    #[arg(long, value_name = "N", default_value = "0", hide_short_help = true, value_parser = count::<0>)]
    pub probe_every: u32,
    /// Where linear evaluations keep features for the next one, or off
    ///
    /// Only under transforms that are not random; at most 8 GiB, the oldest go.
    /// Default: ~/.cache/flatnce/features.
    #[arg(long, value_name = "DIR|off", hide_short_help = true)]
    pub feature_cache: Option<PathBuf>,
    /// Directory of an evaluation to continue, with --fc-train-from
    #[arg(long, value_name = "DIR", requires = "fc_train_from", hide_short_help = true)]
    pub fc_log_dir: Option<PathBuf>,
    /// Checkpoint file in --fc-log-dir to continue from
    #[arg(long, value_name = "FILE", requires = "fc_log_dir", hide_short_help = true)]
    pub fc_train_from: Option<String>,
    /// Epochs of an evaluation between two checkpoints
    #[arg(long, value_name = "N", default_value = "10", hide_short_help = true, value_parser = count::<1>)]
    pub fc_save_every_n_epochs: u32,
}

pub const FLAGS: &[Flag] = &[
    flag("train_mode", EVERY),
    flag("transfer_mode", LABELS).evaluated("mode"),
    flag("transfer_dataset_name", &[Transfer, Semi, Supervised]).refused(": give the images with --dataset-name"),
    flag("checkpoint_dir", ENCODER).refused(""),
    flag("transfer_from_epoch", ENCODER).refused(""),
    flag("checkpoint", ENCODER).refused(""),
    flag("checkpoint_key", ENCODER_TOO).beside_the_job("checkpoint_key"),
    flag("semi_ratio", &[Semi]).refused("").evaluated("label_ratio"),
    flag("fc_epochs", LABELS).evaluated("epochs"),
    flag("fc_batch_size", LABELS).only(Only::NotLbfgs).evaluated("batch_size"),
    flag("fc_lr", LABELS).only(Only::NotLbfgs).evaluated("optimizer.lr"),
    flag("fc_optimizer", LABELS).evaluated("optimizer.name"),
    flag("fc_scheduler", LABELS).only(Only::NotLbfgs).evaluated("schedule.name"),
    flag("fc_weight_decay", LABELS).only(Only::NotLbfgs).evaluated("optimizer.weight_decay"),
    flag("fc_momentum", LABELS).only(Only::NotLbfgs).evaluated("optimizer.momentum"),
    flag("fc_standardize", LABELS).only(Only::Linear).evaluated("standardize"),
    flag("reg_weight", LABELS).only(Only::Linear).evaluated("reg_weights"),
    flag("fc_augment", LABELS).evaluated("augment"),
    flag("patience_epochs", LABELS).only(Only::WholeNetwork).evaluated("patience_epochs"),
    flag("early_stop_on", LABELS).only(Only::WholeNetwork).evaluated("early_stop_on"),
    flag("knn_neighbours", EVERY).only(Only::Linear).adopted("online_knn.knn.neighbours").evaluated("knn.neighbours"),
    flag("knn_temperature", EVERY)
        .only(Only::Linear)
        .adopted("online_knn.knn.temperature")
        .evaluated("knn.temperature"),
    flag("knn_every", PRETRAINING).adopted("online_knn.every_epochs"),
    flag("probe_every", PRETRAINING).adopted("online_probe.every_epochs"),
    flag("feature_cache", LABELS).only(Only::Linear).beside_the_job("feature_cache"),
    flag("fc_log_dir", LABELS).refused(""),
    flag("fc_train_from", LABELS).refused(""),
    flag("fc_save_every_n_epochs", LABELS).evaluated("save_every_n_epochs"),
];

/// An evaluation.
///
/// Errors: flags that contradict each other, no encoder.
pub fn from_flags(typed: &Typed, precision: Precision) -> Result<Evaluate> {
    let args = &typed.args;
    let flags = &args.evaluation;
    let train_mode = flags.train_mode;
    let mut data = args.data.config(typed.dataset());
    data.size_is_default = args.data.image_size.is_none();
    let source = match train_mode {
        Supervised => EncoderSource::Scratch(args.objective.model(&data)),
        _ => encoder_source(typed)?,
    };
    if flags.trains_whole_network() && typed.has("transfer_mode") && flags.transfer_mode != TransferMode::Finetune {
        bail!(
            "--train-mode {train_mode} trains the whole network, --transfer-mode {} only a classifier; leave one of them \
             out",
            flags.transfer_mode
        );
    }
    let mode = if flags.trains_whole_network() { TransferMode::Finetune } else { TransferMode::LinearEval };
    if flags.fc_optimizer == OptimizerName::Lbfgs && mode == TransferMode::Finetune {
        bail!("--fc-optimizer LBFGS works on a frozen trunk only; use sgd, lars or adam with --transfer-mode finetune");
    }
    // Upstream fine-tunes a pre-trained network without a schedule and stops early.
    let (usual_schedule, usual_patience) = if mode == TransferMode::Finetune && train_mode != Supervised {
        (ScheduleName::Constant, FINETUNE_PATIENCE_EPOCHS)
    } else {
        (ScheduleName::Cosine, 0)
    };
    // Upstream's linear transfer takes its batches from the flag of pre-training.
    let linear_transfer = train_mode == Transfer && mode == TransferMode::LinearEval;
    let read = linear_transfer && flags.fc_optimizer != OptimizerName::Lbfgs;
    let borrowed = read && typed.has("batch_size") && !typed.has("fc_batch_size");
    let stated = StatedEncoder {
        dataset: (typed.names_other_images() && typed.says("dataset_name")).then_some(args.data.dataset_name),
        objective: typed.says("clr").then_some(args.objective.clr),
        depth: typed.says("model").then_some(args.objective.model),
        batch_size: (typed.says("batch_size") && !borrowed).then_some(args.optimisation.batch_size),
    };
    let protocol = data::protocol(data.dataset);
    let usual_augment = if mode == TransferMode::LinearEval { protocol.frozen } else { protocol.training };
    let resume = flags.fc_log_dir.clone().zip(flags.fc_train_from.clone());
    Ok(Evaluate {
        source,
        stated: if train_mode == Supervised { StatedEncoder::default() } else { stated },
        mode,
        data,
        label_ratio: if train_mode == Semi { flags.semi_ratio } else { 1.0 },
        optimizer: OptimizerConfig {
            name: flags.fc_optimizer,
            lr: flags.fc_lr,
            weight_decay: flags.fc_weight_decay,
            momentum: flags.fc_momentum,
            lars_exclude_bn: args.optimisation.lars_exclude.bn,
            lars_exclude_bias: args.optimisation.lars_exclude.bias,
        },
        schedule: ScheduleConfig { name: flags.fc_scheduler.unwrap_or(usual_schedule), warmup_epochs: 0 },
        batch_size: if borrowed { args.optimisation.batch_size } else { flags.fc_batch_size },
        epochs: flags.fc_epochs,
        rate_follows_batch: !typed.says("fc_lr"),
        patience_epochs: flags.patience_epochs.unwrap_or(usual_patience),
        early_stop_on: flags.early_stop_on,
        augment: flags.fc_augment.or(resume.is_none().then_some(usual_augment)),
        standardize: flags.fc_standardize,
        reg_weights: flags.reg_weight.clone(),
        knn: KnnConfig { neighbours: flags.knn_neighbours, temperature: flags.knn_temperature },
        save_every_n_epochs: flags.fc_save_every_n_epochs,
        resume,
        seed: args.optimisation.seed,
        precision,
        numerics: args.machine.numerics(),
    })
}

/// The encoder of an evaluation on images like those that it was trained on; `None` where the command is about others.
///
/// Errors: no encoder.
pub(super) fn judged(typed: &Typed) -> Result<Option<EncoderSource>> {
    match typed.args.evaluation.train_mode {
        Eval | Semi if !typed.names_other_images() => encoder_source(typed).map(Some),
        _ => Ok(None),
    }
}

impl EvaluationArgs {
    /// Whether labels train everything, or only a classifier on a frozen trunk.
    pub fn trains_whole_network(&self) -> bool {
        match self.train_mode {
            Semi | Supervised => true,
            _ => self.transfer_mode == TransferMode::Finetune,
        }
    }
}

fn encoder_source(typed: &Typed) -> Result<EncoderSource> {
    let flags = &typed.args.evaluation;
    match (&flags.checkpoint, &flags.checkpoint_dir) {
        (Some(file), _) => Ok(EncoderSource::File(file.clone())),
        (None, Some(directory)) => {
            Ok(EncoderSource::Directory { directory: directory.clone(), which: checkpoints(typed) })
        }
        (None, None) => bail!(
            "--train-mode {} needs a trained encoder: give the directory of its run with --checkpoint-dir, or one \
             file with --checkpoint",
            flags.train_mode
        ),
    }
}

/// Which checkpoints of a directory; upstream's `main_eval` counts through them with two flags of pre-training.
fn checkpoints(typed: &Typed) -> CheckpointChoice {
    let (flags, counted) = (&typed.args.evaluation, typed.says("epochs") || typed.says("save_every_n_epochs"));
    if flags.train_mode != Eval || typed.says("transfer_from_epoch") || !counted {
        return flags.transfer_from_epoch;
    }
    CheckpointChoice::Every { epochs: typed.args.results.save_every_n_epochs, until: typed.args.optimisation.epochs }
}
