// Pillow's two passes of resampling with the bits of resample.rs and filter.rs, by the threads of a block.

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
