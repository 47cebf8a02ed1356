// BatchNorm in training mode, backward: x and the gradient of y are read for two sums a channel, and read again for the
// gradient of x, which is written. With g the gradient that is left where ReLU passed its input, and h = (x - mean) / deviation:
//
//     dx = scale (g - sum(g) / R - h sum(g h) / R)
//
// Where ReLU follows at once, whether it passed is computed again from x. With a shortcut it is seen from y, which the
// next layer keeps; the first pass then writes g, the shortcut's gradient, and the second one reads it. There y goes two
// ways, and the first pass adds the gradients of both (`other` is null where there is one).

template <class F, After after>
struct Weighed {
  const void* x;
  const void* y;
  const void* gradient;
  const void* other;
  void* masked;
  long long stride;
  float mean[F::lanes], scale[F::lanes], bias[F::lanes], sum[F::lanes], product[F::lanes];

  template <int N>
  DEVICE void step(long long at) {
    uint4 words[N], results[N], gradients[N], others[N];
    UNROLL for (int n = 0; n < N; ++n) {
      words[n] = load<F>(x, at + n * stride);
      gradients[n] = load<F>(gradient, at + n * stride);
      if (after == After::AddRelu) results[n] = load<F>(y, at + n * stride);
      if (after == After::AddRelu && other) others[n] = load<F>(other, at + n * stride);
    }
    UNROLL for (int n = 0; n < N; ++n) {
      float values[F::lanes], g[F::lanes];
      unsigned int stopped = 0;  // a bit a lane
      if (after == After::AddRelu) {
        F::unpack(results[n], values);
        UNROLL for (int i = 0; i < F::lanes; ++i) stopped |= (values[i] <= 0.0f ? 1u : 0u) << i;
      }
      F::unpack(gradients[n], g);
      if (after == After::AddRelu && other) {
        float more[F::lanes];
        F::unpack(others[n], more);
        UNROLL for (int i = 0; i < F::lanes; ++i) g[i] += more[i];
      }
      F::unpack(words[n], values);
      UNROLL for (int i = 0; i < F::lanes; ++i) {
        const float distance = values[i] - mean[i];
        if (after == After::AddRelu && (stopped >> i & 1u)) g[i] = 0.0f;
        if (after == After::Relu && fmaf(distance, scale[i], bias[i]) <= F::vanishes) g[i] = 0.0f;
        sum[i] += g[i];
        product[i] = fmaf(g[i], distance, product[i]);
      }
      if (after == After::AddRelu) store<F>(masked, at + n * stride, g);
    }
  }
};

// Partial sums [blocks, 2, C] of g and g (x - mean).
template <class F, After after>
DEVICE void weigh(const void* x, const void* y, const void* gradient, const void* other, void* masked,
                  const float* statistics, const float* bias, float* partial, long long rows, int channels, int chunk) {
  SHARED(Pairs<F>, shared);
  const Place<F> place(blockIdx.y, rows, chunk);
  const long long stride = static_cast<long long>(Place<F>::down) * channels;
  Weighed<F, after> own = {x, y, gradient, other, masked, stride, {}, {}, {}, {}, {}};
  fetch<F>(statistics, place.channel, own.mean);
  if (after == After::Relu) {
    fetch<F>(statistics + channels, place.channel, own.scale);
    fetch<F>(bias, place.channel, own.bias);
  }
  place.template walk<2>(channels, own);
  UNROLL for (int i = 0; i < F::lanes; ++i) {
    shared.first[place.line][place.column + i] = own.sum[i];
    shared.second[place.line][place.column + i] = own.product[i];
  }
  for (int half = Place<F>::down / 2; half > 0; half /= 2) {
    SYNCHRONISE();
    if (place.line < half) {
      UNROLL for (int i = 0; i < F::lanes; ++i) {
        const int column = place.column + i;
        shared.first[place.line][column] += shared.first[place.line + half][column];
        shared.second[place.line][column] += shared.second[place.line + half][column];
      }
    }
  }
  shared.give(place, partial, channels);
}

// From partial sums [blocks, 2, C] to the gradients of weight and bias, and [2, C]: what dx takes from x - mean, and from 1.
KERNEL(finish_gradients, FINISH_ACROSS * FINISH_DOWN, 1,
       (const float* partial, int blocks, long long rows, int channels, const float* statistics, float* of_weight,
        float* of_bias, float* terms)) {
  SHARED(Totals, shared);
  const int column = static_cast<int>(threadIdx.x) % FINISH_ACROSS, line = static_cast<int>(threadIdx.x) / FINISH_ACROSS;
  const int channel = static_cast<int>(blockIdx.x) * FINISH_ACROSS + column;
  double sum = 0.0, product = 0.0;
  for (int block = line; block < blocks; block += FINISH_DOWN) {
    const float* sums = partial + 2ll * block * channels + channel;
    sum += static_cast<double>(sums[0]);
    product += static_cast<double>(sums[channels]);
  }
  sum = total(shared.first, line, column, sum);
  product = total(shared.second, line, column, product);
  if (line == 0) {
    const double count = static_cast<double>(rows);
    const double scale = statistics[channels + channel], inverse = statistics[2 * channels + channel];
    of_weight[channel] = static_cast<float>(product * inverse);
    of_bias[channel] = static_cast<float>(sum);
    terms[channel] = static_cast<float>(-scale * inverse * inverse * product / count);
    terms[channels + channel] = static_cast<float>(-scale * sum / count);
  }
}

template <class F, After after>
struct Returned {
  const void* x;
  const void* gradient;
  void* of_x;
  long long stride;
  float mean[F::lanes], scale[F::lanes], bias[F::lanes], slope[F::lanes], level[F::lanes];

  template <int N>
  DEVICE void step(long long at) {
    uint4 words[N], gradients[N];
    UNROLL for (int n = 0; n < N; ++n) {
      words[n] = load<F>(x, at + n * stride);
      gradients[n] = load<F>(gradient, at + n * stride);
    }
    UNROLL for (int n = 0; n < N; ++n) {
      float values[F::lanes], g[F::lanes];
      F::unpack(words[n], values);
      F::unpack(gradients[n], g);
      UNROLL for (int i = 0; i < F::lanes; ++i) {
        const float distance = values[i] - mean[i];
        if (after == After::Relu && fmaf(distance, scale[i], bias[i]) <= F::vanishes) g[i] = 0.0f;
        values[i] = fmaf(scale[i], g[i], fmaf(slope[i], distance, level[i]));
      }
      store<F>(of_x, at + n * stride, values);
    }
  }
};

// The gradient of x; with a shortcut `gradient` is g already. From the last rows to the first, as `apply`.
template <class F, After after>
DEVICE void give_back(const void* x, const void* gradient, void* of_x, const float* statistics, const float* bias,
                      const float* terms, long long rows, int channels, int chunk) {
  const Place<F> place(gridDim.y - 1 - blockIdx.y, rows, chunk);
  const long long stride = static_cast<long long>(Place<F>::down) * channels;
  Returned<F, after> own = {x, gradient, of_x, stride, {}, {}, {}, {}, {}};
  fetch<F>(statistics, place.channel, own.mean);
  fetch<F>(statistics + channels, place.channel, own.scale);
  if (after == After::Relu) fetch<F>(bias, place.channel, own.bias);
  fetch<F>(terms, place.channel, own.slope);
  fetch<F>(terms + channels, place.channel, own.level);
  place.template walk<2>(channels, own);
}

#define WEIGH(name, F, after)                                                                                         \
  KERNEL(name, THREADS, RESIDENT,                                                                                     \
         (const void* x, const void* y, const void* gradient, const void* other, void* masked,                        \
          const float* statistics, const float* bias, float* partial, long long rows, int channels, int chunk)) {     \
    weigh<F, after>(x, y, gradient, other, masked, statistics, bias, partial, rows, channels, chunk);                 \
  }

#define GIVE_BACK(name, F, after)                                                                                     \
  KERNEL(name, THREADS, RESIDENT,                                                                                     \
         (const void* x, const void* gradient, void* of_x, const float* statistics, const float* bias,                \
          const float* terms, long long rows, int channels, int chunk)) {                                             \
    give_back<F, after>(x, gradient, of_x, statistics, bias, terms, rows, channels, chunk);                           \
  }

#define BACKWARD(name, F)                          \
  WEIGH(weigh_##name, F, After::Nothing)           \
  WEIGH(weigh_relu_##name, F, After::Relu)         \
  WEIGH(weigh_add_relu_##name, F, After::AddRelu)  \
  GIVE_BACK(give_back_##name, F, After::Nothing)   \
  GIVE_BACK(give_back_relu_##name, F, After::Relu)

BACKWARD(float32, Float32)
BACKWARD(bfloat16, BFloat16)
BACKWARD(float16, Float16)
