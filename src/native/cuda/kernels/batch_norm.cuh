// BatchNorm in training mode: what its kernels have in common.
//
// A tensor is R rows (images times places) of C channels, C a multiple of TILE. A block has THREADS threads and works on
// TILE channels of `chunk` rows; a thread has 16 bytes of a row, that is F::lanes channels, and every `down`-th row.
// Every sum is made in an order that only R and C decide: in a thread, then over the threads of a block, then over blocks.

constexpr int THREADS = 256;
// Blocks a multiprocessor keeps at a time: registers are handed out accordingly.
constexpr int RESIDENT = 3;
constexpr int TILE = 64;

// What becomes of the normalised number.
enum class After { Nothing, Relu, AddRelu };

template <class F>
struct Place {
  static constexpr int across = TILE / F::lanes;
  static constexpr int down = THREADS / across;

  int column;         // first channel within the tile
  int channel;        // first channel
  int line;           // which of the `down` rows of a round
  long long begin;    // rows of the block: begin .. end
  long long end;

  DEVICE Place(long long block, long long rows, int chunk) {
    column = static_cast<int>(threadIdx.x) % across * F::lanes;
    line = static_cast<int>(threadIdx.x) / across;
    channel = static_cast<int>(blockIdx.x) * TILE + column;
    begin = block * chunk;
    end = begin + chunk < rows ? begin + chunk : rows;
  }

  // Runs `body.step<N>(at)` over the thread's rows, N of them at a time and the last ones singly; `at` is where the
  // first of them begins, in numbers, and a row's neighbour is `down * channels` further. What a step loads is under way
  // together.
  template <int N, class Body>
  DEVICE void walk(int channels, Body& body) const {
    long long row = begin + line;
    for (; row + (N - 1) * down < end; row += N * down) body.template step<N>(row * channels + channel);
    for (; row < end; row += down) body.template step<1>(row * channels + channel);
  }
};

template <class F>
DEVICE uint4 load(const void* numbers, long long at) {
  return reinterpret_cast<const uint4*>(numbers)[at / F::lanes];
}

template <class F>
DEVICE void store(void* numbers, long long at, const float (&values)[F::lanes]) {
  reinterpret_cast<uint4*>(numbers)[at / F::lanes] = F::pack(values);
}

template <class F>
DEVICE void fetch(const float* of_channels, int channel, float (&values)[F::lanes]) {
  UNROLL for (int i = 0; i < F::lanes; ++i) values[i] = of_channels[channel + i];
}

// Two numbers for each channel of a tile and each line of a block's threads.
template <class F>
struct Pairs {
  float first[Place<F>::down][TILE];
  float second[Place<F>::down][TILE];

  // Those of line 0 become the block's partial results, of [blocks, 2, C].
  DEVICE void give(const Place<F>& place, float* partial, int channels) const {
    if (place.line != 0) return;
    float* own = partial + 2ll * blockIdx.y * channels + place.channel;
    UNROLL for (int i = 0; i < F::lanes; ++i) {
      own[i] = first[0][place.column + i];
      own[channels + i] = second[0][place.column + i];
    }
  }
};
