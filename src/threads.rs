//! Threads that the system does not grant: an error, where Rust's and rayon's own ways are panics.

use anyhow::{Context, Result};
use std::error::Error;
use std::sync::OnceLock;

/// What cannot be started, and what stands in its way.
pub fn refused(what: &str) -> String {
    format!(
        "{what} cannot be started: take fewer --workers, or raise the limits of processes (ulimit -u, {}), of memory \
         (ulimit -v, {}), or those of the container",
        // SAFETY: room for the answer.
        limit(1, |limit| unsafe { libc::getrlimit(libc::RLIMIT_NPROC, limit) }),
        limit(1024, |limit| unsafe { libc::getrlimit(libc::RLIMIT_AS, limit) })
    )
}

/// As `ulimit` says it, in units of so much.
fn limit(unit: libc::rlim_t, get: impl Fn(&mut libc::rlimit) -> i32) -> String {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    match get(&mut limit) {
        0 if limit.rlim_cur == libc::RLIM_INFINITY => "unlimited".to_owned(),
        0 => format!("now {}", limit.rlim_cur / unit),
        _ => "unknown".to_owned(),
    }
}

/// Starts rayon's threads. To be called before anything runs in parallel: rayon itself panics where it cannot.
///
/// Errors: the system does not grant them.
pub fn start_pool() -> Result<()> {
    static STARTED: OnceLock<Option<i32>> = OnceLock::new();
    let started = STARTED.get_or_init(|| {
        let error = rayon::ThreadPoolBuilder::new().build_global().err()?;
        // Threads that are there already are as good; only the system's own refusal is one.
        let refusal = error.source()?.downcast_ref::<std::io::Error>()?;
        Some(refusal.raw_os_error().unwrap_or(libc::EAGAIN))
    });
    match started {
        None => Ok(()),
        Some(code) => {
            let error = std::io::Error::from_raw_os_error(*code);
            Err(error).with_context(|| refused("the threads that read images"))
        }
    }
}
