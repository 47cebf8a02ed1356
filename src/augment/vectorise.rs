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
