//! NCCL for several ranks: how it is reached, on a machine without a GPU.

#[path = "support/pytorch.rs"]
mod pytorch;
#[path = "support/ranks.rs"]
mod ranks;
mod support;

use flatnce::device;
use flatnce::distributed::{self, Group};
use pytorch::run_inside;
use ranks::{free_port, place};
use std::time::{Duration, Instant};

const TIMEOUT: Duration = Duration::from_secs(60);

/// What a rank is told that wants to reduce tensors on GPUs too.
fn refusal(rank: usize, port: u16) -> String {
    let hello = distributed::hello(&serde_json::json!({}));
    format!("{:#}", Group::join(&place(rank, 2, port), &hello, true, TIMEOUT).unwrap_err())
}

#[test]
fn a_rank_without_nccl_says_so_and_waits_for_nobody() {
    if device::load_cuda_libraries().is_ok() {
        return; // Then there is NCCL.
    }
    let start = Instant::now();
    let error = refusal(0, free_port());
    assert!(error.starts_with("several processes on GPUs need NCCL: "), "{error}");
    assert!(error.contains("flatnce doctor") && error.contains("--device cpu"), "{error}");
    assert!(start.elapsed() < TIMEOUT / 2);
}

#[test]
fn two_ranks_reach_nccl_through_the_cuda_part() {
    // The ranks are threads, and c10d's record of collectives is for one group a process.
    run_inside(&[("TORCH_FR_BUFFER_SIZE", "0")]);
}

/// What `two_ranks_reach_nccl_through_the_cuda_part` runs in a process of its own.
#[test]
#[ignore = "needs LD_LIBRARY_PATH at libtorch's CUDA libraries; another test runs it so"]
fn inside() {
    device::load_cuda_libraries().expect("PyTorch's CUDA libraries");
    if tch::Cuda::is_available() {
        return; // Two ranks on one GPU are another test's.
    }
    let port = free_port();
    std::thread::scope(|scope| {
        let ranks = [0, 1].map(|rank| scope.spawn(move || refusal(rank, port)));
        for rank in ranks {
            let error = rank.join().expect("no panic");
            // libtorch's process group of NCCL, which was reached, looks for GPUs first.
            assert!(error.contains("ProcessGroupNCCL is only supported with GPUs, no GPUs found"), "{error}");
        }
    });
}
