// BatchNorm in training mode, forward: R rows of C channels are read, read again and written (with a shortcut: that is read
// too). Three launches: statistics of each block, their sum, and y = after((x - mean) * scale + bias [+ shortcut]).

// A thread's own sums are of distances from its first row, a member of them: the squares cannot cancel by more than the
// number of its rows, however large the mean is beside the spread.
template <class F>
struct Gathered {
  const void* x;
  long long stride;
  float first[F::lanes], sum[F::lanes], squares[F::lanes];
  int count;

  template <int N>
  DEVICE void step(long long at) {
    uint4 words[N];
    UNROLL for (int n = 0; n < N; ++n) words[n] = load<F>(x, at + n * stride);
    UNROLL for (int n = 0; n < N; ++n) {
      float values[F::lanes];
      F::unpack(words[n], values);
      UNROLL for (int i = 0; i < F::lanes; ++i) {
        const float distance = values[i] - first[i];
        sum[i] += distance;
        squares[i] = fmaf(distance, distance, squares[i]);
      }
    }
    count += N;
  }
};

// How many of `rows` are number `line` plus a multiple of `step`.
DEVICE int rows_of(long long rows, int line, int step) {
  return line < rows ? static_cast<int>((rows - line + step - 1) / step) : 0;
}

// Of a part of the rows: the mean, and the sum of squared distances from it.
template <class F>
DEVICE void statistics(const void* x, float* partial, long long rows, int channels, int chunk) {
  constexpr int down = Place<F>::down;
  SHARED(Pairs<F>, shared);
  const Place<F> place(blockIdx.y, rows, chunk);
  Gathered<F> own = {x, static_cast<long long>(down) * channels, {}, {}, {}, 0};
  if (place.begin + place.line < place.end) {
    F::unpack(load<F>(x, (place.begin + place.line) * channels + place.channel), own.first);
  }
  place.template walk<4>(channels, own);
  const float share = own.count > 0 ? 1.0f / static_cast<float>(own.count) : 0.0f;
  UNROLL for (int i = 0; i < F::lanes; ++i) {
    const float offset = own.sum[i] * share;
    shared.first[place.line][place.column + i] = own.first[i] + offset;
    const float squares = fmaf(-offset, own.sum[i], own.squares[i]);
    shared.second[place.line][place.column + i] = squares < 0.0f ? 0.0f : squares;  // NaN stays.
  }
  const long long block_rows = place.end - place.begin;
  for (int half = down / 2; half > 0; half /= 2) {
    SYNCHRONISE();
    const int other = place.line + half;
    const int here = rows_of(block_rows, place.line, 2 * half), there = rows_of(block_rows, other, 2 * half);
    if (place.line < half && there > 0) {
      const float weight = static_cast<float>(there) / static_cast<float>(here + there);
      UNROLL for (int i = 0; i < F::lanes; ++i) {
        const int column = place.column + i;
        const float distance = shared.first[other][column] - shared.first[place.line][column];
        const float between = distance * distance * static_cast<float>(here) * weight;
        shared.first[place.line][column] += distance * weight;
        shared.second[place.line][column] += shared.second[other][column] + between;
      }
    }
  }
  shared.give(place, partial, channels);
}

// Threads of a block that sum over blocks: for each of ACROSS channels DOWN of them.
constexpr int FINISH_ACROSS = 8;
constexpr int FINISH_DOWN = 32;

// The sum over a column of threads, for the one in line 0; the others may read it behind a barrier.
DEVICE double total(double (&shared)[FINISH_DOWN][FINISH_ACROSS], int line, int column, double own) {
  shared[line][column] = own;
  for (int half = FINISH_DOWN / 2; half > 0; half /= 2) {
    SYNCHRONISE();
    if (line < half) shared[line][column] += shared[line + half][column];
  }
  return shared[0][column];
}

// One for each of two totals, so that none waits for the readers of the other.
struct Totals {
  double first[FINISH_DOWN][FINISH_ACROSS];
  double second[FINISH_DOWN][FINISH_ACROSS];
};

// From the partial statistics [blocks, 2, C] of blocks of `chunk` rows to [3, C]: mean, scale, 1 / deviation. The running
// statistics are updated where there are any.
KERNEL(finish_statistics, FINISH_ACROSS * FINISH_DOWN, 1,
       (const float* partial, int blocks, long long rows, int channels, int chunk, const float* weight,
        float* running_mean, float* running_var, double momentum, double epsilon, float* statistics)) {
  SHARED(Totals, shared);
  const int column = static_cast<int>(threadIdx.x) % FINISH_ACROSS, line = static_cast<int>(threadIdx.x) / FINISH_ACROSS;
  const int channel = static_cast<int>(blockIdx.x) * FINISH_ACROSS + column;
  auto rows_in = [&](int block) {
    const long long left = rows - static_cast<long long>(block) * chunk;
    return static_cast<double>(left < chunk ? left : chunk);
  };
  const double count = static_cast<double>(rows);
  double sum = 0.0;
  for (int block = line; block < blocks; block += FINISH_DOWN) {
    sum += rows_in(block) * static_cast<double>(partial[2ll * block * channels + channel]);
  }
  total(shared.first, line, column, sum);
  SYNCHRONISE();
  const double mean = shared.first[0][column] / count;
  double squares = 0.0;
  for (int block = line; block < blocks; block += FINISH_DOWN) {
    const float* moments = partial + 2ll * block * channels + channel;
    const double distance = static_cast<double>(moments[0]) - mean;
    squares += static_cast<double>(moments[channels]) + rows_in(block) * distance * distance;
  }
  squares = total(shared.second, line, column, squares);
  if (line == 0) {
    const double inverse = 1.0 / sqrt(squares / count + epsilon);
    statistics[channel] = static_cast<float>(mean);
    statistics[channels + channel] = static_cast<float>(static_cast<double>(weight[channel]) * inverse);
    statistics[2 * channels + channel] = static_cast<float>(inverse);
    if (running_mean) {
      const double before_mean = running_mean[channel], before_var = running_var[channel];
      running_mean[channel] = static_cast<float>((1.0 - momentum) * before_mean + momentum * mean);
      running_var[channel] = static_cast<float>((1.0 - momentum) * before_var + momentum * squares / (count - 1.0));
    }
  }
}

template <class F, After after>
struct Applied {
  const void* x;
  const void* shortcut;
  void* y;
  long long stride;
  float mean[F::lanes], scale[F::lanes], bias[F::lanes];

  template <int N>
  DEVICE void step(long long at) {
    uint4 words[N], added[N];
    UNROLL for (int n = 0; n < N; ++n) {
      words[n] = load<F>(x, at + n * stride);
      if (after == After::AddRelu) added[n] = load<F>(shortcut, at + n * stride);
    }
    UNROLL for (int n = 0; n < N; ++n) {
      float values[F::lanes], others[F::lanes];
      F::unpack(words[n], values);
      if (after == After::AddRelu) F::unpack(added[n], others);
      UNROLL for (int i = 0; i < F::lanes; ++i) {
        float z = fmaf(values[i] - mean[i], scale[i], bias[i]);
        if (after == After::AddRelu) z += others[i];
        // NaN stays NaN.
        values[i] = after != After::Nothing && z <= 0.0f ? 0.0f : z;
      }
      store<F>(y, at + n * stride, values);
    }
  }
};

// The blocks run from the last rows to the first: what `statistics` read last is still in the cache.
template <class F, After after>
DEVICE void apply(const void* x, const void* shortcut, void* y, const float* statistics, const float* bias,
                  long long rows, int channels, int chunk) {
  const Place<F> place(gridDim.y - 1 - blockIdx.y, rows, chunk);
  Applied<F, after> own = {x, shortcut, y, static_cast<long long>(Place<F>::down) * channels, {}, {}, {}};
  fetch<F>(statistics, place.channel, own.mean);
  fetch<F>(statistics + channels, place.channel, own.scale);
  fetch<F>(bias, place.channel, own.bias);
  place.template walk<after == After::AddRelu ? 2 : 4>(channels, own);
}

#define FORWARD(name, F)                                                                                              \
  KERNEL(statistics_##name, THREADS, RESIDENT,                                                                        \
         (const void* x, float* partial, long long rows, int channels, int chunk)) {                                  \
    statistics<F>(x, partial, rows, channels, chunk);                                                                 \
  }                                                                                                                   \
  APPLY(apply_##name, F, After::Nothing)                                                                              \
  APPLY(apply_relu_##name, F, After::Relu)                                                                            \
  APPLY(apply_add_relu_##name, F, After::AddRelu)

#define APPLY(name, F, after)                                                                                         \
  KERNEL(name, THREADS, RESIDENT,                                                                                     \
         (const void* x, const void* shortcut, void* y, const float* statistics, const float* bias, long long rows,   \
          int channels, int chunk)) {                                                                                 \
    apply<F, after>(x, shortcut, y, statistics, bias, rows, channels, chunk);                                         \
  }

FORWARD(float32, Float32)
FORWARD(bfloat16, BFloat16)
FORWARD(float16, Float16)
