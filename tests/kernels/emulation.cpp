// The GPU's kernels on the CPU: the same sources, block after block, the threads of a block as fibres.
//
// A fibre runs until a barrier. Within that stretch the fibres run in ascending, descending or shuffled order; of two
// threads that touch the same memory without a barrier between them one order shows the one first, another order the
// other, so a missing barrier changes the result of one of the orders. To prove that, a barrier can be left out.
// Shared memory begins as noise, and what lies behind it must not be touched.

#include <ucontext.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <map>
#include <mutex>
#include <numeric>
#include <random>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

struct uint4 {
  unsigned int x, y, z, w;
} __attribute__((aligned(16)));

struct Index {
  unsigned int x, y, z;
};

namespace emulation {

Index thread, block, threads, blocks;

constexpr size_t SHARED_BYTES = 232448;  // What a block has at most on a Hopper.
constexpr size_t STATIC_BYTES = 49152;
constexpr size_t GUARD_BYTES = 4096;
constexpr size_t STACK_BYTES = 1 << 16;
constexpr int ILLEGAL = 1, FAILED = 719;

struct Fibre {
  ucontext_t context;
  std::vector<unsigned char> stack = std::vector<unsigned char>(STACK_BYTES);
  bool done = false;
};

std::mutex lock;
std::vector<Fibre> fibres;
ucontext_t scheduler;
size_t running;
alignas(16) unsigned char shared[SHARED_BYTES + GUARD_BYTES];
size_t static_bytes, dynamic_bytes;
std::string said;

int order;             // 0 ascending, 1 descending, from 2 shuffled
long long drop = -1;   // the barrier of each block that is left out,
std::string drop_in;   // in this kernel
std::vector<int> passed;
long long barriers;    // most that a block of it has passed
bool drops;            // it runs now

void* static_shared(size_t bytes) {
  static_bytes = bytes;
  return shared;
}

void barrier() {
  const long long number = passed[running]++;
  if (!drops) return (void)swapcontext(&fibres[running].context, &scheduler);
  barriers = std::max(barriers, number + 1);
  if (number == drop) return;
  swapcontext(&fibres[running].context, &scheduler);
}

float as_float(unsigned int bits) {
  float number;
  memcpy(&number, &bits, 4);
  return number;
}

unsigned int as_bits(float number) {
  unsigned int bits;
  memcpy(&bits, &number, 4);
  return bits;
}

float from_half(unsigned int bits) {
  const uint16_t low = static_cast<uint16_t>(bits);
  _Float16 number;
  memcpy(&number, &low, 2);
  return static_cast<float>(number);
}

unsigned int to_half(float number) {
  const _Float16 half = static_cast<_Float16>(number);
  uint16_t bits;
  memcpy(&bits, &half, 2);
  return bits;
}

void float16_to_float(unsigned int word, float& low, float& high) {
  low = from_half(word);
  high = from_half(word >> 16);
}

unsigned int float_to_float16(float low, float high) { return to_half(low) | to_half(high) << 16; }

// A kernel and how its parameters are taken from the list of their addresses.
struct Kernel {
  void (*call)(const Kernel&, void**);
  void (*code)();
  unsigned int most_threads;
};

std::map<std::string, Kernel>& kernels() {
  static std::map<std::string, Kernel> all;
  return all;
}

template <class... A, size_t... I>
void call_with(void (*code)(A...), void** parameters, std::index_sequence<I...>) {
  code(*static_cast<std::remove_const_t<A>*>(parameters[I])...);
}

template <class... A>
int add(const char* name, void (*code)(A...), unsigned int most_threads) {
  Kernel kernel;
  kernel.code = reinterpret_cast<void (*)()>(code);
  kernel.most_threads = most_threads;
  kernel.call = [](const Kernel& self, void** parameters) {
    call_with(reinterpret_cast<void (*)(A...)>(self.code), parameters, std::index_sequence_for<A...>());
  };
  kernels()[name] = kernel;
  return 0;
}

const Kernel* kernel_now;
void** parameters_now;

void fibre_main() {
  kernel_now->call(*kernel_now, parameters_now);
  fibres[running].done = true;
  swapcontext(&fibres[running].context, &scheduler);
}

// Runs one block; false with a reason in `said`.
bool run_block(unsigned int count, std::mt19937& random) {
  for (size_t at = 0; at < sizeof shared; ++at) shared[at] = static_cast<unsigned char>(at * 167 + 89);
  passed.assign(count, 0);
  static_bytes = 0;
  for (unsigned int i = 0; i < count; ++i) {
    Fibre& fibre = fibres[i];
    fibre.done = false;
    getcontext(&fibre.context);
    fibre.context.uc_stack.ss_sp = fibre.stack.data();
    fibre.context.uc_stack.ss_size = STACK_BYTES;
    fibre.context.uc_link = nullptr;
    makecontext(&fibre.context, fibre_main, 0);
  }
  std::vector<unsigned int> turn(count);
  std::iota(turn.begin(), turn.end(), 0u);
  if (order == 1) std::reverse(turn.begin(), turn.end());
  for (bool more = true; more;) {
    if (order >= 2) std::shuffle(turn.begin(), turn.end(), random);
    for (unsigned int i : turn) {
      running = i;
      thread = {i, 0, 0};
      swapcontext(&scheduler, &fibres[i].context);
    }
    const size_t done = std::count_if(fibres.begin(), fibres.begin() + count, [](const Fibre& f) { return f.done; });
    if (done != 0 && done != count) {
      said = "a barrier that not every thread of the block reaches";
      return false;
    }
    more = done == 0;
  }
  const size_t used = std::max(static_bytes, dynamic_bytes);
  for (size_t at = used; at < sizeof shared; ++at) {
    if (shared[at] != static_cast<unsigned char>(at * 167 + 89)) {
      said = "memory behind the block's shared memory is written";
      return false;
    }
  }
  return true;
}

}  // namespace emulation

#define GPU_EMULATION
#define DEVICE inline
#define KERNEL(name, threads, blocks, parameters)                                \
  static void name parameters;                                                   \
  static const int registered_##name = emulation::add(#name, name, threads);     \
  static void name parameters
#define SHARED(type, name) type& name = *static_cast<type*>(emulation::static_shared(sizeof(type)))
#define DYNAMIC_SHARED(name) unsigned char* name = emulation::shared
#define SYNCHRONISE() emulation::barrier()
#define UNROLL
#define threadIdx emulation::thread
#define blockIdx emulation::block
#define blockDim emulation::threads
#define gridDim emulation::blocks
#define __uint_as_float emulation::as_float
#define __float_as_uint emulation::as_bits

// As the program carries them.
#include "kernels.cu"

extern "C" {

// As cuLaunchKernel.
int emulated_launch(void* function, unsigned int grid_x, unsigned int grid_y, unsigned int grid_z, unsigned int block_x,
                    unsigned int block_y, unsigned int block_z, unsigned int shared_bytes, void*, void** parameters,
                    void**) {
  using namespace emulation;
  const std::lock_guard<std::mutex> guard(lock);
  kernel_now = static_cast<const Kernel*>(function);
  parameters_now = parameters;
  const auto named = kernels().find(drop_in);
  drops = named != kernels().end() && &named->second == kernel_now;
  if (grid_x * grid_y * grid_z == 0 || block_x > kernel_now->most_threads || block_y * block_z != 1 ||
      grid_y > 65535 || grid_z != 1 || shared_bytes > SHARED_BYTES) {
    said = "a launch that no GPU allows";
    return ILLEGAL;
  }
  threads = {block_x, 1, 1};
  blocks = {grid_x, grid_y, grid_z};
  dynamic_bytes = shared_bytes;
  if (fibres.size() < block_x) fibres = std::vector<Fibre>(block_x);
  std::mt19937 random(static_cast<unsigned int>(order));
  std::vector<std::pair<unsigned int, unsigned int>> turn;
  for (unsigned int y = 0; y < grid_y; ++y) {
    for (unsigned int x = 0; x < grid_x; ++x) turn.emplace_back(x, y);
  }
  if (order == 1) std::reverse(turn.begin(), turn.end());
  if (order >= 2) std::shuffle(turn.begin(), turn.end(), random);
  for (const auto& [x, y] : turn) {
    block = {x, y, 0};
    if (!run_block(block_x, random)) return FAILED;
    if (static_bytes > STATIC_BYTES) {
      said = "more fixed shared memory than a block has";
      return ILLEGAL;
    }
  }
  return 0;
}

// As cuGetErrorString.
int emulated_error(int, const char** text) {
  *text = emulation::said.c_str();
  return 0;
}

// Null where there is none of that name.
void* emulated_kernel(const char* name) {
  const auto found = emulation::kernels().find(name);
  return found == emulation::kernels().end() ? nullptr : &found->second;
}

// The order of threads and blocks; a barrier that is left out in a kernel, -1 for none.
void emulated_schedule(int order, const char* kernel, long long drop) {
  const std::lock_guard<std::mutex> guard(emulation::lock);
  emulation::order = order;
  emulation::drop_in = kernel;
  emulation::drop = drop;
  emulation::barriers = 0;
}

// The most barriers that a block of its kernel has passed since `emulated_schedule`.
long long emulated_barriers() { return emulation::barriers; }

}  // extern "C"
