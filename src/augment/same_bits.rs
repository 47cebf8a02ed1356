//! Whatever the vector units of the CPU, a view has the same bits.

use super::{EvalTransform, Filter, Renderer, draw};
use crate::config::{Augmentation, DatasetName};
use crate::pixels::RgbImage;
use crate::rng::{Purpose, Stream};
use crate::vectorise::{HIGHEST, Level, level};

/// Views and evaluation images of a noisy picture, with every operation in many of them.
fn renderings() -> Vec<u8> {
    let mut noise = Stream::new(3, Purpose::Subset, 0, 0, 0);
    let mut image = RgbImage::new(61, 47);
    image.pixels.fill_with(|| noise.below(256) as u8);
    let recipe = Augmentation::paper(DatasetName::Imagenet, 64, false);
    let mut renderer = Renderer::new();
    let mut all = Vec::new();
    for sample in 0..60 {
        for size in [7, 32, 45] {
            let mut out = vec![0; size * size * 3];
            let mut stream = Stream::new(3, Purpose::View, 0, sample, 0);
            let parameters = draw(&recipe, &mut stream, image.width, image.height);
            renderer.view(image.as_ref(), &parameters, recipe.blur_kernel_px, size, &mut out);
            all.extend_from_slice(&out);
            let transform = EvalTransform::RandomCropFlip { size_px: size, filter: Filter::Bicubic };
            transform.apply(&mut renderer, image.as_ref(), &mut stream, &mut out);
            all.extend_from_slice(&out);
        }
    }
    all
}

#[test]
fn every_copy_gives_the_same_bits() {
    let best = renderings();
    for highest in [Level::Avx2, Level::Baseline] {
        HIGHEST.set(highest);
        assert!(level() <= highest);
        assert!(renderings() == best, "{highest:?} differs");
    }
    HIGHEST.set(Level::Avx512);
}
