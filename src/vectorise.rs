//! Compiles a loop for the vector units of the CPU it runs on.
//!
//! `vectorised!` wraps a function whose body is a plain loop: one copy is built
//! for AVX-512, one for AVX2, one for the baseline, and the CPU decides at run
//! time. Rust neither reorders nor contracts floating-point operations, so all
//! copies give the same bits; only the speed differs.

macro_rules! vectorised {
    ($(#[$meta:meta])* $vis:vis fn $name:ident($($arg:ident: $type:ty),* $(,)?) $(-> $output:ty)? $body:block) => {
        $(#[$meta])*
        $vis fn $name($($arg: $type),*) $(-> $output)? {
            #[inline(always)]
            fn portable($($arg: $type),*) $(-> $output)? $body

            #[cfg(target_arch = "x86_64")]
            {
                use $crate::vectorise::{Level, level};

                #[target_feature(enable = "avx2")]
                fn avx2($($arg: $type),*) $(-> $output)? {
                    portable($($arg),*)
                }
                #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
                fn avx512($($arg: $type),*) $(-> $output)? {
                    portable($($arg),*)
                }
                match level() {
                    Level::Baseline => {}
                    // SAFETY: the CPU has just said that it knows AVX2, all that this copy asks for.
                    Level::Avx2 => return unsafe { avx2($($arg),*) },
                    // SAFETY: the CPU has just said that it knows the four parts that this copy asks for.
                    Level::Avx512 => return unsafe { avx512($($arg),*) },
                }
            }
            portable($($arg),*)
        }
    };
}

/// Which copy runs.
#[cfg(target_arch = "x86_64")]
#[derive(Clone, Copy, Debug, PartialEq, PartialOrd)]
pub(crate) enum Level {
    Baseline,
    Avx2,
    Avx512,
}

/// The best copy that this CPU can run.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
pub(crate) fn level() -> Level {
    use std::is_x86_feature_detected as has;
    let level = if has!("avx512f") && has!("avx512bw") && has!("avx512dq") && has!("avx512vl") {
        Level::Avx512
    } else if has!("avx2") {
        Level::Avx2
    } else {
        Level::Baseline
    };
    #[cfg(test)]
    if level > HIGHEST.get() {
        return HIGHEST.get();
    }
    level
}

/// Cuts to 0..=255 and drops the fraction; NaN gives 0.
///
/// Rust's `as` also checks for NaN and overflow, which keeps LLVM from vectorising: a loop over it takes
/// seven times as long.
#[inline(always)]
#[expect(clippy::manual_clamp, reason = "clamp would let NaN through")]
pub(crate) fn truncate(level: f32) -> u8 {
    let level = level.max(0.0).min(255.0);
    // SAFETY: `max` and `min` return the other operand for NaN, so the level is a number in 0..=255.
    unsafe { level.to_int_unchecked::<i32>() as u8 }
}

#[cfg(all(test, target_arch = "x86_64"))]
thread_local! {
    /// Holds this thread's `level` down.
    pub(crate) static HIGHEST: std::cell::Cell<Level> = const { std::cell::Cell::new(Level::Avx512) };
}

#[cfg(test)]
mod tests {
    use super::truncate;

    #[test]
    fn truncation_covers_every_float() {
        let levels = [-1.0, -0.0, 0.999, 254.999, 255.0, 1e30, f32::INFINITY, f32::NEG_INFINITY, f32::NAN];
        assert_eq!(levels.map(truncate), [0, 0, 0, 254, 255, 255, 255, 0, 0]);
    }
}
