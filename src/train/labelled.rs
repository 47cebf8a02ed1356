//! The labelled images that judge an encoder: those that a classifier learns from or that vote, and the test images, or
//! a fifth of the former where a data set has none of its own.

use crate::config::{DataConfig, Part};
use crate::data::{BadImage, NoPart, Split, counted, grouped, some_of};
use crate::report::Console;
use crate::rng::{Purpose, Stream};
use crate::train::readable::{self, Readable};
use anyhow::{Context, Result, bail};

/// Of images without a test part, one in so many of a class is held out for the test.
const HELD_OUT: usize = 5;

/// Both parts, with the same classes.
#[derive(Debug)]
pub struct Labelled {
    pub train: Split,
    pub test: Split,
    /// Broken images that are in neither.
    pub left_out: Vec<BadImage>,
    /// The data set has no test images of its own.
    pub held_out: bool,
}

impl Labelled {
    /// Loads both parts. Which images are held out does not depend on any seed, so that encoders are compared on the same.
    ///
    /// Errors: data that is missing, unlabelled, or whose parts have different classes.
    pub fn load(config: &DataConfig, console: &Console) -> Result<Labelled> {
        let test = match readable::load(config, Part::Test, console) {
            Err(error) if error.downcast_ref::<NoPart>().is_some() => {
                return Labelled::divided(config, &error, console);
            }
            test => test?,
        };
        let train = readable::load(config, Part::Train, console)?;
        let left_out = train.left_out.into_iter().chain(test.left_out).collect();
        let (train, test) = (train.split, test.split);
        for split in [&train, &test] {
            if split.labels.is_none() {
                bail!("{} has no labels: there is nothing to evaluate on; choose a labelled data set", split.name);
            }
        }
        if train.classes != test.classes {
            bail!(
                "{} has {} and {} has {}, or they differ in name: both parts need the same classes",
                train.name,
                counted(train.classes.len(), "class"),
                test.name,
                test.classes.len()
            );
        }
        Ok(Labelled { train, test, left_out, held_out: false })
    }

    /// Training images alone, divided; `why` there are no others.
    fn divided(config: &DataConfig, why: &anyhow::Error, console: &Console) -> Result<Labelled> {
        let whole = DataConfig { train_images: None, ..config.clone() };
        let Readable { split, left_out } = readable::load(&whole, Part::Train, console)?;
        let Some(labels) = &split.labels else {
            bail!(
                "{} has no labels: there is nothing to evaluate on; choose a labelled data set, or sort the images into a \
                 directory for each class",
                split.name
            );
        };
        let count = |members: usize| (members / HELD_OUT).max(usize::from(members > 1));
        let (kept, test) = hold_out(labels, 0, 5, count);
        if test.is_empty() {
            bail!("{why:#}; of one image a class none can be held out instead");
        }
        let note = format!(
            "no test images: {} of the {}, a fifth of every class, are held out for the test; where these images were \
             trained on without labels, the encoder has seen them",
            grouped(test.len()),
            counted(split.len(), "training image")
        );
        if console.is_new(&note) {
            console.note(&note);
        }
        let train = split.part(&kept, "without the held-out fifth");
        let train = match config.train_images {
            Some(count) => some_of(&train, count as usize).context("the others are held out for the test")?,
            None => train,
        };
        Ok(Labelled { train, test: split.part(&test, "the held-out fifth"), left_out, held_out: true })
    }
}

/// Images by their labels: those to train on, and those held out, `count` of a class of so many. They are drawn from
/// `seed`; what differs in `purpose` is drawn independently.
pub fn hold_out(labels: &[i64], seed: u64, purpose: u64, count: impl Fn(usize) -> usize) -> (Vec<usize>, Vec<usize>) {
    let classes = labels.iter().max().map_or(0, |&largest| largest as usize + 1);
    let mut by_class = vec![Vec::new(); classes];
    for (image, &label) in labels.iter().enumerate() {
        by_class[label as usize].push(image);
    }
    let (mut kept, mut held_out) = (Vec::new(), Vec::new());
    for (class, mut members) in by_class.into_iter().enumerate() {
        Stream::new(seed, Purpose::Subset, class as u64, purpose, 0).shuffle(&mut members);
        let (first, rest) = members.split_at(count(members.len()));
        held_out.extend_from_slice(first);
        kept.extend_from_slice(rest);
    }
    kept.sort_unstable();
    held_out.sort_unstable();
    (kept, held_out)
}
