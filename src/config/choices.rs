//! Closed sets of values, and how each is spelt.

use serde::{Deserialize, Serialize};

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

        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
                s.serialize_str(self.name())
            }
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
                let text = <String as serde::Deserialize>::deserialize(d)?;
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
        /// Tar archives of images, as WebDataset packs them.
        Shards = "shards",
        /// NumPy arrays in MedMNIST's layout.
        Npz = "npz" | "medmnist",
        /// Hugging Face's image data sets.
        Parquet = "parquet" | "huggingface",
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
    /// Arithmetic of the encoder; the loss and BatchNorm's statistics are float32 always.
    Precision { Fp32 = "fp32", Bf16 = "bf16", Fp16 = "fp16" }
}

choice! {
    /// The arithmetic as asked for: [`Precision`], or `auto`, which leaves it to the program.
    PrecisionAsked { Auto = "auto", Fp32 = "fp32", Bf16 = "bf16", Fp16 = "fp16" }
}

choice! {
    /// What stands before every name in a checkpoint's `model_state_dict`.
    #[derive(Default)]
    KeyPrefix {
        #[default]
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

/// What becomes of image files that cannot be read: `fail`, `skip` or `skip:5%`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum BadImages {
    /// The first one met is an error, as it was in older versions.
    #[default]
    Fail,
    /// All files are read once before the run, and the broken ones left out: so many of a hundred at most.
    Skip { most_percent: f64 },
}

impl BadImages {
    /// Every broken file is left out, however many there are.
    pub const SKIP: BadImages = BadImages::Skip { most_percent: 100.0 };
}

impl std::fmt::Display for BadImages {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match *self {
            BadImages::Fail => f.pad("fail"),
            BadImages::SKIP => f.pad("skip"),
            BadImages::Skip { most_percent } => f.pad(&format!("skip:{most_percent}%")),
        }
    }
}

impl From<BadImages> for String {
    fn from(rule: BadImages) -> String {
        rule.to_string()
    }
}

impl std::str::FromStr for BadImages {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let percent = |text: &str| text.strip_suffix('%').unwrap_or(text).parse().ok();
        match text.to_ascii_lowercase().split_once(':') {
            None if text.eq_ignore_ascii_case("fail") => Ok(BadImages::Fail),
            None if text.eq_ignore_ascii_case("skip") => Ok(BadImages::SKIP),
            Some(("skip", most)) if percent(most).is_some_and(|most| (0.0..=100.0).contains(&most)) => {
                Ok(BadImages::Skip { most_percent: percent(most).unwrap_or_default() })
            }
            _ => Err("known are fail, skip, and skip:5% for at most 5 in a hundred".to_owned()),
        }
    }
}

impl TryFrom<String> for BadImages {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

choice! {
    /// Which way up a photograph is whose file notes how the camera was held.
    #[derive(Default)]
    Orientation {
        /// As its pixels are stored, like Pillow and torchvision; so it was in older versions.
        #[default]
        Stored = "stored",
        /// As the note in its EXIF data says.
        Exif = "exif",
    }
}

choice! {
    /// What the classes of one's own images are.
    Labels {
        /// The directories that they lie in.
        Directories = "directories",
        /// There are none.
        None = "none",
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
    /// Which images of a data set.
    Part {
        /// Those to train a classifier on; labelled, except in an unlabelled `folder`.
        Train = "train",
        /// Those to measure on.
        Test = "test",
        /// Those to pre-train on: STL-10's 100,000 images without labels (upstream's `unlabeled` split), the training part
        /// of every other set.
        Unlabelled = "unlabelled" | "unlabeled",
    }
}

choice! {
    /// What features are written as.
    EmbedFormat { Npy = "npy", Safetensors = "safetensors" }
}

choice! {
    /// For whom an encoder is written.
    ExportFormat {
        Safetensors = "safetensors",
        Torchvision = "torchvision",
        Timm = "timm",
        Onnx = "onnx",
        /// A directory that transformers reads.
        Huggingface = "huggingface",
    }
}

choice! {
    /// How `report` writes its table.
    ReportFormat { Markdown = "markdown", Json = "json", Csv = "csv" }
}

choice! {
    /// The shells whose completions are written.
    Shell { Bash = "bash", Zsh = "zsh", Fish = "fish" }
}

choice! {
    /// What `list` lists.
    Listing { Models = "models", Datasets = "datasets", Flags = "flags" }
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

choice! {
    /// Whether a GPU's training step is recorded as a CUDA graph and replayed.
    #[derive(Default)]
    CudaGraph {
        /// Where that is possible.
        #[default]
        Auto = "auto",
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
