// Kernels as the driver hands them out, and their launch. What CUDA itself is needed for comes in as function pointers; the
// current stream comes through libtorch's interface that all devices share. So this compiles without CUDA.

#include "launch.h"

#include <c10/core/DeviceGuard.h>
#include <c10/core/impl/VirtualGuardImpl.h>

#include <array>
#include <optional>
#include <string>

#include "../../guarded.h"

namespace {

using namespace flatnce::kernels;

// As cuLaunchKernel and cuGetErrorString.
using Launch = int (*)(void*, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, void*, void**, void**);
using ErrorText = int (*)(int, const char**);

// Mirrored in module.rs: cuCtxGetCurrent and cuCtxSetCurrent.
struct Context {
  void* context;
  int (*get)(void**);
  int (*set)(void*);
};

struct Loaded {
  Launch launch = nullptr;
  ErrorText error_text = nullptr;
  std::optional<Context> context;
  unsigned int most_shared_bytes = 0;
  std::array<void*, KERNELS> functions = {};
};

Loaded& loaded() {
  static Loaded all;
  return all;
}

#define FORMATS_OF(name) name "_float32", name "_bfloat16", name "_float16"
constexpr std::array<const char*, KERNELS> NAMES = {
    FORMATS_OF("statistics"),     FORMATS_OF("apply"),         FORMATS_OF("apply_relu"),
    FORMATS_OF("apply_add_relu"), FORMATS_OF("weigh"),         FORMATS_OF("weigh_relu"),
    FORMATS_OF("weigh_add_relu"), FORMATS_OF("give_back"),     FORMATS_OF("give_back_relu"),
    "finish_statistics",          "finish_gradients",          "render_views",
};
#undef FORMATS_OF

// A kernel reports its own failure at some later call, so the driver's words are all there is.
std::string words_for(int error) {
  const char* text = nullptr;
  if (loaded().error_text) loaded().error_text(error, &text);
  return text ? text : "error " + std::to_string(error);
}

}  // namespace

namespace flatnce::kernels {

int formatted(Kernel kernel, at::ScalarType type) {
  switch (type) {
    case at::kFloat: return kernel * FORMATS + FLOAT32;
    case at::kBFloat16: return kernel * FORMATS + BFLOAT16;
    case at::kHalf: return kernel * FORMATS + FLOAT16;
    default: TORCH_CHECK(false, "no kernel is compiled for ", type);
  }
}

unsigned int most_shared_bytes() { return loaded().most_shared_bytes; }

void launch(int kernel, const at::Tensor& on, Grid grid, unsigned int threads, unsigned int shared_bytes,
            void** parameters) {
  const Loaded& all = loaded();
  TORCH_CHECK(all.launch, "the fused kernels are not loaded");
  const auto device = on.device();
  const c10::OptionalDeviceGuard guard(device);
  // The thread of a backward pass has no context of its own accord, and a guard of the first device makes none.
  thread_local bool has_context = false;
  if (all.context && !has_context) {
    void* current = nullptr;
    if (all.context->get(&current) == 0 && current == nullptr) all.context->set(all.context->context);
    has_context = true;
  }
  void* stream = nullptr;
  if (!device.is_cpu()) stream = c10::impl::VirtualGuardImpl(device.type()).getStream(device).native_handle();
  const int error = all.launch(
      all.functions.at(kernel), grid.x, grid.y, 1, threads, 1, 1, shared_bytes, stream, parameters, nullptr);
  TORCH_CHECK(error == 0, "the kernel ", NAMES.at(kernel), " is not launched: ", words_for(error));
}

}  // namespace flatnce::kernels

extern "C" {

// Mirrored in module.rs.
struct FlatnceLoaded {
  Launch launch;
  ErrorText error_text;
  const Context* context;
  unsigned int most_shared_bytes;
  void* const* functions;
};

size_t flatnce_kernel_count() noexcept { return KERNELS; }

// Null behind the last one.
const char* flatnce_kernel_name(size_t kernel) noexcept { return kernel < KERNELS ? NAMES[kernel] : nullptr; }

// From now on kernels are launched through these. `functions` are in the order of the names.
void flatnce_kernels_load(const FlatnceLoaded* handed) noexcept {
  Loaded& all = loaded();
  all.error_text = handed->error_text;
  if (handed->context) all.context = *handed->context;
  all.most_shared_bytes = handed->most_shared_bytes;
  for (size_t kernel = 0; kernel < KERNELS; ++kernel) all.functions[kernel] = handed->functions[kernel];
  all.launch = handed->launch;
}

}  // extern "C"
