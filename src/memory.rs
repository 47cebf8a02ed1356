//! How this process gets its memory, and how much there is to get.
//!
//! A training step makes and drops the same large tensors over and over. glibc
//! gives blocks beyond 32 MiB back to the kernel at once and asks for them again,
//! and the kernel clears every page anew: a fifth of the CPU time of a step at
//! 32 px. Kept blocks are used again as they are.

mod available;
mod pages;

pub use available::{Bounds, bounds};
pub use pages::prefer_huge;

/// Keeps freed memory for the next step instead of giving it back, for the rest of the process. Does nothing where
/// the user has tuned the allocator (`MALLOC_*`, `GLIBC_TUNABLES`), or where it is not glibc's.
///
/// Call it before the first tensor.
pub fn keep_freed_blocks() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    {
        let tuned = |name: &std::ffi::OsStr| {
            let name = name.as_encoded_bytes();
            name == b"GLIBC_TUNABLES" || name.starts_with(b"MALLOC_")
        };
        if std::env::vars_os().any(|(name, _)| tuned(&name)) {
            return;
        }
        // SAFETY: both only set thresholds of the allocator, under its own lock.
        unsafe {
            libc::mallopt(libc::M_MMAP_THRESHOLD, i32::MAX);
            libc::mallopt(libc::M_TRIM_THRESHOLD, i32::MAX);
        }
    }
}
