// A view of an image with the bits of the CPU engine (src/augment/cpu.rs): one block a view, from the crop to the blurred
// image, with everything between in shared memory where that suffices. Every operation is that of resample.rs, filter.rs,
// color.rs, hue.rs and blur.rs, in their order and precision.

constexpr int WEIGHT_BITS = 22;

// Windows of an axis: where each output's begins, and their weights, `taps` each.
struct Axis {
  int taps;
  int* starts;
  int* weights;
};

struct View {
  const int* words;
  int side;
  Axis columns, rows;
  int first_row;    // of the crop, that any output needs
  int needed_rows;  // from there
  unsigned char* between;
  unsigned char* planes;
  float* blurred;
  unsigned long long* sums;

  DEVICE float number(int word) const { return __uint_as_float(static_cast<unsigned int>(words[word])); }
};

DEVICE unsigned char clipped(int sum) {
  const int level = sum >> WEIGHT_BITS;
  return static_cast<unsigned char>(level < 0 ? 0 : level > 255 ? 255 : level);
}

DEVICE unsigned char truncated(float level) {
  return static_cast<unsigned char>(static_cast<int>(fminf(fmaxf(level, 0.0f), 255.0f)));
}

// Taps of all windows on an axis.
DEVICE int taps_of(int input, int side) {
  const double scale = static_cast<double>(input) / static_cast<double>(side);
  const double support = scale > 1.0 ? scale : 1.0;
  const int taps = static_cast<int>(ceil(support * 2.0));
  return taps < input ? taps : input;
}

// Start and weights of one output's window.
DEVICE void fill_window(int input, int side, int taps, int output, int* start, int* weights) {
  const double scale = static_cast<double>(input) / static_cast<double>(side);
  const double support = scale > 1.0 ? scale : 1.0;
  const double inverse = 1.0 / support;
  const double center = (static_cast<double>(output) + 0.5) * scale;
  const double low = center - support + 0.5;
  const int begin = static_cast<int>(low > 0.0 ? low : 0.0);
  int end = static_cast<int>(center + support + 0.5);
  end = end < input ? end : input;
  end = end < begin + taps ? end : begin + taps;
  auto exact = [&](int at) {
    const double distance = fabs((static_cast<double>(at) - center + 0.5) * inverse);
    return 1.0 - distance > 0.0 ? 1.0 - distance : 0.0;
  };
  double total = 0.0;
  for (int at = begin; at < end; ++at) total += exact(at);
  *start = begin < input - taps ? begin : input - taps;
  for (int tap = 0; tap < taps; ++tap) {
    const int at = *start + tap;
    const double scaled = at >= begin && at < end ? exact(at) / total * 4194304.0 : 0.0;
    weights[tap] = static_cast<int>(scaled + 0.5);
  }
}

// The windows of both axes; the table of columns is mirrored if the view is.
DEVICE void fill_windows(const View& view) {
  const int side = view.side;
  for (int item = static_cast<int>(threadIdx.x); item < 2 * side; item += static_cast<int>(blockDim.x)) {
    const bool columns = item < side;
    const int place = columns ? item : item - side;
    const int output = columns && view.words[VIEW_FLIP] ? side - 1 - place : place;
    const int taps = columns ? view.columns.taps : view.rows.taps;
    int* starts = columns ? view.columns.starts : view.rows.starts;
    int* weights = columns ? view.columns.weights : view.rows.weights;
    fill_window(view.words[columns ? VIEW_WIDTH : VIEW_HEIGHT], side, taps, output, starts + place,
                weights + place * taps);
  }
}

// An output of an axis: a weighted sum of its window's levels, which are `stride` bytes apart; `levels` is the axis' first.
DEVICE unsigned char resampled(const Axis& axis, int output, const unsigned char* levels, long long stride) {
  levels += axis.starts[output] * stride;
  const int* weights = axis.weights + output * axis.taps;
  int sum = 1 << (WEIGHT_BITS - 1);
  for (int tap = 0; tap < axis.taps; ++tap) sum += static_cast<int>(levels[tap * stride]) * weights[tap];
  return clipped(sum);
}

// The first pass, from the crop of an image whose rows are `stride` bytes: to `between`, [side, width, 3] where the height
// is shortened first, else [needed_rows, side, 3].
DEVICE void first_pass(const View& view, const unsigned char* crop, long long stride) {
  const bool vertical = view.words[VIEW_VERTICAL_FIRST];
  const int across = vertical ? 3 * view.words[VIEW_WIDTH] : 3 * view.side;
  const int items = across * (vertical ? view.side : view.needed_rows);
  for (int item = static_cast<int>(threadIdx.x); item < items; item += static_cast<int>(blockDim.x)) {
    const int y = item / across, x = item % across;
    view.between[item] = vertical ? resampled(view.rows, y, crop + x, stride)
                                  : resampled(view.columns, x / 3, crop + (view.first_row + y) * stride + x % 3, 3);
  }
}

// The second pass of one channel of one pixel.
DEVICE unsigned char second_pass(const View& view, int y, int x, int channel) {
  const unsigned char* between = view.between + channel;
  if (view.words[VIEW_VERTICAL_FIRST]) return resampled(view.columns, x, between + 3 * y * view.words[VIEW_WIDTH], 3);
  // Its first row is the first that is needed.
  const int stride = 3 * view.side;
  return resampled(view.rows, y, between + 3 * x - view.first_row * stride, stride);
}

struct Pixel {
  unsigned char red, green, blue;
};

DEVICE unsigned char luma(const Pixel& p) {
  return static_cast<unsigned char>((p.red * 19595u + p.green * 38470u + p.blue * 7471u + 0x8000u) >> 16);
}

DEVICE unsigned char blended(float background, unsigned char level, float factor) {
  return truncated(background + factor * (static_cast<float>(level) - background));
}

// The 8-bit hue at so many sixths of a turn from red; float64, rounded once to float32.
DEVICE int hue_of(float sixths) {
  const double turns = static_cast<double>(sixths) * (1.0 / 6.0) + 1.0;
  const float within = static_cast<float>(turns >= 1.0 ? turns - 1.0 : turns);
  return static_cast<int>(static_cast<double>(within) * 255.0);
}

DEVICE unsigned char nearest(int numerator, float reciprocal) {
  return truncated(static_cast<float>(numerator) * reciprocal + 0.5f);
}

DEVICE Pixel turned(const Pixel& p, int steps) {
  const int r = p.red, g = p.green, b = p.blue;
  const int max = r > g ? (r > b ? r : b) : (g > b ? g : b), min = r < g ? (r < b ? r : b) : (g < b ? g : b);
  const int middle = r + g + b - max - min;
  const float range = static_cast<float>(max - min > 1 ? max - min : 1), top = static_cast<float>(max > 1 ? max : 1);
  const float step = static_cast<float>(max - middle) / range;
  // Red wins ties, then green.
  const float sixths = r == max   ? (b == min ? 1.0f - step : step - 1.0f)
                       : g == max ? (r == min ? 3.0f - step : 1.0f + step)
                       : r == min ? 3.0f + step
                                  : 5.0f - step;
  const int hue = (hue_of(sixths) + steps) & 255;
  const int saturation = truncated(static_cast<float>(max - min) / top * 255.0f);

  const int whole = (2 * hue * 772) >> 16;
  const int along = 2 * hue - 85 * whole;
  const int sector = whole == 6 ? 0 : whole;
  const unsigned char low = nearest(max * (255 - saturation), 1.0f / 255.0f);
  const int distance = sector & 1 ? along : 85 - along;
  const unsigned char between = nearest(max * (255 * 85 - saturation * distance), 1.0f / (255.0f * 85.0f));
  const unsigned char high = static_cast<unsigned char>(max);
  auto pick = [&](int high_a, int high_b, int between_a, int between_b) {
    return sector == high_a || sector == high_b         ? high
           : sector == between_a || sector == between_b ? between
                                                        : low;
  };
  return {pick(0, 5, 1, 4), pick(1, 2, 0, 3), pick(3, 4, 2, 5)};
}

// Calls `each` for the thread's own pixels, always the same ones, and keeps what it makes of them.
template <class Each>
DEVICE void pixels(const View& view, Each each) {
  const int area = view.side * view.side;
  unsigned char* planes = view.planes;
  for (int at = static_cast<int>(threadIdx.x); at < area; at += static_cast<int>(blockDim.x)) {
    const Pixel made = each(Pixel{planes[at], planes[area + at], planes[2 * area + at]});
    planes[at] = made.red;
    planes[area + at] = made.green;
    planes[2 * area + at] = made.blue;
  }
}

// The mean grey level, rounded, for every thread.
DEVICE float mean_luma(const View& view) {
  const int area = view.side * view.side, thread = static_cast<int>(threadIdx.x);
  unsigned long long own = 0;
  for (int at = thread; at < area; at += static_cast<int>(blockDim.x)) {
    own += luma({view.planes[at], view.planes[area + at], view.planes[2 * area + at]});
  }
  view.sums[thread] = own;
  SYNCHRONISE();
  for (int half = static_cast<int>(blockDim.x) / 2; half > 0; half /= 2) {
    if (thread < half) view.sums[thread] += view.sums[thread + half];
    SYNCHRONISE();
  }
  const double mean = static_cast<double>(view.sums[0]) / static_cast<double>(area) + 0.5;
  return static_cast<float>(static_cast<int>(mean));
}

DEVICE void change_colors(const View& view) {
  for (int place = 0; place < 4; ++place) {
    const int operation = view.words[VIEW_ORDER + place];
    if (operation == 1) {
      const float factor = view.number(VIEW_BRIGHTNESS);
      auto one = [&](unsigned char level) { return truncated(static_cast<float>(level) * factor); };
      pixels(view, [&](const Pixel& p) { return Pixel{one(p.red), one(p.green), one(p.blue)}; });
    } else if (operation == 2) {
      const float mean = mean_luma(view), factor = view.number(VIEW_CONTRAST);
      auto one = [&](unsigned char level) { return blended(mean, level, factor); };
      pixels(view, [&](const Pixel& p) { return Pixel{one(p.red), one(p.green), one(p.blue)}; });
    } else if (operation == 3) {
      const float factor = view.number(VIEW_SATURATION);
      pixels(view, [&](const Pixel& p) {
        const float grey = static_cast<float>(luma(p));
        return Pixel{blended(grey, p.red, factor), blended(grey, p.green, factor), blended(grey, p.blue, factor)};
      });
    } else if (operation == 4) {
      const int steps = view.words[VIEW_HUE];
      pixels(view, [&](const Pixel& p) { return turned(p, steps); });
    }
  }
  if (view.words[VIEW_GRAYSCALE]) {
    pixels(view, [&](const Pixel& p) { return Pixel{luma(p), luma(p), luma(p)}; });
  }
}

// Index of the pixel that stands at `index` when the edges of 0..side are mirrors.
DEVICE int mirrored(int index, int side) {
  if (index >= 0 && index < side) return index;
  if (side == 1) return 0;
  const int period = 2 * (side - 1);
  const int place = (index % period + period) % period;
  return place < period - place ? place : period - place;
}

// The kernel over what `level` gives at an offset, in the CPU engine's order.
template <class Level>
DEVICE float convolved(const View& view, Level level) {
  float sum = view.number(VIEW_WORDS) * level(0);
  for (int offset = 1; offset < view.words[VIEW_BLUR]; ++offset) {
    sum += view.number(VIEW_WORDS + offset) * (level(-offset) + level(offset));
  }
  return sum;
}

DEVICE void blur(const View& view, unsigned char* plane) {
  const int side = view.side, area = side * side;
  for (int at = static_cast<int>(threadIdx.x); at < area; at += static_cast<int>(blockDim.x)) {
    const int y = at / side, x = at % side;
    const unsigned char* row = plane + y * side;
    view.blurred[at] = convolved(view, [&](int offset) { return static_cast<float>(row[mirrored(x + offset, side)]); });
  }
  SYNCHRONISE();
  for (int at = static_cast<int>(threadIdx.x); at < area; at += static_cast<int>(blockDim.x)) {
    const int y = at / side, x = at % side;
    const float level = convolved(view, [&](int offset) { return view.blurred[mirrored(y + offset, side) * side + x]; });
    // At 1.5 * 2^23 float32 holds integers only, so the addition rounds, half to even.
    plane[at] = truncated((level + 12582912.0f) - 12582912.0f);
  }
}

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
    const int planes = view.words[VIEW_GRAYSCALE] ? 1 : 3;  // Grey: one stands for all.
    if (view.words[VIEW_BLUR]) {
      for (int plane = 0; plane < planes; ++plane) {
        SYNCHRONISE();
        blur(view, view.planes + plane * area);
      }
    }
    SYNCHRONISE();
    unsigned char* made = out + static_cast<long long>(number) * 3 * area;
    for (int at = thread; at < 3 * area; at += threads) {
      made[at] = view.planes[planes == 1 ? at / 3 : at % 3 * area + at / 3];
    }
  }
}
