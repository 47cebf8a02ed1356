// Operations on lists of tensors, which a GPU runs with few launches: tch binds
// none of them. Learning rates and conditions are tensors on the parameters'
// device; no function waits for it, and all can be recorded.

#include <ATen/TensorOperators.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/_amp_foreach_non_finite_check_and_unscale.h>
#include <ATen/ops/_foreach_add.h>
#include <ATen/ops/_foreach_addcmul.h>
#include <ATen/ops/_foreach_mul.h>
#include <ATen/ops/_foreach_norm.h>
#include <ATen/ops/_foreach_sub.h>
#include <ATen/ops/_fused_adam.h>
#include <ATen/ops/_fused_sgd.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/scalar_tensor.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/where.h>
#include <ATen/ops/zeros.h>

#include <optional>
#include <vector>

#include "guarded.h"

// Mirrored in lists.rs.
struct FlatnceStepped {
  at::Tensor* const* values;
  at::Tensor* const* gradients;
  at::Tensor* const* state[3];
  size_t count;
  const at::Tensor* lr;
  const at::Tensor* left_out;
};

namespace {

std::vector<at::Tensor> list(at::Tensor* const* tensors, size_t count) {
  std::vector<at::Tensor> all;
  all.reserve(count);
  for (size_t i = 0; i < count; ++i) all.push_back(*tensors[i]);
  return all;
}

// The gradient with its elements in the order in memory that the value's have. A dimension of one element may have any
// stride, and libtorch's kernels for lists compare them all.
at::Tensor laid_out_as(const at::Tensor& gradient, const at::Tensor& value) {
  if (gradient.strides() == value.strides()) return gradient;
  bool same = gradient.sizes() == value.sizes();
  for (int64_t d = 0; same && d < value.dim(); ++d) {
    same = value.size(d) == 1 || gradient.stride(d) == value.stride(d);
  }
  if (same) return gradient.as_strided(value.sizes(), value.strides());
  return at::empty_like(value).copy_(gradient);
}

std::vector<at::Tensor> gradients_of(const FlatnceStepped& stepped) {
  auto all = list(stepped.gradients, stepped.count);
  for (size_t i = 0; i < stepped.count; ++i) all[i] = laid_out_as(all[i], *stepped.values[i]);
  return all;
}

std::optional<at::Tensor> left_out_of(const FlatnceStepped& stepped) {
  if (stepped.left_out == nullptr) return std::nullopt;
  return *stepped.left_out;
}

// lr times eeta |value| / |gradient| for each, lr alone where either norm is 0.
std::vector<at::Tensor> adapted_rates(
    at::TensorList values, at::TensorList gradients, const at::Tensor& lr, double eeta) {
  const at::Tensor of_values = at::stack(at::_foreach_norm(values, 2));
  const at::Tensor of_gradients = at::stack(at::_foreach_norm(gradients, 2));
  const at::Tensor usable = of_values.gt(0).logical_and(of_gradients.gt(0));
  const at::Tensor one = at::scalar_tensor(1.0, of_values.options());
  // 0/0 and x/0 never win over the 1.
  return (at::where(usable, of_values / of_gradients * eeta, one) * lr).unbind();
}

}  // namespace

extern "C" {

char* flatnce_drop_gradients(at::Tensor* const* tensors, size_t count) noexcept {
  return guarded([&] {
    for (size_t i = 0; i < count; ++i) tensors[i]->mutable_grad().reset();
  });
}

char* flatnce_unscale(
    at::Tensor* const* gradients, size_t count, at::Tensor* overflowed, const at::Tensor* inverse) noexcept {
  return guarded([&] {
    at::_amp_foreach_non_finite_check_and_unscale_(list(gradients, count), *overflowed, *inverse);
  });
}

char* flatnce_sgd_step(const FlatnceStepped* stepped, double decay, double momentum) noexcept {
  return guarded([&] {
    std::vector<at::Tensor> buffers;
    if (momentum != 0) buffers = list(stepped->state[0], stepped->count);
    // Buffers begin with zeros, so that no step is a first one.
    at::_fused_sgd_(
        list(stepped->values, stepped->count), gradients_of(*stepped), buffers, decay, momentum, *stepped->lr,
        /*dampening=*/0.0, /*nesterov=*/false, /*maximize=*/false, /*is_first_step=*/false, /*grad_scale=*/{},
        left_out_of(*stepped));
  });
}

// Without adaptation where eeta is 0.
char* flatnce_lars_step(const FlatnceStepped* stepped, double decay, double momentum, double eeta) noexcept {
  return guarded([&] {
    const auto value = list(stepped->values, stepped->count), buffer = list(stepped->state[0], stepped->count);
    auto gradient = gradients_of(*stepped);
    at::Tensor lr = *stepped->lr, taken;
    if (stepped->left_out != nullptr) {
      // Gradients that are not finite are replaced: a product with 0 would leave them.
      const auto options = value[0].options();
      const at::Tensor is_left_out = stepped->left_out->ne(0), zero = at::zeros({}, options);
      for (auto& one : gradient) one = at::where(is_left_out, zero, one);
      taken = is_left_out.logical_not().to(options);
      lr = lr * taken;
      at::_foreach_mul_(buffer, at::where(is_left_out, at::scalar_tensor(1.0, options), at::scalar_tensor(momentum, options)));
    } else {
      at::_foreach_mul_(buffer, momentum);
    }
    if (decay != 0) gradient = at::_foreach_add(gradient, value, decay);
    if (eeta != 0) {
      at::_foreach_addcmul_(buffer, gradient, adapted_rates(value, gradient, lr, eeta));
    } else {
      at::_foreach_add_(buffer, at::_foreach_mul(gradient, lr));
    }
    at::_foreach_sub_(value, taken.defined() ? at::_foreach_mul(buffer, taken) : buffer);
  });
}

char* flatnce_adam_step(
    const FlatnceStepped* stepped, double decay, double first_beta, double second_beta, double epsilon) noexcept {
  return guarded([&] {
    const auto steps = list(stepped->state[0], stepped->count);
    at::_foreach_add_(steps, 1);
    at::_fused_adam_(
        list(stepped->values, stepped->count), gradients_of(*stepped), list(stepped->state[1], stepped->count),
        list(stepped->state[2], stepped->count), /*max_exp_avg_sqs=*/{}, steps, *stepped->lr, first_beta, second_beta,
        decay, epsilon, /*amsgrad=*/false, /*maximize=*/false, /*grad_scale=*/{}, left_out_of(*stepped));
    if (stepped->left_out != nullptr) {
      const std::vector<at::Tensor> not_counted(stepped->count, *stepped->left_out);
      at::_foreach_sub_(steps, not_counted);
    }
  });
}

}  // extern "C"
