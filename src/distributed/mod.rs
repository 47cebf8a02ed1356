//! Several processes that train one network, over libtorch's own engine (c10d:
//! TCPStore, Gloo, NCCL), which a small C++ shim makes callable (`shim/`).
//!
//! A process learns its place among the others from its environment
//! ([`placement`]: torchrun, Slurm, or our own [`nproc`]), meets them in a
//! key-value store and joins their [`Group`].

mod buckets;
mod engine;
mod group;
mod meeting;
mod pulse;
mod sockets;
mod spawn;
mod surroundings;

pub use buckets::{BUCKET_BYTES, reduce_gradients};
pub use group::{Group, PeerFault, together};
pub use meeting::hello;
pub use spawn::{Ended, STOPPED, nproc};
pub use surroundings::{Launcher, Placement, placement};

/// Keeps c10d's own warnings, pages of C++ frames each, off the terminal; what they mean is in our errors. Whoever
/// wants them sets TORCH_CPP_LOG_LEVEL.
///
/// # Safety
/// Changes the environment: no other thread may run yet.
pub unsafe fn quieten() {
    const LEVEL: &str = "TORCH_CPP_LOG_LEVEL";
    if std::env::var_os(LEVEL).is_none() {
        // SAFETY: the caller's promise.
        unsafe { std::env::set_var(LEVEL, "ERROR") };
    }
}

/// How a reduction combines the ranks' numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reduction {
    Sum,
    Max,
}

/// What collectives have cost.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Traffic {
    /// Collectives called.
    pub calls: u64,
    /// Bytes of the tensors that this rank gave to them. (What crosses the network depends on the algorithm: a ring
    /// sends 2 (W - 1) / W of an all-reduce's bytes.)
    pub bytes: u64,
    /// Time that this rank has waited for them.
    pub seconds: f64,
}
