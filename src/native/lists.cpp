// Operations on lists of tensors, which a GPU runs with few launches: tch binds
// none of them.

#include <ATen/TensorOperators.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/_foreach_add.h>
#include <ATen/ops/_foreach_addcmul.h>
#include <ATen/ops/_foreach_mul.h>
#include <ATen/ops/_foreach_norm.h>
#include <ATen/ops/_foreach_sub.h>
#include <ATen/ops/_foreach_zero.h>
#include <ATen/ops/scalar_tensor.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/where.h>

#include <vector>

#include "guarded.h"

namespace {

std::vector<at::Tensor> list(at::Tensor* const* tensors, size_t count) {
  std::vector<at::Tensor> all;
  all.reserve(count);
  for (size_t i = 0; i < count; ++i) all.push_back(*tensors[i]);
  return all;
}

// rate times eeta |value| / |gradient| for each, rate alone where either norm is 0; no norm is waited for.
std::vector<at::Tensor> adapted_rates(at::TensorList values, at::TensorList gradients, double rate, double eeta) {
  const at::Tensor of_values = at::stack(at::_foreach_norm(values, 2));
  const at::Tensor of_gradients = at::stack(at::_foreach_norm(gradients, 2));
  const at::Tensor usable = of_values.gt(0).logical_and(of_gradients.gt(0));
  const at::Tensor one = at::scalar_tensor(1.0, of_values.options());
  // 0/0 and x/0 never win over the 1.
  return (at::where(usable, of_values / of_gradients * eeta, one) * rate).unbind();
}

}  // namespace

extern "C" {

// Mirrored in lists.rs.
struct FlatnceMomentum {
  double decay;
  double momentum;
  double rate;
  double step;
  double eeta;
  uint8_t adapts;
};

char* flatnce_zero(at::Tensor* const* tensors, size_t count) noexcept {
  return guarded([&] { at::_foreach_zero_(list(tensors, count)); });
}

char* flatnce_momentum_step(
    at::Tensor* const* values,
    at::Tensor* const* gradients,
    at::Tensor* const* buffers,
    size_t count,
    const FlatnceMomentum* rule) noexcept {
  return guarded([&] {
    const auto value = list(values, count), buffer = list(buffers, count);
    auto gradient = list(gradients, count);
    if (rule->decay != 0) gradient = at::_foreach_add(gradient, value, rule->decay);
    at::_foreach_mul_(buffer, rule->momentum);
    if (rule->adapts) {
      at::_foreach_addcmul_(buffer, gradient, adapted_rates(value, gradient, rule->rate, rule->eeta));
    } else {
      at::_foreach_add_(buffer, gradient, rule->rate);
    }
    at::_foreach_sub_(value, buffer, rule->step);
  });
}

}  // extern "C"
