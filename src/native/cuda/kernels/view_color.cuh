// Brightness, contrast, saturation, hue, greyscale and blur with the bits of color.rs, hue.rs and blur.rs, by the threads
// of a block.

// The numbers of the operation at `place` of a view's words. They are looked up there each time: what is carried along
// takes registers, which are scarce.
struct Step {
  const int* words;
  int place;

  DEVICE int count() const { return words[place + 2]; }
  DEVICE float number(int at) const { return __uint_as_float(static_cast<unsigned int>(words[words[place + 1] + at])); }
};

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
DEVICE float convolved(const Step& step, Level level) {
  float sum = step.number(0) * level(0);
  for (int offset = 1; offset < step.count(); ++offset) {
    sum += step.number(offset) * (level(-offset) + level(offset));
  }
  return sum;
}

// Blurs a plane; the step's numbers are the centre and one side of the kernel.
DEVICE void blur(const View& view, const Step& step, unsigned char* plane) {
  const int side = view.side, area = side * side;
  for (int at = static_cast<int>(threadIdx.x); at < area; at += static_cast<int>(blockDim.x)) {
    const int y = at / side, x = at % side;
    const unsigned char* row = plane + y * side;
    view.blurred[at] = convolved(step, [&](int offset) { return static_cast<float>(row[mirrored(x + offset, side)]); });
  }
  SYNCHRONISE();
  for (int at = static_cast<int>(threadIdx.x); at < area; at += static_cast<int>(blockDim.x)) {
    const int y = at / side, x = at % side;
    const float level = convolved(step, [&](int offset) { return view.blurred[mirrored(y + offset, side) * side + x]; });
    // At 1.5 * 2^23 float32 holds integers only, so the addition rounds, half to even.
    plane[at] = truncated((level + 12582912.0f) - 12582912.0f);
  }
}

// How many planes hold the view before the operation at `place`: after greyscale the first stands for all. Looked up, not
// carried along: a register less where they are scarce.
DEVICE int planes_before(const View& view, int place) {
  for (int before = VIEW_STEPS; before < place && view.words[before]; before += 3) {
    if (view.words[before] == 5) return 1;
  }
  return 3;
}

// All operations of a view, in their order; which has which number is in augment (`JitterOp`, `Op::code`).
DEVICE void change_colors(const View& view) {
  for (int place = VIEW_STEPS; place < VIEW_WORDS && view.words[place]; place += 3) {
    const Step step = {view.words, place};
    switch (view.words[place]) {
      case 1: {  // brightness
        const float factor = step.number(0);
        auto one = [&](unsigned char level) { return truncated(static_cast<float>(level) * factor); };
        pixels(view, [&](const Pixel& p) { return Pixel{one(p.red), one(p.green), one(p.blue)}; });
        break;
      }
      case 2: {  // contrast
        const float mean = mean_luma(view), factor = step.number(0);
        auto one = [&](unsigned char level) { return blended(mean, level, factor); };
        pixels(view, [&](const Pixel& p) { return Pixel{one(p.red), one(p.green), one(p.blue)}; });
        break;
      }
      case 3: {  // saturation
        const float factor = step.number(0);
        pixels(view, [&](const Pixel& p) {
          const float grey = static_cast<float>(luma(p));
          return Pixel{blended(grey, p.red, factor), blended(grey, p.green, factor), blended(grey, p.blue, factor)};
        });
        break;
      }
      case 4: {  // hue, in 255ths of a turn
        const int steps = static_cast<int>(step.number(0));
        pixels(view, [&](const Pixel& p) { return turned(p, steps); });
        break;
      }
      case 5:  // greyscale
        pixels(view, [&](const Pixel& p) { return Pixel{luma(p), luma(p), luma(p)}; });
        break;
      case 6:  // blur
        for (int plane = planes_before(view, place) - 1; plane >= 0; --plane) {
          SYNCHRONISE();
          blur(view, step, view.planes + plane * view.side * view.side);
        }
        break;
    }
  }
}
