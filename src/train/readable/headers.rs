//! A look at the headers of all images before a run, where that is cheap: most of what is broken, or of a kind that is
//! not read, shows there, and what is worth a word.

use crate::config::Orientation;
use crate::data::{self, BadImage, Look, Split, Stored, Unseen, grouped};
use crate::pixels::RgbImage;
use crate::report::{Console, duration};
use rayon::prelude::*;
use std::time::{Duration, Instant};

/// Images whose looks are timed first, spread evenly.
const SAMPLE: usize = 256;
/// Of them so many are decoded, to learn how long an epoch takes.
const DECODED: usize = 32;
/// All looks may take so long,
const PATIENCE: Duration = Duration::from_secs(2);
/// or so much of the time of decoding all images.
const SHARE: f64 = 0.01;
/// Bytes that hold the header of nearly every file; where they do not, so many times as many are read.
const BEGINNING: usize = 4096;
const TIMES_MORE: usize = 16;
/// Images of 16 bits that are decoded to see whether they are dark, and the value of 255 below which they are.
const DEEP_ASKED: usize = 8;
const DARK: u8 = 32;

/// What headers have told.
#[derive(Debug, Default)]
pub struct Found {
    looked: usize,
    /// In the order of the images.
    pub broken: Vec<(usize, BadImage)>,
    deep: Vec<usize>,
    clear_palette: usize,
    cmyk: usize,
    turned: usize,
}

impl Found {
    /// Adds what the header of image `index` says; `None` where it has none.
    pub fn add(&mut self, index: usize, look: Result<Option<Look>, BadImage>) {
        self.looked += 1;
        match look {
            Err(bad) => self.broken.push((index, bad)),
            Ok(None) => {}
            Ok(Some(look)) => {
                self.deep.extend(look.deep.then_some(index));
                self.clear_palette += usize::from(look.clear_palette);
                self.cmyk += usize::from(look.cmyk);
                self.turned += usize::from(look.orientation != 1);
            }
        }
    }

    /// Joins what was found of images that follow.
    pub fn join(mut self, mut other: Found) -> Found {
        self.looked += other.looked;
        self.broken.append(&mut other.broken);
        self.deep.append(&mut other.deep);
        self.clear_palette += other.clear_palette;
        self.cmyk += other.cmyk;
        self.turned += other.turned;
        self
    }

    /// Says what is worth a word, a warning for each kind.
    pub fn warn(&self, split: &Split, console: &Console) {
        let of = |count: usize| format!("{}: {} of {} images", split.name, grouped(count), grouped(self.looked));
        let (have, are) =
            (|count| if count == 1 { "has" } else { "have" }, |count| if count == 1 { "is" } else { "are" });
        if let count @ 1.. = self.deep.len() {
            let dark = darkness(split, &self.deep).unwrap_or_default();
            let head = of(count);
            console.warn(&format!("{head} {} samples of 16 bits, of which the upper 8 are kept{dark}", have(count)));
        }
        if let count @ 1.. = self.clear_palette {
            console.warn(&format!("{} {} a palette with transparency, which is dropped", of(count), have(count)));
        }
        if let count @ 1.. = self.cmyk {
            let head = of(count);
            console.warn(&format!("{head} {} in a printer's colours (CMYK), converted without a profile", are(count)));
        }
        match (self.turned, split.orientation) {
            (0, _) => {}
            (count, Orientation::Stored) => {
                let were = if count == 1 { "was" } else { "were" };
                console.warn(&format!(
                    "{} {were} taken with a turned camera; --orientation exif turns them upright",
                    of(count)
                ));
            }
            (count, Orientation::Exif) => console.note(&format!("{} {} turned upright", of(count), are(count))),
        }
    }
}

/// What is to be said where the images of 16 bits at `deep` are nearly black, as a few of them show.
fn darkness(split: &Split, deep: &[usize]) -> Option<String> {
    let mut scratch = RgbImage::default();
    let asked = deep.len().min(DEEP_ASKED);
    let mut brightest = None;
    for at in 0..asked {
        let Ok(image) = split.image(deep[at * deep.len() / asked], &mut scratch) else { continue };
        brightest = brightest.max(image.pixels.iter().max().copied());
    }
    let brightest = brightest.filter(|value| *value < DARK)?;
    let unused = brightest.leading_zeros();
    let (factor, bits) = (1u32 << unused, 16 - unused);
    Some(format!(
        ": they will be nearly black, since none of {asked} has a value above {brightest} of 255 (data of {bits} bits?); \
         bring them to the whole range first, for example: mogrify -evaluate multiply {factor} *.png (ImageMagick)"
    ))
}

/// The header of image `index`; `None` where the image is stored as pixels.
pub fn look(split: &Split, index: usize) -> Result<Option<Look>, BadImage> {
    let mut asked = BEGINNING;
    loop {
        let Stored::Encoded(bytes) = split.images.beginning(index, asked)? else { return Ok(None) };
        match data::look(&bytes) {
            Ok(look) => return Ok(Some(look)),
            // There is more of it.
            Err(Unseen::Short) if bytes.len() >= asked => asked = asked.saturating_mul(TIMES_MORE),
            Err(unseen) => return Err(BadImage { path: split.images.place(index), reason: unseen.to_string() }),
        }
    }
}

fn look_at(split: &Split, indices: impl IndexedParallelIterator<Item = usize>) -> Found {
    let add = |mut found: Found, index| {
        found.add(index, look(split, index));
        found
    };
    indices.with_min_len(16).fold(Found::default, add).reduce(Found::default, Found::join)
}

/// Looks at the headers of all images, or of a sample where all would take too long; says which.
pub fn look_at_all(split: &Split, console: &Console) -> Found {
    let (count, started) = (split.len(), Instant::now());
    let asked = count.min(SAMPLE);
    let sample = |at: usize| at * count / asked.max(1);
    let found = look_at(split, (0..asked).into_par_iter().map(sample));
    let said = || {
        format!("{}: all {} headers looked at in {:.1} s", split.name, grouped(count), started.elapsed().as_secs_f64())
    };
    if asked == count {
        console.detail(&said());
        return found;
    }
    let expected = started.elapsed().mul_f64(count as f64 / asked as f64);
    if expected > PATIENCE && expected > epoch(split, sample).mul_f64(SHARE) {
        console.note(&format!(
            "{}: the headers of {} of {} images were looked at; all would take {} (--bad-images skip reads every file)",
            split.name,
            grouped(asked),
            grouped(count),
            duration(expected)
        ));
        return found;
    }
    let waiting = console.waiting(&format!("looking at the headers of {}", split.name));
    let found = look_at(split, (0..count).into_par_iter());
    drop(waiting);
    console.note(&said());
    found
}

/// How long the decoding of all images takes, by a few of them.
fn epoch(split: &Split, sample: impl Fn(usize) -> usize + Sync) -> Duration {
    let started = Instant::now();
    let decode = |scratch: &mut RgbImage, at| drop(split.image(sample(at * SAMPLE / DECODED), scratch));
    (0..DECODED).into_par_iter().map_init(RgbImage::default, decode).collect::<()>();
    started.elapsed().mul_f64(split.len() as f64 / DECODED as f64)
}
