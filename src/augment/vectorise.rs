//! Compiles a loop for the vector units of the CPU it runs on.
//!
//! `vectorised!` wraps a function whose body is a plain loop: one copy is built
//! for AVX2, one for the baseline, and the CPU decides at run time. Rust neither
//! reorders nor contracts floating-point operations, so all copies give the same
//! bits; only the speed differs.

macro_rules! vectorised {
    ($(#[$meta:meta])* $vis:vis fn $name:ident($($arg:ident: $type:ty),* $(,)?) $(-> $output:ty)? $body:block) => {
        $(#[$meta])*
        $vis fn $name($($arg: $type),*) $(-> $output)? {
            #[inline(always)]
            fn portable($($arg: $type),*) $(-> $output)? $body

            #[cfg(target_arch = "x86_64")]
            {
                #[target_feature(enable = "avx2")]
                fn avx2($($arg: $type),*) $(-> $output)? {
                    portable($($arg),*)
                }
                if $crate::augment::vectorise::has_avx2() {
                    // SAFETY: the CPU has just said that it knows AVX2, all that this copy asks for.
                    return unsafe { avx2($($arg),*) };
                }
            }
            portable($($arg),*)
        }
    };
}

/// Whether the copies for AVX2 run.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
pub(super) fn has_avx2() -> bool {
    #[cfg(test)]
    if tests::BASELINE_ONLY.get() {
        return false;
    }
    std::is_x86_feature_detected!("avx2")
}

/// Cuts to 0..=255 and drops the fraction; NaN gives 0.
///
/// Rust's `as` also checks for NaN and overflow, which keeps LLVM from vectorising: a loop over it takes
/// seven times as long.
#[inline(always)]
#[expect(clippy::manual_clamp, reason = "clamp would let NaN through")]
pub(super) fn truncate(level: f32) -> u8 {
    let level = level.max(0.0).min(255.0);
    // SAFETY: `max` and `min` return the other operand for NaN, so the level is a number in 0..=255.
    unsafe { level.to_int_unchecked::<i32>() as u8 }
}

#[cfg(test)]
mod tests {
    use super::truncate;
    use crate::augment::{EvalTransform, Filter, Renderer, draw};
    use crate::config::{Augmentation, DatasetName};
    use crate::pixels::RgbImage;
    use crate::rng::{Purpose, Stream};
    use std::cell::Cell;

    thread_local! {
        pub static BASELINE_ONLY: Cell<bool> = const { Cell::new(false) };
    }

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
    fn the_baseline_gives_the_bits_of_avx2() {
        let vectorised = renderings();
        BASELINE_ONLY.set(true);
        let baseline = renderings();
        BASELINE_ONLY.set(false);
        assert!(vectorised == baseline);
    }

    #[test]
    fn truncation_covers_every_float() {
        let levels = [-1.0, -0.0, 0.999, 254.999, 255.0, 1e30, f32::INFINITY, f32::NEG_INFINITY, f32::NAN];
        assert_eq!(levels.map(truncate), [0, 0, 0, 254, 255, 255, 255, 0, 0]);
    }
}
