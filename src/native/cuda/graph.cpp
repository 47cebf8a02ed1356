// A stream of our own, and work recorded on it as a CUDA graph.

#include <ATen/cuda/CUDAGraph.h>
#include <c10/cuda/CUDACachingAllocator.h>
#include <c10/cuda/CUDAFunctions.h>
#include <c10/cuda/CUDAStream.h>

#include <memory>

#include "part.h"

// Makes the device and a stream of it other than the default one current for the calling thread: on the default stream nothing can be recorded.
FLATNCE_EXPORT char* flatnce_cuda_own_stream(int device) noexcept {
  return guarded([&] {
    const auto index = static_cast<c10::DeviceIndex>(device);
    // A graph is of the current device.
    c10::cuda::set_device(index);
    c10::cuda::setCurrentCUDAStream(c10::cuda::getStreamFromPool(/*isHighPriority=*/false, index));
  });
}

// From here to flatnce_cuda_graph_end the work of the current stream is recorded and not done. What the allocator holds
// and nobody uses is given back before, because recorded work has memory of its own.
FLATNCE_EXPORT char* flatnce_cuda_graph_begin(void** graph) noexcept {
  return guarded([&] {
    c10::cuda::CUDACachingAllocator::emptyCache();
    auto made = std::make_unique<at::cuda::CUDAGraph>();
    // Backward runs on a thread of autograd's; other threads may use the device as they like.
    made->capture_begin({0, 0}, cudaStreamCaptureModeThreadLocal);
    *graph = made.release();
  });
}

FLATNCE_EXPORT char* flatnce_cuda_graph_end(void* graph) noexcept {
  return guarded([&] { static_cast<at::cuda::CUDAGraph*>(graph)->capture_end(); });
}

FLATNCE_EXPORT char* flatnce_cuda_graph_replay(void* graph) noexcept {
  return guarded([&] { static_cast<at::cuda::CUDAGraph*>(graph)->replay(); });
}

// `recording`: the work within has failed, and recording has not been ended.
FLATNCE_EXPORT char* flatnce_cuda_graph_free(void* graph, int recording) noexcept {
  return guarded([&] {
    std::unique_ptr<at::cuda::CUDAGraph> owned(static_cast<at::cuda::CUDAGraph*>(graph));
    if (recording == 0) return;
    try {
      // Ends the stream's recording and the allocator's; a recording that has failed is an error here too.
      owned->capture_end();
    } catch (const std::exception&) {
    }
    // The next call must not be told of it.
    (void)cudaGetLastError();
  });
}
