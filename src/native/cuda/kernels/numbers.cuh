// Numbers as they lie in memory, 16 bytes of them at a time, and as float32 in registers.
//
// The sources *.cuh and *.cu are compiled on the user's machine, put together in the order of `mod.rs` and without any
// header; the tests compile the same text for the CPU, where GPU_EMULATION supplies what a GPU has built in. Products
// and sums are never contracted (--fmad=false); where one rounding is wanted, fmaf says so. So a GPU and the emulation
// give the same bits.

#ifndef GPU_EMULATION
#define DEVICE __device__ __forceinline__
#define KERNEL(name, threads, blocks, parameters) \
  extern "C" __global__ void __launch_bounds__(threads, blocks) name parameters
// Memory that the threads of a block share: a fixed part of it, or as much as the launch says.
#define SHARED(type, name) __shared__ type name
#define DYNAMIC_SHARED(name)        \
  extern __shared__ uint4 name##16[]; \
  unsigned char* name = reinterpret_cast<unsigned char*>(name##16)
#define SYNCHRONISE() __syncthreads()
#define UNROLL _Pragma("unroll")
#endif

struct Float32 {
  static constexpr int lanes = 4;
  // Positive numbers up to this one are stored as 0.
  static constexpr float vanishes = 0.0f;

  static DEVICE void unpack(const uint4& words, float (&numbers)[lanes]) {
    numbers[0] = __uint_as_float(words.x);
    numbers[1] = __uint_as_float(words.y);
    numbers[2] = __uint_as_float(words.z);
    numbers[3] = __uint_as_float(words.w);
  }

  static DEVICE uint4 pack(const float (&numbers)[lanes]) {
    uint4 words;
    words.x = __float_as_uint(numbers[0]);
    words.y = __float_as_uint(numbers[1]);
    words.z = __float_as_uint(numbers[2]);
    words.w = __float_as_uint(numbers[3]);
    return words;
  }
};

// Formats of 16 bits: `Half` turns a word of two numbers into float32 and back.
template <class Half>
struct Halves {
  static constexpr int lanes = 8;

  static DEVICE void unpack(const uint4& words, float (&numbers)[lanes]) {
    Half::unpack(words.x, numbers[0], numbers[1]);
    Half::unpack(words.y, numbers[2], numbers[3]);
    Half::unpack(words.z, numbers[4], numbers[5]);
    Half::unpack(words.w, numbers[6], numbers[7]);
  }

  static DEVICE uint4 pack(const float (&numbers)[lanes]) {
    uint4 words;
    words.x = Half::pack(numbers[0], numbers[1]);
    words.y = Half::pack(numbers[2], numbers[3]);
    words.z = Half::pack(numbers[4], numbers[5]);
    words.w = Half::pack(numbers[6], numbers[7]);
    return words;
  }
};

struct BFloat16Pair {
  static DEVICE void unpack(unsigned int word, float& low, float& high) {
    low = __uint_as_float(word << 16);
    high = __uint_as_float(word & 0xFFFF0000u);
  }

  // To the nearest, half to even.
  static DEVICE unsigned int pack(float low, float high) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
    unsigned int word;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(word) : "f"(high), "f"(low));
    return word;
#else
    return rounded(low) >> 16 | (rounded(high) & 0xFFFF0000u);
#endif
  }

  static DEVICE unsigned int rounded(float number) {
    const unsigned int bits = __float_as_uint(number);
    if ((bits & 0x7FFFFFFFu) > 0x7F800000u) return 0x7FFF0000u;  // NaN
    return bits + 0x7FFFu + (bits >> 16 & 1u);
  }
};

struct BFloat16 : Halves<BFloat16Pair> {
  static constexpr float vanishes = 0x1p-134f;
};

struct Float16Pair {
  static DEVICE void unpack(unsigned int word, float& low, float& high) {
#ifdef GPU_EMULATION
    emulation::float16_to_float(word, low, high);
#else
    asm("{ .reg .b16 a, b; mov.b32 {a, b}, %2; cvt.f32.f16 %0, a; cvt.f32.f16 %1, b; }"
        : "=f"(low), "=f"(high)
        : "r"(word));
#endif
  }

  static DEVICE unsigned int pack(float low, float high) {
#ifdef GPU_EMULATION
    return emulation::float_to_float16(low, high);
#else
    unsigned int word;
    asm("{ .reg .b16 a, b; cvt.rn.f16.f32 a, %1; cvt.rn.f16.f32 b, %2; mov.b32 %0, {a, b}; }"
        : "=r"(word)
        : "f"(low), "f"(high));
    return word;
#endif
  }
};

struct Float16 : Halves<Float16Pair> {
  static constexpr float vanishes = 0x1p-25f;
};
