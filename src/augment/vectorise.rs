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
                if std::is_x86_feature_detected!("avx2") {
                    // SAFETY: the CPU has just said that it knows AVX2, the only thing `avx2` asks for.
                    return unsafe { avx2($($arg),*) };
                }
            }
            portable($($arg),*)
        }
    };
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
