//! The commit that the program was built from. A package of its own, because its build script (build.rs) runs whenever a
//! source has changed, and the program's would compile all C++ again then.

/// `2c07b2c5e6d1 of 2026-11-27`, with `, with changes` behind it where sources differed from that commit as they were
/// compiled; or `unknown: ` and why.
pub const COMMIT: &str = env!("FLATNCE_COMMIT");
