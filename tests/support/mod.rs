//! What several integration tests share.

use std::io::Write;
use std::path::PathBuf;
use std::process::Command;

/// A Python that can import `module`: `FLATNCE_PYTHON`, or the environment that `scripts/setup.sh --python` makes.
/// Without one the caller's test is skipped, which is said past the harness: it keeps what a passing test prints to
/// itself.
pub fn python(module: &str) -> Option<PathBuf> {
    let named = std::env::var_os("FLATNCE_PYTHON").map(PathBuf::from);
    let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let cache = cache.or_else(|| std::env::home_dir().map(|home| home.join(".cache")));
    let python = named.or_else(|| cache.map(|cache| cache.join("flatnce/python/bin/python")));
    // Found, not imported: torch takes seconds.
    let probe = format!("import importlib.util, sys; sys.exit(importlib.util.find_spec('{module}') is None)");
    let works = |python: &PathBuf| Command::new(python).args(["-c", &probe]).output().is_ok_and(|o| o.status.success());
    let found = python.filter(works);
    if found.is_none() {
        let advice = "set FLATNCE_PYTHON to one, or run scripts/setup.sh --python";
        let _ = writeln!(std::io::stderr(), "SKIPPED: no Python with {module} ({advice})");
    }
    found
}
