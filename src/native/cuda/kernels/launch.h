// Launches kernels: of a GPU through its driver, in tests of their emulation.

#pragma once

#include <ATen/core/Tensor.h>

#include <cstddef>

namespace flatnce::kernels {

// The formats that BatchNorm's kernels are compiled for, in the order of their names.
enum Format { FLOAT32, BFLOAT16, FLOAT16, FORMATS };

// In the order of NAMES in launch.cpp; those before FINISH_STATISTICS once for each format.
enum Kernel {
  STATISTICS,
  APPLY,
  APPLY_RELU,
  APPLY_ADD_RELU,
  WEIGH,
  WEIGH_RELU,
  WEIGH_ADD_RELU,
  GIVE_BACK,
  GIVE_BACK_RELU,
  FORMATTED,
  FINISH_STATISTICS = FORMATTED * FORMATS,
  FINISH_GRADIENTS,
  RENDER_VIEWS,
  KERNELS
};

// The kernel for numbers of this type.
//
// Throws: there is none.
int formatted(Kernel kernel, at::ScalarType type);

struct Grid {
  unsigned int x, y;
};

// Starts a kernel on the current stream of the device that `on` is on, with the addresses of its parameters.
//
// Throws: nothing was handed over yet; what the driver says.
void launch(int kernel, const at::Tensor& on, Grid grid, unsigned int threads, unsigned int shared_bytes,
            void** parameters);

// With the parameters themselves, whose types must be the kernel's.
template <class... Parameter>
void run(int kernel, const at::Tensor& on, Grid grid, unsigned int threads, unsigned int shared_bytes,
         Parameter... parameters) {
  void* addresses[] = {&parameters...};
  launch(kernel, on, grid, threads, shared_bytes, addresses);
}

// Fixed and launch-time shared memory that a block may have, in bytes.
unsigned int most_shared_bytes();

}  // namespace flatnce::kernels
