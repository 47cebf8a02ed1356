//! Which images.

use super::flags::{EVERY, Flag, Only, flag};
use crate::config::{BadImages, DataConfig, DatasetName};
use crate::data::protocol;
use crate::values::{between, one_of};
use std::path::PathBuf;

#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Data")]
pub struct DataArgs {
    /// Directory that holds the data sets; for `folder`, the images themselves
    #[arg(long, value_name = "DIR", default_value = "datasets")]
    pub data: PathBuf,
    /// Images to train on, and in evaluation the labelled images
    ///
    /// fashion_mnist_mini is inside the program; folder is any directory of
    /// JPEG and PNG images. The other sets: datasets/README.md.
    #[arg(long, value_name = "NAME", default_value = "imagenet", value_parser = one_of!(DatasetName))]
    pub dataset_name: DatasetName,
    /// Side of the images given to the encoder, in pixels
    ///
    /// Default: the data set's own: 32 (cifar10, cifar100, fashion_mnist),
    /// 64 (tiny_imagenet), 96 (stl10), 224 (the others).
    #[arg(long, value_name = "PIXELS", value_parser = between::<8, 1024>)]
    #[arg(help = "Side of the images given to the encoder, in pixels [default: the data set's own]")]
    pub image_size: Option<u32>,
    /// Train on so many images only, the same ones whatever the seed [default: all]
    #[arg(long, value_name = "N", value_parser = between::<2, 2_000_000_000>)]
    pub train_images: Option<u32>,
    /// Broken image files: stop at the first (fail), or leave them out (skip)
    ///
    /// skip reads every file once before the run, names the broken ones, and
    /// gives up where they are more than 1%.
    #[arg(long, value_name = "RULE", default_value = "fail", value_parser = one_of!(BadImages), hide_short_help = true)]
    pub bad_images: BadImages,
}

pub const FLAGS: &[Flag] = &[
    flag("data", EVERY).adopted("data.root"),
    flag("dataset_name", EVERY).only(Only::NamedImages).identity("data.dataset"),
    flag("image_size", EVERY).identity("data.image_size_px"),
    flag("train_images", EVERY).identity("data.train_images"),
    flag("bad_images", EVERY).identity("data.bad_images"),
];

impl DataArgs {
    /// The images of a data set; `dataset_name` where an evaluation does not name others.
    pub fn config(&self, dataset: DatasetName) -> DataConfig {
        DataConfig {
            dataset,
            root: self.data.clone(),
            image_size_px: self.image_size.unwrap_or_else(|| protocol(dataset).size_px),
            train_images: self.train_images,
            bad_images: self.bad_images,
        }
    }
}
