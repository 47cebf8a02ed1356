// Brightness, contrast, saturation, hue and greyscale with the bits of color.rs and hue.rs, by the threads of a block.

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
