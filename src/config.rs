//! What a run means: every setting resolved, none optional unless its absence
//! means something. `cli::resolve` builds it from what the user typed; it is
//! written to `config.yml` and into every checkpoint, and read back on resume.
//!
//! Knows neither clap nor tch. Units are in the names.

mod tools;

pub use tools::{Doctor, Embed, Export, Inspect, Preview, Report, Tool};

use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// A closed set of values with one spelling each: what the user types, what
/// `config.yml` shows and what a checkpoint stores.
macro_rules! choice {
    ($(#[$meta:meta])* $name:ident { $($(#[$vmeta:meta])* $variant:ident = $text:literal $(| $alias:literal)*),+ $(,)? }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum $name { $($(#[$vmeta])* $variant),+ }

        impl $name {
            /// Every value, in the order in which help lists them.
            pub const ALL: &'static [$name] = &[$($name::$variant),+];
            /// Their spellings, in the same order.
            pub const NAMES: &'static [&'static str] = &[$($text),+];

            /// The value's one spelling.
            pub fn name(self) -> &'static str {
                match self { $($name::$variant => $text),+ }
            }

            /// Reads a spelling, in any case, with `-` and `_` alike; `None` if it is no value of this set.
            pub fn parse(text: &str) -> Option<Self> {
                let wanted = text.to_ascii_lowercase().replace('-', "_");
                $(if [$text $(, $alias)*].iter().any(|s| s.to_ascii_lowercase().replace('-', "_") == wanted) {
                    return Some($name::$variant);
                })+
                None
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.pad(self.name())
            }
        }

        impl Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
                s.serialize_str(self.name())
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
                let text = String::deserialize(d)?;
                $name::parse(&text).ok_or_else(|| serde::de::Error::custom(format!(
                    "{text:?} is none of {}", $name::NAMES.join(", ")
                )))
            }
        }
    };
}

choice! {
    /// The data sets the program reads.
    DatasetName {
        Imagenet = "imagenet",
        Cifar10 = "cifar10",
        Cifar100 = "cifar100",
        Stl10 = "stl10",
        TinyImagenet = "tiny_imagenet",
        FashionMnist = "fashion_mnist",
        /// 4,000 + 1,000 images of Fashion-MNIST inside the binary.
        FashionMnistMini = "fashion_mnist_mini",
        Caltech = "caltech",
        Voc = "voc",
        Flower = "flower" | "flowers",
        Food = "food",
        Sun = "SUN" | "sun397",
        /// Any directory of images, labelled by subdirectory or unlabelled.
        Folder = "folder",
    }
}

choice! {
    /// The contrastive objective.
    Objective {
        /// InfoNCE (NT-Xent), as SimCLR trains.
        SimClr = "simclr",
        /// FlatNCE, the self-normalised objective.
        FlatClr = "flatclr",
    }
}

impl Objective {
    /// The part of a results directory's name: `512_FlatCLR`, `512_SimCLR`.
    pub fn directory_suffix(self) -> &'static str {
        match self {
            Objective::SimClr => "SimCLR",
            Objective::FlatClr => "FlatCLR",
        }
    }
}

choice! {
    /// The depth of the ResNet.
    Depth { Res10 = "res10", Res18 = "res18", Res34 = "res34", Res50 = "res50", Res101 = "res101", Res152 = "res152" }
}

choice! {
    /// How the network begins.
    Stem {
        /// 3x3 convolution, stride 1, no pooling: for images of 32 to 96 pixels.
        Small = "small",
        /// 7x7 convolution, stride 2, then 3x3 max-pooling, stride 2: for 224 pixels.
        Imagenet = "imagenet",
    }
}

choice! {
    /// The projection head's shape.
    HeadMode { Nonlinear = "nonlinear", Linear = "linear", None = "none" }
}

choice! {
    /// The optimisation algorithm.
    OptimizerName { Lars = "lars", Adam = "adam", Sgd = "sgd", Lbfgs = "LBFGS" }
}

choice! {
    /// The learning-rate schedule.
    ScheduleName { Cosine = "cosine", Constant = "constant", None = "none" }
}

choice! {
    /// How the learning rate follows from the batch size when none is given.
    LearningRateScaling { Linear = "linear", Sqrt = "sqrt" }
}

choice! {
    /// Where the run computes, as asked for.
    DeviceKind { Auto = "auto", Cpu = "cpu", Cuda = "cuda" }
}

choice! {
    /// Arithmetic of the encoder; the loss and BatchNorm's statistics are float32 always.
    Precision { Fp32 = "fp32", Bf16 = "bf16", Fp16 = "fp16" }
}

choice! {
    /// What stands before every name in a checkpoint's `model_state_dict`.
    KeyPrefix {
        None = "none",
        /// As `torch.nn.DataParallel` writes: upstream's own scripts need it.
        Module = "module.",
    }
}

choice! {
    /// What is trained on top of a pre-trained encoder.
    TransferMode { LinearEval = "linear_eval", Finetune = "finetune" }
}

choice! {
    /// What the program does.
    TrainMode { Ssl = "ssl", Eval = "eval", Transfer = "transfer", Semi = "semi", Supervised = "supervised" }
}

choice! {
    /// How the terminal is written to.
    LogFormat {
        /// Lines and progress bars for people.
        Text = "text",
        /// A JSON object a line.
        Json = "json",
    }
}

choice! {
    /// What becomes of image files that cannot be read.
    BadImages {
        /// The first one met is an error.
        Fail = "fail",
        /// All files are read once before the run, and the broken ones left out.
        Skip = "skip",
    }
}

choice! {
    /// How the training images of a classifier are drawn.
    ClassifierAugment {
        /// As the test images: nothing is random.
        None = "none",
        /// A crop of 8 to 100% of the area, resized, and mirrored half of the time.
        CropFlip = "crop-flip",
        /// Moved by up to an eighth of the side, and mirrored half of the time.
        ShiftFlip = "shift-flip",
    }
}

choice! {
    /// Which images decide when the training of a whole network stops.
    EarlyStopOn {
        /// A tenth of the training images, kept from training.
        HeldOut = "held-out",
        /// The test images, as upstream's fine-tuning does.
        Test = "test",
    }
}

choice! {
    /// Which images are embedded.
    EmbedPart { Train = "train", Test = "test", Unlabelled = "unlabelled" | "unlabeled" }
}

choice! {
    /// What features are written as.
    EmbedFormat { Npy = "npy", Safetensors = "safetensors" }
}

choice! {
    /// For whom an encoder is written.
    ExportFormat { Safetensors = "safetensors", Torchvision = "torchvision", Timm = "timm" }
}

choice! {
    /// How `report` writes its table.
    ReportFormat { Markdown = "markdown", Json = "json", Csv = "csv" }
}

choice! {
    /// The engine that renders the views.
    Engine {
        /// Worker threads on the CPU.
        Cpu = "cpu",
        /// Tensor operations on the training device.
        Tensor = "tensor",
    }
}

choice! {
    /// Whether a data set lies in the training device's memory, for the tensor engine.
    #[derive(Default)]
    DataOnDevice {
        /// Where it is a block of memory and fits.
        #[default]
        Auto = "auto",
        Yes = "yes",
        /// Batches are made ready by worker threads and copied.
        No = "no",
    }
}

/// A device: its kind and, for CUDA, its index.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum DeviceChoice {
    /// CUDA when it works, else the CPU; the choice is printed.
    Auto,
    Cpu,
    /// One CUDA device, by index.
    Cuda(usize),
}

impl std::fmt::Display for DeviceChoice {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            DeviceChoice::Auto => f.pad("auto"),
            DeviceChoice::Cpu => f.pad("cpu"),
            DeviceChoice::Cuda(index) => f.pad(&format!("cuda:{index}")),
        }
    }
}

impl From<DeviceChoice> for String {
    fn from(choice: DeviceChoice) -> String {
        choice.to_string()
    }
}

impl TryFrom<String> for DeviceChoice {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        match text.as_str() {
            "auto" => Ok(DeviceChoice::Auto),
            "cpu" => Ok(DeviceChoice::Cpu),
            "cuda" => Ok(DeviceChoice::Cuda(0)),
            other => match other.strip_prefix("cuda:").map(str::parse) {
                Some(Ok(index)) => Ok(DeviceChoice::Cuda(index)),
                _ => Err(format!("{text:?} is no device; use auto, cpu, cuda or cuda:N")),
            },
        }
    }
}

/// Which data, and where it lies.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DataConfig {
    pub dataset: DatasetName,
    /// The directory that holds the data sets; for `folder`, the images themselves.
    pub root: PathBuf,
    /// Side of the square images given to the encoder.
    pub image_size_px: u32,
    /// Train on so many images only, chosen at random once and for all; `None` = all.
    #[serde(default)]
    pub train_images: Option<u32>,
    #[serde(default = "fail_on_bad_images")]
    pub bad_images: BadImages,
}

/// What runs of older versions did.
fn fail_on_bad_images() -> BadImages {
    BadImages::Fail
}

/// The distribution of the views (reference: the paper's recipe per data set).
///
/// Order per view: random resized crop, horizontal flip, colour jitter
/// (brightness, contrast, saturation, hue in random order), greyscale, blur.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Augmentation {
    /// Smallest and largest share of the image's area that a crop covers.
    pub crop_scale_min: f64,
    pub crop_scale_max: f64,
    /// Smallest and largest width / height of a crop.
    pub crop_ratio_min: f64,
    pub crop_ratio_max: f64,
    pub flip_prob: f64,
    pub jitter_prob: f64,
    /// `s`: brightness, contrast and saturation vary by 0.8 s, hue by 0.2 s.
    pub jitter_strength: f64,
    pub grayscale_prob: f64,
    /// 0 turns the blur off.
    pub blur_prob: f64,
    /// Side of the Gaussian kernel, odd.
    pub blur_kernel_px: u32,
    pub blur_sigma_min: f64,
    pub blur_sigma_max: f64,
}

impl Augmentation {
    /// The paper's recipe for a data set at a given image side; `tensor_engine` is upstream's
    /// `faster_version`, which blurs CIFAR-10 too.
    pub fn paper(dataset: DatasetName, image_size_px: u32, tensor_engine: bool) -> Self {
        let (strength, blur) = match dataset {
            DatasetName::Cifar10 => (0.5, tensor_engine),
            DatasetName::Cifar100 => (0.5, false),
            DatasetName::Stl10 => (1.0, false),
            DatasetName::TinyImagenet => (0.0, false),
            DatasetName::FashionMnist | DatasetName::FashionMnistMini => (0.5, false),
            _ => (1.0, true),
        };
        let kernel = image_size_px / 10;
        Augmentation {
            crop_scale_min: 0.08,
            crop_scale_max: 1.0,
            crop_ratio_min: 3.0 / 4.0,
            crop_ratio_max: 4.0 / 3.0,
            flip_prob: 0.5,
            jitter_prob: 0.8,
            jitter_strength: strength,
            grayscale_prob: 0.2,
            blur_prob: if blur { 0.5 } else { 0.0 },
            blur_kernel_px: (kernel | 1).max(3),
            blur_sigma_min: 0.1,
            blur_sigma_max: 2.0,
        }
    }
}

/// Per-channel mean and standard deviation (RGB, input in `[0, 1]`) applied inside the encoder.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Normalisation {
    pub mean: [f32; 3],
    pub std: [f32; 3],
}

impl Normalisation {
    /// Upstream's constants.
    pub fn of(dataset: DatasetName) -> Self {
        let (mean, std) = match dataset {
            DatasetName::Cifar10 => ([0.4914, 0.4822, 0.4465], [0.2023, 0.1994, 0.2010]),
            DatasetName::Cifar100 => ([0.5071, 0.4867, 0.4408], [0.2675, 0.2565, 0.2761]),
            DatasetName::TinyImagenet => ([0.48, 0.4481, 0.3977], [0.276, 0.270, 0.282]),
            DatasetName::Imagenet => ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]),
            _ => ([0.5; 3], [0.5; 3]),
        };
        Normalisation { mean, std }
    }
}

/// The projection head that replaces `fc` during pre-training.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct HeadConfig {
    pub mode: HeadMode,
    /// Linear layers of the nonlinear head.
    pub layers: u32,
    pub out_dim: u32,
}

/// Trunk, stem, normalisation and projection head.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ModelConfig {
    pub depth: Depth,
    pub stem: Stem,
    pub normalisation: Normalisation,
    pub head: HeadConfig,
}

/// Optimiser and its constants. Not every field is used by every algorithm.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct OptimizerConfig {
    pub name: OptimizerName,
    /// The schedule's factor multiplies this.
    pub lr: f64,
    pub weight_decay: f64,
    pub momentum: f64,
    /// LARS: parameters of BatchNorm take neither decay nor adaptation.
    pub lars_exclude_bn: bool,
    /// LARS: biases take neither decay nor adaptation.
    pub lars_exclude_bias: bool,
}

/// The schedule of the learning rate.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct ScheduleConfig {
    pub name: ScheduleName,
    pub warmup_epochs: u32,
}

/// Where a run begins.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Start {
    Fresh,
    /// Continue the run that wrote this checkpoint, in its directory.
    Resume(PathBuf),
    /// A new run from these weights.
    Pretrained(PathBuf),
}

/// Which checkpoints of a run are written beside those of whole epochs, which stay, and how they spell names.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct CheckpointPolicy {
    /// Within epochs too, after so many steps; `None` = not.
    pub every_n_steps: Option<u32>,
    /// The newest so many stay; `None` = all.
    pub keep_last: Option<u32>,
    /// Those of every so many epochs stay for good.
    pub keep_every: Option<u32>,
    pub prefix: KeyPrefix,
}

impl Default for CheckpointPolicy {
    fn default() -> Self {
        CheckpointPolicy { every_n_steps: None, keep_last: None, keep_every: None, prefix: KeyPrefix::None }
    }
}

/// What a GPU may do to float32 and to the order of sums.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Numerics {
    /// float32 products may be rounded to TF32.
    pub allow_tf32: bool,
    /// The same bits every time.
    pub deterministic: bool,
}

/// One pre-training run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Pretrain {
    pub data: DataConfig,
    pub augmentation: Augmentation,
    pub engine: Engine,
    pub objective: Objective,
    /// Of the similarities; with `ess_target` that of the first steps.
    pub temperature: f64,
    /// Steer the temperature so that the mean normalised effective sample size is this, in (0, 1).
    #[serde(default)]
    pub ess_target: Option<f64>,
    pub model: ModelConfig,
    pub optimizer: OptimizerConfig,
    pub schedule: ScheduleConfig,
    pub batch_size: u32,
    pub epochs: u32,
    pub seed: u64,
    pub precision: Precision,
    #[serde(default)]
    pub numerics: Numerics,
    /// Parts in which a batch goes through the encoder, one after the other.
    #[serde(default = "one")]
    pub grad_cache: u32,
    /// With several processes: BatchNorm's statistics are of the images of all.
    #[serde(default = "yes")]
    pub sync_bn: bool,
    /// Steps between two close looks at features and gradients; 0 = only at the end of an epoch.
    #[serde(default)]
    pub log_every: u32,
    pub save_every_n_epochs: u32,
    #[serde(default)]
    pub checkpoints: CheckpointPolicy,
    /// `None` = not.
    #[serde(default)]
    pub online_knn: Option<OnlineKnn>,
}

/// What runs of older versions did.
fn one() -> u32 {
    1
}

/// What runs of older versions did, which knew one process.
fn yes() -> bool {
    true
}

/// Which checkpoint of a directory to evaluate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CheckpointChoice {
    /// The newest.
    Last,
    /// `checkpoint_{epoch:04}.pth.tar`.
    Epoch(u32),
    /// Every one, oldest first: accuracy over epochs, as upstream's `main_eval`.
    All,
}

/// Where the encoder of an evaluation comes from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EncoderSource {
    /// Checkpoints of a directory.
    Directory { directory: PathBuf, which: CheckpointChoice },
    /// One checkpoint file.
    File(PathBuf),
    /// Random weights: supervised training from scratch.
    Scratch(ModelConfig),
}

/// How the trunk's features are judged by their nearest neighbours.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct KnnConfig {
    pub neighbours: u32,
    /// Of the weighted vote, exp(similarity / temperature).
    pub temperature: f64,
}

/// Nearest neighbours while pre-training goes on.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct OnlineKnn {
    pub every_epochs: u32,
    pub knn: KnnConfig,
}

/// One evaluation: a classifier on frozen features, or the whole network trained with labels.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Evaluate {
    pub source: EncoderSource,
    pub mode: TransferMode,
    /// The labelled data.
    pub data: DataConfig,
    /// Share of the training labels that is used, in (0, 1].
    pub label_ratio: f64,
    pub optimizer: OptimizerConfig,
    pub schedule: ScheduleConfig,
    pub batch_size: u32,
    pub epochs: u32,
    /// Stop after so many epochs without a better top-1 on the images of `early_stop_on` (fine-tuning); 0 = never.
    pub patience_epochs: u32,
    #[serde(default = "stop_by_the_test_images")]
    pub early_stop_on: EarlyStopOn,
    /// `None`: as the data set's own protocol has it.
    #[serde(default)]
    pub augment: Option<ClassifierAugment>,
    /// Linear evaluation: bring every feature to mean 0 and variance 1 over the training images first.
    #[serde(default)]
    pub standardize: bool,
    /// L2 penalties on the classifier to choose from, on a split of the training data.
    pub reg_weights: Vec<f64>,
    pub knn: KnnConfig,
    pub save_every_n_epochs: u32,
    /// Directory and checkpoint file of an evaluation to continue.
    pub resume: Option<(PathBuf, String)>,
    pub seed: u64,
    pub precision: Precision,
    #[serde(default)]
    pub numerics: Numerics,
}

/// What evaluations of older versions did.
fn stop_by_the_test_images() -> EarlyStopOn {
    EarlyStopOn::Test
}

/// What to do.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Job {
    Pretrain(Box<Pretrain>),
    Evaluate(Box<Evaluate>),
}

/// How much the program says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Talk {
    Quiet,
    Normal,
    Verbose,
}

/// What `--distributed-timeout` is by default.
fn distributed_timeout_seconds() -> u32 {
    600
}

/// A command line, resolved.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Config {
    pub job: Job,
    pub start: Start,
    pub device: DeviceChoice,
    /// Threads that load and augment.
    pub workers: u32,
    #[serde(default)]
    pub data_on_device: DataOnDevice,
    /// Results go below this directory.
    pub save_dir: PathBuf,
    /// Processes to start on this machine, where this program is to start them itself.
    #[serde(default)]
    pub nproc: Option<u32>,
    /// How long the processes of a group wait for each other.
    #[serde(default = "distributed_timeout_seconds")]
    pub distributed_timeout_seconds: u32,
    /// Where evaluations keep features for the next one; `None` = nowhere.
    #[serde(default)]
    pub feature_cache: Option<PathBuf>,
    pub talk: Talk,
    pub log_format: LogFormat,
    /// Resolve and print everything, train nothing.
    pub dry_run: bool,
    /// The command line as typed, word by word, to be repeated.
    pub command: Vec<String>,
}

impl Config {
    /// The arithmetic that the job asks of the device.
    pub fn numerics(&self) -> Numerics {
        match &self.job {
            Job::Pretrain(run) => run.numerics,
            Job::Evaluate(run) => run.numerics,
        }
    }
}
