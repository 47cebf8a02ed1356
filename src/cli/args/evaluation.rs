//! What is done with a trained encoder.

use crate::cli::values::{above_zero, checkpoint_choice, count, momentum, not_negative, one_of, share, switch};
use crate::config::{
    CheckpointChoice, ClassifierAugment, DatasetName, EarlyStopOn, OptimizerName, ScheduleName, TrainMode, TransferMode,
};
use std::path::PathBuf;

#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Evaluation")]
pub struct EvaluationArgs {
    /// What to do: pre-train (ssl), or train with labels (the others)
    ///
    /// eval judges an encoder on --dataset-name, transfer on
    /// --transfer-dataset-name; semi fine-tunes it with few labels;
    /// supervised trains with labels from scratch.
    #[arg(long, value_name = "MODE", default_value = "ssl", value_parser = one_of!(TrainMode))]
    pub train_mode: TrainMode,
    /// Train a linear classifier on the frozen trunk, or the whole network
    #[arg(long, value_name = "MODE", default_value = "linear_eval", value_parser = one_of!(TransferMode))]
    pub transfer_mode: TransferMode,
    /// Labelled images of --train-mode transfer
    #[arg(long, value_name = "NAME", default_value = "caltech", value_parser = one_of!(DatasetName), hide_short_help = true)]
    pub transfer_dataset_name: DatasetName,
    /// Directory of a run whose checkpoints are evaluated
    #[arg(long, value_name = "DIR")]
    pub checkpoint_dir: Option<PathBuf>,
    /// Which checkpoint of --checkpoint-dir: its number, last or all
    ///
    /// all evaluates every one, oldest first.
    #[arg(long, value_name = "N|last|all", default_value = "last", value_parser = checkpoint_choice)]
    pub transfer_from_epoch: CheckpointChoice,
    /// One checkpoint file to evaluate
    #[arg(long, value_name = "FILE", conflicts_with_all = ["checkpoint_dir", "transfer_from_epoch"])]
    pub checkpoint: Option<PathBuf>,
    /// Share of the labels that --train-mode semi uses, above 0 and at most 1
    #[arg(long, value_name = "SHARE", default_value = "0.1", hide_short_help = true, value_parser = share)]
    pub semi_ratio: f64,
    /// Passes over the labelled images
    #[arg(long, value_name = "N", default_value = "100", value_parser = count::<1>)]
    pub fc_epochs: u32,
    /// Images per step of the evaluation
    #[arg(long, value_name = "IMAGES", default_value = "4096", hide_short_help = true)]
    #[arg(value_parser = count::<2>)]
    pub fc_batch_size: u32,
    /// Peak learning rate of the evaluation
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
    #[arg(long, value_name = "BOOL", default_value = "false", hide_short_help = true)]
    #[arg(num_args = 0..=1, default_missing_value = "true", action = clap::ArgAction::Set, value_parser = switch)]
    pub fc_standardize: bool,
    /// L2 penalty on the linear classifier, or several to choose from: 0,1e-4,1e-2
    #[arg(long, value_name = "FACTORS", default_value = "0", hide_short_help = true)]
    #[arg(value_delimiter = ',', value_parser = not_negative)]
    pub reg_weight: Vec<f64>,
    /// Random crops or shifts of the classifier's training images: none, crop-flip or shift-flip
    ///
    /// crop-flip: 8 to 100% of the area, resized. shift-flip: moved by up to an
    /// eighth of the side, black beyond. Both are mirrored half of the time.
    /// Default: crop-flip for imagenet and folder, none for the others.
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
    #[arg(long, value_name = "K", default_value = "200", hide_short_help = true)]
    #[arg(value_parser = count::<1>)]
    pub knn_neighbours: u32,
    /// Temperature of the kNN vote
    #[arg(long, value_name = "T", default_value = "0.1", hide_short_help = true, value_parser = above_zero)]
    pub knn_temperature: f64,
    /// Epochs of pre-training between two kNN evaluations; 0 is none
    ///
    /// At most 10,000 labelled training images vote on at most 2,000 test
    /// images, where there are labels. It changes nothing in the training.
    #[arg(long, value_name = "N", default_value = "10", hide_short_help = true)]
    #[arg(value_parser = count::<0>)]
    pub knn_every: u32,
    /// Where linear evaluations keep features for the next one, or off
    ///
    /// Only under transforms that are not random; at most 8 GiB, the oldest go.
    /// Default: ~/.cache/flatnce/features.
    #[arg(long, value_name = "DIR|off", hide_short_help = true)]
    pub feature_cache: Option<String>,
    /// Directory of an evaluation to continue, with --fc-train-from
    #[arg(long, value_name = "DIR", requires = "fc_train_from", hide_short_help = true)]
    pub fc_log_dir: Option<PathBuf>,
    /// Checkpoint file in --fc-log-dir to continue from
    #[arg(long, value_name = "FILE", requires = "fc_log_dir", hide_short_help = true)]
    pub fc_train_from: Option<String>,
    /// Epochs of an evaluation between two checkpoints
    #[arg(long, value_name = "N", default_value = "10", hide_short_help = true)]
    #[arg(value_parser = count::<1>)]
    pub fc_save_every_n_epochs: u32,
}
