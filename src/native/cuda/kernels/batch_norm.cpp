// BatchNorm in training mode with what follows it, recorded for autograd: the launches of batch_norm_forward.cu and
// batch_norm_backward.cu.

#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <torch/csrc/autograd/custom_function.h>

#include <algorithm>
#include <optional>

#include "../../guarded.h"
#include "launch.h"

namespace {

using namespace flatnce::kernels;
using at::Tensor;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

// As in batch_norm.cuh and batch_norm_forward.cu.
constexpr unsigned int THREADS = 256, FINISH_THREADS = 256;
constexpr int64_t TILE = 64, FINISH_CHANNELS = 8;
// Blocks of a launch, about: three for each multiprocessor of the largest GPUs. Not asked of the GPU, since the order of
// the sums depends on it.
constexpr int64_t BLOCKS = 384;
// Rows of a thread that are read together.
constexpr int64_t ROWS_AT_ONCE = 4;
constexpr int64_t LINE_BYTES = 16;

enum After { NOTHING, RELU, ADD_RELU };

// How R rows of C channels are divided.
struct Division {
  int64_t rows;
  int channels;
  int chunk;        // rows of a block
  int blocks;       // along the rows
  Grid grid;
  Grid finish_grid;

  explicit Division(const Tensor& x) : rows(x.numel() / x.size(1)), channels(static_cast<int>(x.size(1))) {
    const int64_t tiles = channels / TILE;
    const int64_t across = TILE * x.element_size() / LINE_BYTES;
    const int64_t round = THREADS / across * ROWS_AT_ONCE;
    const int64_t wanted = std::max<int64_t>(BLOCKS / tiles, 1);
    const int64_t each = (rows + wanted - 1) / wanted;
    chunk = static_cast<int>((each + round - 1) / round * round);
    blocks = static_cast<int>((rows + chunk - 1) / chunk);
    grid = {static_cast<unsigned int>(tiles), static_cast<unsigned int>(blocks)};
    finish_grid = {static_cast<unsigned int>(channels / FINISH_CHANNELS), 1};
  }

  Tensor partial(const Tensor& like) const { return at::empty({blocks, 2, channels}, like.options()); }
};

const void* data(const Tensor& tensor) { return tensor.defined() ? tensor.const_data_ptr() : nullptr; }

const float* numbers(const Tensor& tensor) { return tensor.const_data_ptr<float>(); }

// [3, C]: mean, scale and 1 / deviation. The running statistics are updated if there are any.
Tensor statistics_of(
    const Tensor& x, const Tensor& weight, const Tensor* running_mean, const Tensor* running_var, double momentum,
    double epsilon, const Division& part) {
  Tensor partial = part.partial(weight), statistics = at::empty({3, part.channels}, weight.options());
  run(formatted(STATISTICS, x.scalar_type()), x, part.grid, THREADS, 0, data(x), partial.data_ptr<float>(),
      static_cast<long long>(part.rows), part.channels, part.chunk);
  float* mean = running_mean ? running_mean->data_ptr<float>() : nullptr;
  float* var = running_var ? running_var->data_ptr<float>() : nullptr;
  run(FINISH_STATISTICS, x, part.finish_grid, FINISH_THREADS, 0, numbers(partial), part.blocks,
      static_cast<long long>(part.rows), part.channels, part.chunk, numbers(weight), mean, var, momentum, epsilon,
      statistics.data_ptr<float>());
  return statistics;
}

// Whether nothing but `handles` handles here refers to a tensor and its memory, which then may be written over.
bool is_last(const Tensor& tensor, size_t handles) {
  return tensor.use_count() == handles && tensor.storage().use_count() == 1;
}

// A gradient that the graph hands over, or none; the layout of x decides which number stands where.
Tensor taken(Tensor& gradient) {
  Tensor own = gradient.defined() ? gradient.contiguous(at::MemoryFormat::ChannelsLast) : Tensor();
  gradient.reset();
  return own;
}

struct Normalise : torch::autograd::Function<Normalise> {
  // y; behind a shortcut it comes twice, as two tensors in one memory, so that the gradients of the two ways that it goes
  // come apart and are added where they are read.
  static variable_list forward(
      AutogradContext* context, const Tensor& x, const Tensor& weight, const Tensor& bias,
      const std::optional<Tensor>& added, const Tensor* running_mean, const Tensor* running_var, double momentum,
      double epsilon, int64_t after) {
    const Division part(x);
    const Tensor statistics = statistics_of(x, weight, running_mean, running_var, momentum, epsilon, part);
    const Tensor shortcut = added.value_or(Tensor());
    Tensor y = at::empty_like(x);
    run(formatted(static_cast<Kernel>(APPLY + after), x.scalar_type()), x, part.grid, THREADS, 0, data(x),
        data(shortcut), y.data_ptr(), numbers(statistics), numbers(bias), static_cast<long long>(part.rows),
        part.channels, part.chunk);
    context->save_for_backward({x, bias, statistics, after == ADD_RELU ? y : Tensor()});
    context->saved_data["after"] = after;
    context->set_materialize_grads(false);
    if (after == ADD_RELU) return {y, y.variable_data()};
    return {y};
  }

  // Nothing of the layer's size is allocated in a training: where nothing else reads x or the gradient of y any more, what
  // is computed is written over them, number by number.
  static variable_list backward(AutogradContext* context, variable_list& gradients) {
    const auto saved = context->get_saved_variables();
    const auto &x = saved[0], &bias = saved[1], &statistics = saved[2], &y = saved[3];
    const int64_t after = context->saved_data["after"].toInt();
    const Division part(x);
    Tensor gradient = taken(gradients[0]), other;
    if (after == ADD_RELU) other = taken(gradients[1]);
    if (!gradient.defined()) std::swap(gradient, other);
    Tensor partial = part.partial(statistics);
    Tensor masked;
    if (after == ADD_RELU) {
      const bool second = other.defined() && is_last(other, 1);
      masked = is_last(gradient, 1) ? gradient : second ? other : at::empty_like(x);
    }
    run(formatted(static_cast<Kernel>(WEIGH + after), x.scalar_type()), x, part.grid, THREADS, 0, data(x), data(y),
        data(gradient), data(other), masked.defined() ? masked.data_ptr() : nullptr, numbers(statistics), numbers(bias),
        partial.data_ptr<float>(), static_cast<long long>(part.rows), part.channels, part.chunk);
    Tensor of_weight = at::empty({part.channels}, statistics.options());
    Tensor of_bias = at::empty_like(of_weight), terms = at::empty({2, part.channels}, statistics.options());
    run(FINISH_GRADIENTS, x, part.finish_grid, FINISH_THREADS, 0, numbers(partial), part.blocks,
        static_cast<long long>(part.rows), part.channels, numbers(statistics), of_weight.data_ptr<float>(),
        of_bias.data_ptr<float>(), terms.data_ptr<float>());
    const Tensor none;
    Tensor of_x;
    if (context->needs_input_grad(0)) {
      // The graph keeps one handle, `saved` the other.
      const bool over = is_last(x, 2);
      of_x = over ? x.variable_data() : at::empty_like(x);
      // A second pass over the same graph is an error then, not a wrong gradient.
      if (over) x.unsafeGetTensorImpl()->bump_version();
      other.reset();
      const Tensor& passed = masked.defined() ? masked : gradient;
      const auto kernel = after == RELU ? GIVE_BACK_RELU : GIVE_BACK;
      run(formatted(kernel, x.scalar_type()), x, part.grid, THREADS, 0, data(x), data(passed), of_x.data_ptr(),
          numbers(statistics), numbers(bias), numbers(terms), static_cast<long long>(part.rows), part.channels,
          part.chunk);
    }
    return {of_x, of_weight, of_bias, masked, none, none, none, none, none};
  }
};

// What the kernels are made for. Channels divide into tiles; more than one row, or nothing is left of them.
bool fits(const Tensor& x) {
  const auto type = x.scalar_type();
  return x.dim() == 4 && x.size(1) % TILE == 0 && x.numel() > x.size(1) &&
         (type == at::kFloat || type == at::kBFloat16 || type == at::kHalf) &&
         x.is_contiguous(at::MemoryFormat::ChannelsLast);
}

// What every caller promises: a bug otherwise.
void check(const Tensor& x, const Tensor& of_channels) {
  TORCH_CHECK(
      of_channels.scalar_type() == at::kFloat && of_channels.is_contiguous() && of_channels.numel() == x.size(1) &&
          of_channels.device() == x.device(),
      "BatchNorm's parameters are float32 [C] where its input is");
}

}  // namespace

extern "C" {

// y = relu(norm(x) + shortcut), without the addition where the shortcut is null and without ReLU where `rectifies` is 0.
// Running statistics may both be null. `out` is null where the kernels are not made for the tensors; `twin` is y once more
// where there is a shortcut, else null.
char* flatnce_fused_batch_norm(
    const Tensor* x, const Tensor* weight, const Tensor* bias, const Tensor* running_mean, const Tensor* running_var,
    const Tensor* shortcut, uint8_t rectifies, double momentum, double epsilon, Tensor** out,
    Tensor** twin) noexcept {
  return guarded([&] {
    *out = *twin = nullptr;
    const bool alike = !shortcut || (shortcut->sizes() == x->sizes() && shortcut->scalar_type() == x->scalar_type() &&
                                     shortcut->device() == x->device() && fits(*shortcut));
    if (!fits(*x) || !alike) return;
    for (const Tensor* of_channels : {weight, bias, running_mean, running_var}) {
      if (of_channels) check(*x, *of_channels);
    }
    TORCH_CHECK(!running_mean == !running_var, "one running statistic without the other");
    TORCH_CHECK(rectifies || !shortcut, "a shortcut is added before ReLU only");
    const std::optional<Tensor> added = shortcut ? std::make_optional(*shortcut) : std::nullopt;
    const int64_t after = shortcut ? ADD_RELU : rectifies ? RELU : NOTHING;
    const auto made =
        Normalise::apply(*x, *weight, *bias, added, running_mean, running_var, momentum, epsilon, after);
    *out = new Tensor(made[0]);
    if (made.size() > 1) *twin = new Tensor(made[1]);
  });
}

}  // extern "C"
