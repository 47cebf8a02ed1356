// The process group of NCCL, for the collectives of tensors on GPUs. distributed/shim/group.cpp is given the address of
// this function and knows nothing of CUDA.

#define USE_C10D_NCCL
#include <torch/csrc/distributed/c10d/ProcessGroupNCCL.hpp>

#include "part.h"

// `store` is a c10::intrusive_ptr<c10d::Store>*, `opened` a c10::intrusive_ptr<c10d::Backend>*.
FLATNCE_EXPORT char* flatnce_open_nccl(
    const void* store, int rank, int size, int64_t timeout_ms, void* opened) noexcept {
  return guarded([&] {
    auto options = c10d::ProcessGroupNCCL::Options::create();
    options->timeout = std::chrono::milliseconds(timeout_ms);
    *static_cast<c10::intrusive_ptr<c10d::Backend>*>(opened) = c10::make_intrusive<c10d::ProcessGroupNCCL>(
        *static_cast<const c10::intrusive_ptr<c10d::Store>*>(store), rank, size, options);
  });
}
