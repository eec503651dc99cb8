// Launcher of upfirdn2d, and the index arithmetic that the kernels and the CPU body share.
#pragma once

#include "host_device.h"
#include "params.h"

namespace mmif {

// One axis of the resampling. All numbers are below 2^30 in magnitude, and so is the padded, upsampled size.
struct Axis {
  int in, out;  // pixels
  int up, down;
  int pad;  // zeros before the first pixel, after upsampling; a negative one crops
  int taps;
};

// Where the filter lies for one output: its tap `tap` on pixel `input`, tap + up on input + 1, and so on.
struct Window {
  int input, tap;
};

MMIF_HD int ceil_div(int a, int b) { return a / b + (a % b > 0); }

// `position`: pixel of the upsampled image, may be outside of it, on which the window's tap 0 lies.
MMIF_HD Window window_at(int position, int up) {
  const int input = ceil_div(position, up);
  return {input, input * up - position};
}
MMIF_HD Window window_of(const Axis& axis, int output) { return window_at(output * axis.down - axis.pad, axis.up); }

// Taps of a window that hit a pixel.
MMIF_HD int hits(const Axis& axis, Window w) { return w.tap < axis.taps ? ceil_div(axis.taps - w.tap, axis.up) : 0; }

// The same for those pixels that exist: the window without its part outside of the image, and their number.
struct Inside {
  int input, tap, count;
};
MMIF_HD Inside inside(const Axis& axis, int output) {
  const Window w = window_of(axis, output);
  const int skipped = w.input < 0 ? -w.input : 0;
  const int input = w.input + skipped, count = hits(axis, w) - skipped, left = axis.in - input;
  return {input, w.tap + skipped * axis.up, count < left ? count : left};
}

struct Upfirdn2dParams {
  const void* x;  // [n, c, rows.in, cols.in]
  // Tap (0, 0) of the window. Tap (i, j) is f[i * f_strides[0] + j * f_strides[1]], of a separable filter
  // f[i * f_strides[0]] * f[j * f_strides[1]]; strides are negative where the filter is to be turned round.
  const float* f;
  void* out;  // [n, c, rows.out, cols.out], dense in the memory format that channels_last says
  int64_t n, c;
  Axis rows, cols;
  int64_t x_strides[4];  // elements; with channels_last x is dense as well
  int64_t f_strides[2];
  bool separable, channels_last;
  double gain;
};

int launch_upfirdn2d(const Upfirdn2dParams& p, DType dtype, void* stream);

}  // namespace mmif
