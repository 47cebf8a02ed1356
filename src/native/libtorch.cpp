// What libtorch can be told and asked in C++ only: tch binds none of it. No CUDA
// header is needed; everything goes through interfaces of the CPU library, which
// the CUDA library fills when it is loaded.

#include <ATen/Context.h>
#include <ATen/Version.h>
#include <c10/core/CachingDeviceAllocator.h>

#include "guarded.h"

extern "C" {

// Mirrored in mod.rs.
struct FlatnceSettings {
  bool tf32_matmul;
  bool tf32_convolution;
  bool cudnn_benchmark;
  bool deterministic;
};

struct FlatnceCudaMemory {
  uint64_t allocated;
  uint64_t allocated_peak;
  uint64_t reserved;
  uint64_t reserved_peak;
  uint64_t free;
  uint64_t total;
};

char* flatnce_apply(const FlatnceSettings* wanted) noexcept {
  return guarded([&] {
    at::Context& context = at::globalContext();
    context.setAllowTF32CuBLAS(wanted->tf32_matmul);
    context.setAllowTF32CuDNN(wanted->tf32_convolution);
    context.setBenchmarkCuDNN(wanted->cudnn_benchmark);
    context.setDeterministicCuDNN(wanted->deterministic);
    // Not a warning only: an operation without a deterministic kernel is an error that names it.
    context.setDeterministicAlgorithms(wanted->deterministic, /*warn_only=*/false);
    // It would write NaN into every new tensor before use.
    context.setDeterministicFillUninitializedMemory(false);
  });
}

char* flatnce_settings(FlatnceSettings* now) noexcept {
  return guarded([&] {
    at::Context& context = at::globalContext();
    now->tf32_matmul = context.allowTF32CuBLAS();
    now->tf32_convolution = context.allowTF32CuDNN();
    now->cudnn_benchmark = context.benchmarkCuDNN();
    now->deterministic = context.deterministicAlgorithms() && context.deterministicCuDNN();
  });
}

// `text` is freed by the caller.
char* flatnce_build(char** text) noexcept {
  return guarded([&] { *text = strdup(at::show_config().c_str()); });
}

char* flatnce_cuda_forget_peak(int device) noexcept {
  return guarded([&] {
    c10::getDeviceAllocator(c10::DeviceType::CUDA)->resetPeakStats(static_cast<c10::DeviceIndex>(device));
  });
}

char* flatnce_cuda_memory(int device, FlatnceCudaMemory* memory) noexcept {
  return guarded([&] {
    TORCH_CHECK(at::hasCUDA(), "libtorch's CUDA library is not loaded");
    at::globalContext().lazyInitDevice(c10::DeviceType::CUDA);
    auto* allocator = c10::getDeviceAllocator(c10::DeviceType::CUDA);
    const auto index = static_cast<c10::DeviceIndex>(device);
    const auto stats = allocator->getDeviceStats(index);
    const auto all = static_cast<size_t>(c10::CachingAllocator::StatType::AGGREGATE);
    memory->allocated = stats.allocated_bytes[all].current;
    memory->allocated_peak = stats.allocated_bytes[all].peak;
    memory->reserved = stats.reserved_bytes[all].current;
    memory->reserved_peak = stats.reserved_bytes[all].peak;
    const auto [free, total] = allocator->getMemoryInfo(index);
    memory->free = free;
    memory->total = total;
  });
}

}  // extern "C"
