//! Which images.

use super::Typed;
use super::flags::{EVERY, Flag, Only, flag};
use crate::config::{BadImages, DataConfig, DatasetName, Labels, Orientation};
use crate::data::{meant, source_of, usual_size_px};
use crate::run_dir::shell_words;
use crate::values::{between, one_of};
use anyhow::{Result, bail};
use std::path::{Path, PathBuf};

#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Data")]
pub struct DataArgs {
    /// Directory that holds the data sets; for `folder`, the images themselves; for `shards`, archives
    ///
    /// Given several times, `folder` and `shards` read them all; of other data
    /// sets the last one counts. Shards may be a pattern: 'DIR/train-*.tar'.
    #[arg(long, value_name = "DIR", default_value = "datasets", action = clap::ArgAction::Append)]
    pub data: Vec<PathBuf>,
    /// Images to train on, and in evaluation the labelled images
    ///
    /// fashion_mnist_mini is inside the program; folder is any directory of
    /// images (JPEG, PNG, WebP, TIFF, GIF, BMP, PNM), shards are tar archives
    /// of them. The other sets: datasets/README.md.
    #[arg(long, value_name = "NAME", default_value = "imagenet", value_parser = one_of!(DatasetName))]
    pub dataset_name: DatasetName,
    /// Side of the images given to the encoder, in pixels
    ///
    /// Default: the data set's own: 32 (cifar10, cifar100, fashion_mnist),
    /// 64 (tiny_imagenet), 96 (stl10), 224 (the others). What evaluates an encoder on
    /// the data set of its training, or on images without a size of their own, takes
    /// that of its training.
    #[arg(long, value_name = "PIXELS", value_parser = between::<8, 1024>)]
    #[arg(help = "Side of the images given to the encoder, in pixels [default: the data set's own]")]
    pub image_size: Option<u32>,
    /// Train on so many images only, the same ones whatever the seed [default: all]
    #[arg(long, value_name = "N", value_parser = between::<2, 2_000_000_000>)]
    pub train_images: Option<u32>,
    /// Image files that cannot be read: an error (fail), or leave them out (skip)
    ///
    /// fail looks at the headers before the run where that is cheap. skip reads
    /// every file once and leaves out whatever cannot be read, however much it is;
    /// skip:5% gives up where that is more than 5%.
    #[arg(long, value_name = "RULE", default_value = "fail", hide_short_help = true)]
    pub bad_images: BadImages,
    /// Photographs taken with a turned camera: as their pixels are stored, or upright (exif)
    ///
    /// Pillow and torchvision read them as stored.
    #[arg(long, value_name = "RULE", default_value = "stored", value_parser = one_of!(Orientation), hide_short_help = true)]
    pub orientation: Orientation,
    /// What one's own images are labelled by: the directories that they lie in, or nothing (none)
    ///
    /// Default: directories, where every image lies in one. directories leaves images out
    /// that lie in none.
    #[arg(long, value_name = "RULE", value_parser = one_of!(Labels), hide_short_help = true)]
    pub labels: Option<Labels>,
}

pub const FLAGS: &[Flag] = &[
    flag("data", EVERY).adopted("data.root").evaluated("data.root"),
    flag("dataset_name", EVERY).only(Only::NamedImages).identity("data.dataset"),
    flag("image_size", EVERY).identity("data.image_size_px").evaluated("data.image_size_px"),
    flag("train_images", EVERY).identity("data.train_images").evaluated("data.train_images"),
    flag("bad_images", EVERY).identity("data.bad_images").evaluated("data.bad_images"),
    flag("orientation", EVERY).identity("data.orientation").evaluated("data.orientation"),
    flag("labels", EVERY).only(Only::OwnImages).identity("data.labels").evaluated("data.labels"),
];

impl DataArgs {
    /// Asks what was meant where `--data` names images, no flag says which data set they are, and they are not ImageNet, the
    /// default of the paper's commands.
    ///
    /// Errors: that question, with the command that it is about.
    pub(super) fn check_named(&self, typed: &Typed) -> Result<()> {
        if !typed.has_too("data") || typed.has_too("dataset_name") {
            return Ok(());
        }
        for place in &self.data {
            let Some((dataset, source)) = meant(place)? else { continue };
            let words: Vec<String> = typed.words.iter().map(|word| with_place(word, place, &source)).collect();
            bail!(
                "{} holds no ImageNet, the data set of a command that names none: was --dataset-name {dataset} meant?\n  \
                 {} --dataset-name {dataset}",
                place.display(),
                shell_words(&words)
            );
        }
        Ok(())
    }

    /// Takes over what `trained_on` says of an encoder's images, unless the command (`typed`) names others. The answer says
    /// what was taken.
    ///
    /// Errors: they are no longer there, and the command does not say where else.
    pub(super) fn take(&mut self, trained_on: &DataConfig, typed: impl Fn(&str) -> bool) -> Result<Option<String>> {
        let DataConfig { dataset, bad_images, orientation, labels, .. } = *trained_on;
        let (named, placed) = (typed("dataset_name"), typed("data"));
        if named && self.dataset_name != dataset {
            return Ok(None);
        }
        self.dataset_name = dataset;
        if !placed {
            // Patterns of shards are no files.
            let gone = |root: &&PathBuf| !root.exists() && !root.to_string_lossy().contains(['*', '?', '[', '{']);
            match trained_on.roots().find(gone).filter(|_| !source_of(dataset).homes.is_empty()) {
                // A published set may lie where those lie that nobody names.
                Some(_) if named => return Ok(None),
                Some(gone) => bail!(
                    "the encoder was trained on {dataset} in {}, which is not there (any more): say where its images are \
                     with --data, or name others with --dataset-name and --data",
                    gone.display()
                ),
                None => self.data = trained_on.roots().cloned().collect(),
            }
        }
        if !typed("bad_images") {
            self.bad_images = bad_images;
        }
        if !typed("orientation") {
            self.orientation = orientation;
        }
        if !typed("labels") {
            self.labels = labels;
        }
        let inside = source_of(dataset).homes.is_empty();
        let places: Vec<String> = self.data.iter().map(|place| place.display().to_string()).collect();
        let place = if inside || placed { String::new() } else { format!(" in {}", places.join(", ")) };
        Ok(Some(format!(
            "images: {dataset}{place}, on which the encoder was trained; --dataset-name and --data name others"
        )))
    }

    /// The images of a data set; `dataset_name` where an evaluation does not name others.
    pub fn config(&self, dataset: DatasetName) -> DataConfig {
        let mut roots = self.data.clone();
        let several = source_of(dataset).several_roots;
        // Of a flag given twice the last one counts.
        let root = if several { roots.remove(0) } else { roots.pop().unwrap_or_default() };
        let size_px = self.image_size.unwrap_or_else(|| usual_size_px(dataset, &root));
        DataConfig {
            train_images: self.train_images,
            bad_images: self.bad_images,
            more_roots: if several { roots } else { Vec::new() },
            orientation: self.orientation,
            labels: self.labels,
            ..DataConfig::new(dataset, root, size_px)
        }
    }
}

/// A word of the command line with another place of the images.
fn with_place(word: &str, old: &Path, new: &Path) -> String {
    match word.strip_prefix("--data=") {
        _ if Path::new(word) == old => new.display().to_string(),
        Some(place) if Path::new(place) == old => format!("--data={}", new.display()),
        _ => word.to_owned(),
    }
}
