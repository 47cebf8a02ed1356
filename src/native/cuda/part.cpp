// What the part is and runs on.

#include <ATen/Version.h>
#include <ATen/detail/CUDAHooksInterface.h>
#include <cuda_runtime_api.h>
#include <nccl.h>
#include <torch/version.h>

#include "part.h"

// Mirrored in mod.rs. NVIDIA's own numbers: CUDA's are 1000 * major + 10 * minor; 0 where there is none.
struct FlatnceCudaVersions {
  int32_t headers;
  int32_t runtime;
  int32_t driver;
  int32_t nccl;
  int64_t cudnn;
};

// The libtorch whose headers the part was compiled against, such as "2.11.0"; a constant, not to be freed.
FLATNCE_EXPORT const char* flatnce_part_libtorch() noexcept {
  return TORCH_VERSION;
}

// Starts no GPU.
FLATNCE_EXPORT char* flatnce_cuda_versions(FlatnceCudaVersions* versions) noexcept {
  return guarded([&] {
    versions->headers = CUDART_VERSION;
    TORCH_CHECK(cudaRuntimeGetVersion(&versions->runtime) == cudaSuccess, "CUDA's runtime does not say its version");
    // Without a driver it succeeds and says 0.
    TORCH_CHECK(cudaDriverGetVersion(&versions->driver) == cudaSuccess, "CUDA's driver does not say its version");
    TORCH_CHECK(ncclGetVersion(&versions->nccl) == ncclSuccess, "NCCL does not say its version");
    versions->cudnn = at::detail::getCUDAHooks().versionCuDNN();
  });
}
