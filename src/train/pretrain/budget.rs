//! What there is time for: which network, at which size of images and for how many epochs, ends within so many hours
//! on a machine whose rate is known.

use crate::config::{Depth, HeadConfig, HeadMode, ModelConfig, Normalisation, Stem};
use crate::model::{Encoder, HeadKind, footprint};
use tch::Device;

/// Sides of images that are tried, in pixels, and networks.
const SIDES: [u32; 7] = [224, 160, 128, 96, 64, 48, 32];
const DEPTHS: [Depth; 2] = [Depth::Res50, Depth::Res18];
/// From this side on, the stem that halves images twice takes an eighth of the other's work.
const IMAGENET_STEM_FROM_PX: u32 = 64;
/// More epochs than that gain little.
const MOST_EPOCHS: f64 = 1000.0;
/// Of the time that there is: the rest is for listing images, saving and looking at neighbours.
const TRAINING_SHARE: f64 = 0.9;
/// A run of fewer epochs is better made on fewer images.
const LEAST_EPOCHS: f64 = 10.0;

/// What an image costs follows from this.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Way {
    pub depth: Depth,
    pub image_size_px: u32,
    pub stem: Stem,
    /// Of one image's way through the convolutions.
    pub multiplications: f64,
}

impl Way {
    /// As the flags that ask for it.
    pub fn flags(&self) -> Vec<String> {
        let Way { depth, image_size_px, stem, .. } = self;
        vec![format!("--model={depth}"), format!("--image-size={image_size_px}"), format!("--stem={stem}")]
    }
}

/// What a user has fixed already.
#[derive(Clone, Copy, Debug, Default)]
pub struct Fixed {
    pub depth: Option<Depth>,
    pub image_size_px: Option<u32>,
    pub stem: Option<Stem>,
}

/// The ways to train on images of `side` pixels, none with a network deeper than `deepest`: the most work first.
pub fn ways(deepest: Depth, side: u32, fixed: Fixed) -> Vec<Way> {
    let place = |depth: Depth| Depth::ALL.iter().position(|&other| other == depth);
    let mut depths: Vec<Depth> = DEPTHS.into_iter().filter(|&depth| place(depth) <= place(deepest)).collect();
    if depths.is_empty() {
        depths.push(deepest);
    }
    // Photographs lose more by being made tiny than by the stem for large images.
    let least = if side >= IMAGENET_STEM_FROM_PX { IMAGENET_STEM_FROM_PX } else { SIDES[SIDES.len() - 1] };
    let sides: Vec<u32> = SIDES.into_iter().filter(|other| (least..=side.max(least)).contains(other)).collect();
    let (depths, sides) = (fixed.depth.map_or(depths, |d| vec![d]), fixed.image_size_px.map_or(sides, |s| vec![s]));
    let mut found = Vec::new();
    for depth in depths {
        for stem in [Stem::Small, Stem::Imagenet] {
            let usual = |side: u32| if side >= IMAGENET_STEM_FROM_PX { Stem::Imagenet } else { Stem::Small };
            let sides = sides.iter().filter(|&&side| fixed.stem.unwrap_or(usual(side)) == stem);
            let sides: Vec<u32> = sides.copied().collect();
            if sides.is_empty() {
                continue;
            }
            let head = HeadConfig { mode: HeadMode::None, layers: 0, out_dim: 0 };
            let model =
                ModelConfig { depth, stem, normalisation: Normalisation { mean: [0.5; 3], std: [0.5; 3] }, head };
            let parameters = Encoder::new(&model, HeadKind::Classifier(1), Device::Cpu, 0).parameters();
            found.extend(sides.into_iter().map(|image_size_px| Way {
                depth,
                image_size_px,
                stem,
                multiplications: footprint::multiplications(&parameters, stem, image_size_px),
            }));
        }
    }
    found.sort_by(|a, b| b.multiplications.total_cmp(&a.multiplications));
    found
}

/// So many epochs at least make a training of so many images worth its while: few images are seen more often.
fn worthwhile_epochs(images: usize) -> u32 {
    match images {
        ..2_000 => 300,
        2_000..20_000 => 100,
        20_000..200_000 => 50,
        _ => 20,
    }
}

/// A way, and how long it goes on.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Choice {
    pub way: Way,
    pub epochs: u32,
    /// A part of the images, where there is not even time for a few epochs of all.
    pub train_images: Option<u32>,
}

impl Choice {
    /// A way that trains `rate` images a second, for `seconds` on `images` images.
    pub fn of(way: Way, rate: f64, images: usize, seconds: f64) -> Choice {
        let passes = TRAINING_SHARE * seconds * rate;
        let epochs = (passes / images.max(1) as f64).floor().min(MOST_EPOCHS);
        if epochs >= LEAST_EPOCHS {
            return Choice { way, epochs: epochs as u32, train_images: None };
        }
        let part = ((passes / LEAST_EPOCHS) as usize).clamp(2, images.max(2));
        Choice { way, epochs: LEAST_EPOCHS as u32, train_images: Some(part as u32) }
    }

    /// Whether it sees images often enough.
    pub fn is_worthwhile(&self, images: usize) -> bool {
        self.train_images.is_none() && self.epochs >= worthwhile_epochs(images)
    }
}

/// The way with the most work that there is time for, or that with the least, on a machine that makes so many
/// `multiplications` of a way a second (for one image of two views, forward and backward, all counted as one); `None` of no
/// ways.
pub fn choose(ways: &[Way], images: usize, seconds: f64, multiplications: f64) -> Option<Choice> {
    let of = |way: &Way| Choice::of(*way, multiplications / way.multiplications, images, seconds);
    ways.iter().map(of).find(|choice| choice.is_worthwhile(images)).or_else(|| ways.last().map(of))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ways_are_in_the_order_of_their_work_and_within_what_is_asked() {
        let all = ways(Depth::Res50, 300, Fixed::default());
        assert!(all.is_sorted_by(|a, b| a.multiplications >= b.multiplications));
        assert_eq!((all[0].depth, all[0].image_size_px), (Depth::Res50, 224));
        assert!(all.iter().all(|way| (way.stem == Stem::Imagenet) == (way.image_size_px >= 64)));
        let small = ways(Depth::Res18, 100, Fixed::default());
        assert!(small.iter().all(|way| way.depth == Depth::Res18 && way.image_size_px <= 96) && small.len() == 2);
        // A photograph of 224 px through ResNet-50 is known to take 4.1 thousand million.
        assert!((3.7e9..4.3e9).contains(&all[0].multiplications), "{}", all[0].multiplications);
        assert_eq!(ways(Depth::Res10, 8, Fixed::default())[0].depth, Depth::Res10);
        let fixed = Fixed { depth: Some(Depth::Res34), image_size_px: Some(100), stem: Some(Stem::Small) };
        let [one] = ways(Depth::Res18, 300, fixed)[..] else { panic!("one") };
        assert_eq!(one.flags(), ["--model=res34", "--image-size=100", "--stem=small"]);
    }

    #[test]
    fn more_time_is_more_work_then_more_epochs_and_little_time_fewer_images() {
        let ways = ways(Depth::Res50, 224, Fixed::default());
        let at = |images: usize, hours: f64| choose(&ways, images, 3600.0 * hours, 7e9).unwrap();
        let (short, long) = (at(300, 1.0), at(300, 24.0));
        assert!(short.way.multiplications < long.way.multiplications, "{short:?} {long:?}");
        for choice in [short, long] {
            assert!((300..=1000).contains(&choice.epochs) && choice.train_images.is_none(), "{choice:?}");
        }
        assert_eq!(at(300, 1e6).epochs, 1000);
        let many = at(1_000_000, 1.0);
        assert_eq!((many.way, many.epochs), (*ways.last().unwrap(), 10));
        let images = f64::from(many.train_images.unwrap());
        let seconds = 10.0 * images * many.way.multiplications / 7e9;
        assert!((0.85..0.95).contains(&(seconds / 3600.0)), "{seconds}");
    }
}
