// A stream of our own, and work recorded on it as a CUDA graph.

#include <ATen/core/CachingHostAllocator.h>
#include <ATen/cuda/CUDAGraph.h>
#include <c10/cuda/CUDACachingAllocator.h>
#include <c10/cuda/CUDAEvent.h>
#include <c10/cuda/CUDAFunctions.h>
#include <c10/cuda/CUDAStream.h>

#include <array>
#include <memory>

#include "part.h"

namespace {

// Replays that may be on their way at a time. A replay is told in no time, so the host would run far ahead, and every batch
// that it uploads meanwhile keeps its pinned memory until the copy is done.
constexpr size_t AHEAD = 4;

struct Recording {
  at::cuda::CUDAGraph graph;
  // Where what is recorded has its memory.
  c10::MempoolId_t pool;
  c10::DeviceIndex device;
  // Behind each of the last replays.
  std::array<c10::cuda::CUDAEvent, AHEAD> done;
  size_t replays = 0;
};

Recording* of(void* raw) { return static_cast<Recording*>(raw); }

// Gives back the memory of a recording that the driver has refused: libtorch leaves the allocators in the middle of it then.
void abandon(const Recording& recording) noexcept {
  // The next call must not be told of the refusal.
  (void)cudaGetLastError();
  try {
    // An error says that libtorch has come past this itself.
    c10::cuda::CUDACachingAllocator::endAllocateToPool(recording.device, recording.pool);
    c10::cuda::CUDACachingAllocator::releasePool(recording.device, recording.pool);
    auto* host = at::getHostAllocator(at::kCUDA);
    host->end_allocate_to_pool(recording.pool);
    host->release_pool(recording.pool);
  } catch (const std::exception&) {
  }
}

}  // namespace

// Makes the device and a stream of it other than the default one current for the calling thread: on the default stream
// nothing can be recorded.
FLATNCE_EXPORT char* flatnce_cuda_own_stream(int device) noexcept {
  return guarded([&] {
    const auto index = static_cast<c10::DeviceIndex>(device);
    // A graph is of the current device.
    c10::cuda::set_device(index);
    c10::cuda::setCurrentCUDAStream(c10::cuda::getStreamFromPool(/*isHighPriority=*/false, index));
  });
}

// From here to flatnce_cuda_graph_end the work of the current stream is recorded and not done. What the allocator holds
// and nobody uses is given back before, because recorded work has memory of its own; the peak is counted anew.
FLATNCE_EXPORT char* flatnce_cuda_graph_begin(void** graph) noexcept {
  return guarded([&] {
    auto made = std::make_unique<Recording>();
    made->pool = at::cuda::graph_pool_handle();
    made->device = c10::cuda::current_device();
    c10::cuda::CUDACachingAllocator::emptyCache();
    c10::cuda::CUDACachingAllocator::resetPeakStats(made->device);
    // Backward runs on a thread of autograd's; other threads may use the device as they like.
    made->graph.capture_begin(made->pool, cudaStreamCaptureModeThreadLocal);
    *graph = made.release();
  });
}

FLATNCE_EXPORT char* flatnce_cuda_graph_end(void* graph) noexcept {
  return guarded([&] {
    try {
      of(graph)->graph.capture_end();
    } catch (...) {
      abandon(*of(graph));
      throw;
    }
  });
}

FLATNCE_EXPORT char* flatnce_cuda_graph_replay(void* graph) noexcept {
  return guarded([&] {
    Recording& recording = *of(graph);
    auto& done = recording.done[recording.replays++ % AHEAD];
    // Of the replay before the last few; an event that has not been recorded is not waited for.
    done.synchronize();
    recording.graph.replay();
    done.record(c10::cuda::getCurrentCUDAStream());
  });
}

// `recording`: the work within has failed, and recording has not been ended.
FLATNCE_EXPORT char* flatnce_cuda_graph_free(void* graph, int recording) noexcept {
  return guarded([&] {
    const std::unique_ptr<Recording> owned(of(graph));
    if (recording == 0) return;
    try {
      owned->graph.capture_end();
    } catch (...) {
      abandon(*owned);
    }
  });
}
