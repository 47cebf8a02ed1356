// BatchNorm over the images of all ranks.
//
// Forward: each rank's mean and variance (libtorch's own kernel) are combined in
// double precision, by two reductions. Backward: of the two sums over all images that the
// gradient of the input needs, each rank computes its part, and one all-reduce adds
// them. With g the output's gradient, h = (x - mean) * s, s = 1 / sqrt(var + eps):
//
//     dx = w s g  -  w s (sum g) / n  -  w s h (sum g h) / n
//
// The first term and both of the rank's sums are what the kernel of evaluation mode
// gives; the other two are a straight line in x, a channel's own.

#include "engine.hpp"

#include <torch/csrc/autograd/custom_function.h>

#include <algorithm>
#include <tuple>

namespace {

using at::Tensor;
using flatnce::Engine;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

// y = scale * x + shift with one scale and shift a channel, in one pass of libtorch's kernel.
Tensor line(const Tensor& x, const Tensor& scale, const Tensor& shift) {
  const auto zero = at::zeros_like(scale);
  const auto one = at::ones_like(scale);
  return std::get<0>(at::native_batch_norm(x, scale, shift, zero, one, /*training=*/false, 0.0, 0.0));
}

struct Normalise : torch::autograd::Function<Normalise> {
  static Tensor forward(
      AutogradContext* context, const Tensor& x, const Tensor& weight, const Tensor& bias, const Tensor& mean,
      const Tensor& variance, double count, double epsilon, const c10::intrusive_ptr<Engine>& engine) {
    context->save_for_backward({x, weight, mean, variance});
    context->saved_data["count"] = count;
    context->saved_data["epsilon"] = epsilon;
    context->saved_data["engine"] = c10::IValue::make_capsule(engine);
    return std::get<0>(at::native_batch_norm(x, weight, bias, mean, variance, /*training=*/false, 0.0, epsilon));
  }

  static variable_list backward(AutogradContext* context, variable_list gradients) {
    const auto saved = context->get_saved_variables();
    const auto &x = saved[0], &weight = saved[1], &mean = saved[2], &variance = saved[3];
    const double count = context->saved_data["count"].toDouble();
    const double epsilon = context->saved_data["epsilon"].toDouble();
    auto engine = c10::static_intrusive_pointer_cast<Engine>(context->saved_data["engine"].toCapsule());
    auto gradient = gradients[0];
    if (!gradient.is_contiguous(x.suggest_memory_format())) {
      gradient = gradient.contiguous(x.suggest_memory_format());
    }
    const auto scale = (variance + epsilon).rsqrt();
    auto [input, of_weight, of_bias] = at::native_batch_norm_backward(
        gradient, x, weight, mean, variance, mean, scale, /*train=*/false, epsilon, {true, true, true});

    auto sums = at::stack({of_bias, of_weight}).to(at::kDouble); // [2, C]: sum g, sum g h
    if (engine->fault().empty()) {
      try {
        engine->all_reduce({sums}, c10d::ReduceOp::SUM);
      } catch (const std::exception& error) {
        engine->remember(flatnce::said(error));
      }
    }
    const auto wide = (weight.to(at::kDouble) * scale) / count;
    const auto slope = -(wide * scale * sums[1]);
    const auto shift = -(wide * sums[0]) - slope * mean;
    input.add_(line(x, slope.to(weight.scalar_type()), shift.to(weight.scalar_type())));
    const Tensor none;
    return {input, of_weight, of_bias, none, none, none, none, none};
  }
};

// Mean and biased variance of this rank's images, [C] each, in the precision of BatchNorm's parameters.
std::tuple<Tensor, Tensor> own_statistics(const Tensor& x, at::ScalarType kind) {
  // The kernel takes the precision of its results from the running statistics; those that it updates are thrown away.
  const auto scrap = at::zeros({2, x.size(1)}, x.options().dtype(kind));
  return at::batch_norm_update_stats(x, scrap[0], scrap[1], 0.0);
}

// Mean and biased variance of the images of all ranks, and their number, from those of each: [C], [C].
struct Statistics {
  Tensor mean, variance;
  double count;
};

Statistics combined(Engine& engine, const Tensor& x, at::ScalarType precision) {
  auto [mean, variance] = own_statistics(x, precision);
  mean = mean.to(at::kDouble);
  // Every rank has as many images, so that means of means are means. The deviations are taken from the common mean:
  // sums of squares would cancel where a channel's mean is large beside its spread.
  auto whole = mean / engine.size;
  engine.all_reduce({whole}, c10d::ReduceOp::SUM);
  auto spread = (variance.to(at::kDouble) + (mean - whole).square()) / engine.size;
  engine.all_reduce({spread}, c10d::ReduceOp::SUM);
  return {whole, spread, static_cast<double>(x.numel() / x.size(1) * engine.size)};
}

} // namespace

char* flatnce_batch_norm(
    flatnce_group* group, flatnce_tensor x_, flatnce_tensor weight_, flatnce_tensor bias_,
    flatnce_tensor running_mean_, flatnce_tensor running_var_, double momentum, double epsilon, flatnce_tensor* out) {
  return flatnce::guarded([&] {
    auto at = [](flatnce_tensor pointer) -> Tensor& { return *static_cast<Tensor*>(pointer); };
    auto& engine = group->engine;
    const auto &x = at(x_), &weight = at(weight_), &bias = at(bias_);
    Statistics statistics;
    {
      at::NoGradGuard guard;
      const auto detached = x.detach();
      bool known = false;
      if (engine->fault().empty()) {
        try {
          statistics = combined(*engine, detached, weight.scalar_type());
          known = true;
        } catch (const std::exception& error) {
          engine->remember(flatnce::said(error));
        }
      }
      if (!known) {
        auto [mean, variance] = own_statistics(detached, weight.scalar_type());
        statistics = {mean, variance, static_cast<double>(x.numel() / x.size(1))};
      }
      const auto kind = weight.scalar_type();
      const auto unbiased = statistics.variance * (statistics.count / std::max(statistics.count - 1.0, 1.0));
      at(running_mean_).mul_(1.0 - momentum).add_(statistics.mean.to(kind), momentum);
      at(running_var_).mul_(1.0 - momentum).add_(unbiased.to(kind), momentum);
      statistics.mean = statistics.mean.to(kind);
      statistics.variance = statistics.variance.to(kind);
    }
    auto y = Normalise::apply(
        x, weight, bias, statistics.mean, statistics.variance, statistics.count, epsilon, engine);
    *out = new Tensor(std::move(y));
  });
}
