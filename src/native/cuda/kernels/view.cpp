// The launch of view.cu.

#include <ATen/ops/empty.h>

#include <algorithm>

#include "../../guarded.h"
#include "launch.h"
#include "view_layout.h"

namespace {

using namespace flatnce::kernels;
using at::Tensor;

// Blocks whose working memory lies in the GPU's: as many as run at a time.
constexpr int64_t MOST_BLOCKS = 528;
// Views of more pixels have blocks of as many threads as there can be.
constexpr int64_t SMALL_AREA = 4096;
constexpr unsigned int SMALL_BLOCK = 256;

}  // namespace

extern "C" {

size_t flatnce_view_words() noexcept { return VIEW_WORDS; }

// Views u8 [V, side, side, 3] of images u8 [N, H, W, 3] as `descriptions` i32 [V, words] says (view_layout.h): view v of
// image rows[v], or, where `rows` (i64 [V]) is null, image v, cropped and resized already.
char* flatnce_render_views(
    const Tensor* images, const Tensor* rows, const Tensor* descriptions, int64_t side, Tensor** out) noexcept {
  return guarded([&] {
    const int64_t views = descriptions->size(0), height = images->size(1), width = images->size(2);
    TORCH_CHECK(
        images->dim() == 4 && images->size(3) == 3 && images->scalar_type() == at::kByte && images->is_contiguous(),
        "images are u8 [N, H, W, 3]");
    TORCH_CHECK(
        descriptions->scalar_type() == at::kInt && descriptions->is_contiguous() && descriptions->size(1) > VIEW_WORDS,
        "descriptions are i32 [V, words]");
    if (rows) {
      TORCH_CHECK(
          rows->scalar_type() == at::kLong && rows->is_contiguous() && rows->numel() == views, "one image for each view");
    } else {
      TORCH_CHECK(images->size(0) == views && height == side && width == side, "resized views are as large as views");
    }
    TORCH_CHECK(std::max({height, width, side}) <= 16384, "images of at most 16384 pixels a side");
    Tensor made = at::empty({views, side, side, 3}, images->options());
    if (views > 0) {
      const ViewLayout layout =
          view_layout(static_cast<int>(side), static_cast<int>(height), static_cast<int>(width));
      const unsigned int threads = side * side <= SMALL_AREA ? SMALL_BLOCK : VIEW_MOST_THREADS;
      const bool fits = static_cast<unsigned int>(layout.bytes) <= most_shared_bytes();
      const auto blocks = static_cast<unsigned int>(fits ? views : std::min(views, MOST_BLOCKS));
      const Tensor memory = fits ? Tensor() : at::empty({static_cast<int64_t>(blocks) * layout.bytes}, images->options());
      run(RENDER_VIEWS, *images, {blocks, 1}, threads, fits ? layout.bytes : 0, images->const_data_ptr<uint8_t>(),
          rows ? reinterpret_cast<const long long*>(rows->const_data_ptr<int64_t>()) : nullptr,
          descriptions->const_data_ptr<int>(), static_cast<int>(descriptions->size(1)), static_cast<int>(views),
          static_cast<int>(height), static_cast<int>(width), static_cast<int>(side),
          memory.defined() ? memory.data_ptr<uint8_t>() : nullptr, made.data_ptr<uint8_t>());
    }
    *out = new Tensor(std::move(made));
  });
}

}  // extern "C"
