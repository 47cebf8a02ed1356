// What a view is, as 32-bit words, and where its working memory lies: for the host and for the kernel.

#ifndef FLATNCE_VIEW_LAYOUT
#define FLATNCE_VIEW_LAYOUT

// A view's words; the numbers of its operations, float32, follow. Mirrored in augment/tensor/packed.rs.
enum ViewWord {
  VIEW_TOP,
  VIEW_LEFT,
  VIEW_HEIGHT,
  VIEW_WIDTH,
  VIEW_FLIP,
  VIEW_VERTICAL_FIRST,
  // Operations in their order, three words each: which (view_color.cuh; 0 after the last), the word where its numbers
  // begin, and how many there are.
  VIEW_STEPS,
  VIEW_WORDS = VIEW_STEPS + 3 * 8
};

#ifdef DEVICE
#define VIEW_FUNCTION DEVICE
#else
#define VIEW_FUNCTION inline
#endif

// Offsets in bytes into the working memory of a view of `side` pixels a side, from an image of `height` x `width`.
struct ViewLayout {
  int sums;                            // u64, one a thread
  int starts[2], weights[2];           // i32: columns and rows; [side], [side, taps]
  int between;                         // u8: the image between the passes
  int blurred;                         // f32 [side, side]; where tables and `between` were
  int planes;                          // u8 [3, side, side]
  int bytes;
};

constexpr int VIEW_MOST_THREADS = 1024;

// Taps of the longest window on an axis of which at most `length` pixels become `side`.
VIEW_FUNCTION int most_taps(int length, int side) {
  const int taps = length > side ? (2 * length + side - 1) / side : 2;
  return taps < length ? taps : length;
}

VIEW_FUNCTION ViewLayout view_layout(int side, int height, int width) {
  ViewLayout layout;
  layout.sums = 0;
  const int shared = 8 * VIEW_MOST_THREADS;
  int at = shared;
  for (int axis = 0; axis < 2; ++axis) {
    layout.starts[axis] = at;
    at += 4 * side;
    layout.weights[axis] = at;
    at += 4 * side * most_taps(axis == 0 ? width : height, side);
  }
  layout.between = at;
  at += 3 * side * (height > width ? height : width);
  layout.blurred = shared;
  const int after_blur = shared + 4 * side * side;
  layout.planes = at > after_blur ? at : after_blur;
  layout.bytes = (layout.planes + 3 * side * side + 15) / 16 * 16;
  return layout;
}

#endif
