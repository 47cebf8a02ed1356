// A view of an image with the bits of the CPU engine (src/augment/cpu.rs): one block a view, from the crop to the blurred
// image, with everything between in shared memory where that suffices. Every operation is that of resample.rs, filter.rs,
// color.rs, hue.rs and blur.rs, in their order and precision.

// Views [V, side, side, 3] of images [N, height, width, 3]: view v of image `rows[v]`. Without `rows` the images are the
// views, cropped and resized already. `stride` words describe each view. The working memory is that of the block, or
// `memory`, a part for each block.
KERNEL(render_views, VIEW_MOST_THREADS, 1,
       (const unsigned char* images, const long long* rows, const int* descriptions, int stride, int views, int height,
        int width, int side, unsigned char* memory, unsigned char* out)) {
  DYNAMIC_SHARED(shared);
  const ViewLayout layout = view_layout(side, height, width);
  unsigned char* base = memory ? memory + static_cast<long long>(blockIdx.x) * layout.bytes : shared;
  View view;
  view.side = side;
  view.columns = {0, reinterpret_cast<int*>(base + layout.starts[0]), reinterpret_cast<int*>(base + layout.weights[0])};
  view.rows = {0, reinterpret_cast<int*>(base + layout.starts[1]), reinterpret_cast<int*>(base + layout.weights[1])};
  view.between = base + layout.between;
  view.planes = base + layout.planes;
  view.blurred = reinterpret_cast<float*>(base + layout.blurred);
  view.sums = reinterpret_cast<unsigned long long*>(base + layout.sums);
  const int area = side * side, thread = static_cast<int>(threadIdx.x), threads = static_cast<int>(blockDim.x);
  for (int number = static_cast<int>(blockIdx.x); number < views; number += static_cast<int>(gridDim.x)) {
    // Resampling has barriers before it writes planes: nobody reads those of the view before any more.
    if (!rows && number != static_cast<int>(blockIdx.x)) SYNCHRONISE();
    view.words = descriptions + static_cast<long long>(number) * stride;
    const long long image = rows ? rows[number] : number;
    const unsigned char* source = images + image * height * width * 3;
    if (rows) {
      view.columns.taps = taps_of(view.words[VIEW_WIDTH], side);
      view.rows.taps = taps_of(view.words[VIEW_HEIGHT], side);
      fill_windows(view);
      SYNCHRONISE();
      view.first_row = view.rows.starts[0];
      view.needed_rows = view.rows.starts[side - 1] + view.rows.taps - view.first_row;
      const long long row_bytes = 3ll * width;
      first_pass(view, source + view.words[VIEW_TOP] * row_bytes + 3 * view.words[VIEW_LEFT], row_bytes);
      SYNCHRONISE();
    }
    for (int at = thread; at < area; at += threads) {
      for (int channel = 0; channel < 3; ++channel) {
        const unsigned char level = rows ? second_pass(view, at / side, at % side, channel) : source[3 * at + channel];
        view.planes[channel * area + at] = level;
      }
    }
    change_colors(view);
    SYNCHRONISE();
    const int planes = planes_before(view, VIEW_WORDS);
    unsigned char* made = out + static_cast<long long>(number) * 3 * area;
    for (int at = thread; at < 3 * area; at += threads) {
      made[at] = view.planes[planes == 1 ? at / 3 : at % 3 * area + at / 3];
    }
  }
}
