//! What `--version` says.

use crate::native;

/// The program's version in the first line; the commit that it was built from, the libtorch that it has loaded, and what it
/// was built with, a line each.
pub fn version() -> String {
    let features = [("parquet", cfg!(feature = "parquet")), ("cuda", native::cuda::built().is_ok())];
    let features: Vec<&str> = features.into_iter().filter(|(_, built)| *built).map(|(name, _)| name).collect();
    format!(
        "flatnce {}\ncommit: {}\nlibtorch: {}\nfeatures: {}\n",
        env!("CARGO_PKG_VERSION"),
        flatnce_commit::COMMIT,
        native::version().unwrap_or_else(|| "unknown: it does not say its version".to_owned()),
        if features.is_empty() { "none".to_owned() } else { features.join(", ") }
    )
}
