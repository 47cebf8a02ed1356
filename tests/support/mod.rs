//! What several integration tests share.

use std::io::Write;
use std::path::PathBuf;
use std::process::Command;

/// Says that the caller's test is skipped, past the harness: it keeps what a passing test prints to itself. Where `CI` is
/// set, everything that the tests need is to be there, and this fails.
pub fn skipped(why: &str) {
    assert!(std::env::var_os("CI").is_none(), "this test may not be skipped where CI is set: {why}");
    let _ = writeln!(std::io::stderr(), "SKIPPED: {why}");
}

/// The same for what no build server need have: a GPU, a browser, the rights of root. It fails nowhere.
#[allow(dead_code, reason = "most tests need none of it")]
pub fn absent(what: &str) {
    let _ = writeln!(std::io::stderr(), "SKIPPED: {what}");
}

/// A Python that can import `module`: `FLATNCE_PYTHON`, or the environment that `scripts/setup.sh --python` makes.
/// Without one the caller's test is [`skipped`].
#[allow(dead_code, reason = "some tests need another program")]
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
        skipped(&format!("no Python with {module} (set FLATNCE_PYTHON to one, or run scripts/setup.sh --python)"));
    }
    found
}
