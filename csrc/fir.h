// What the tiled kernels of a separable filter share, whatever their layout.
//
// A block makes one tile of outputs in two passes with one barrier between them. First a thread walks down a column of
// pixels, read straight from the tensor, and leaves the column's sums along y in shared memory; then threads filter
// these along x. So every pixel is read and converted once per tile, and only sums lie in shared memory.
#pragma once

#include <type_traits>

#include "dtype.h"
#include "upfirdn2d.h"

namespace mmif {

constexpr int64_t kMaxBlocks = (int64_t{1} << 31) - 1;  // of a grid along x

// STEPS: outputs of one march().
template <int UP, int DOWN, int TAPS, int STEPS = DOWN == 1 ? 8 : 4>
struct FirTile {
  static_assert(UP <= 2 && TAPS % UP == 0 && (UP == 1 || DOWN == 1), "a case that march() does not know");
  static constexpr int kUp = UP, kDown = DOWN, kTaps = TAPS, kSteps = STEPS;
  static constexpr int kHits = TAPS / UP;  // taps of a window that hit a pixel
  // Columns of outputs in a tile: all side by side, or in up to kStrips strips (lanes of channels, bands of rows).
  static constexpr int kColumns = 128, kStrips = 8;

  // Pixels under `outputs` neighbouring windows, at most.
  MMIF_HD static constexpr int span(int outputs) { return ((outputs - 1) * DOWN + UP - 1) / UP + kHits; }
  static constexpr int kReads = span(kSteps);

  // The window `outputs` after one with tap `tap`; its input counts from that one's.
  MMIF_HD static constexpr Window after(int outputs, int tap) {
    const int input = (outputs * DOWN + UP - 1 - tap) / UP;
    return {input, input * UP - outputs * DOWN + tap};
  }

  // One thread for every column of pixels, and for every column of outputs.
  static constexpr int kPixelColumns = span(kColumns / kStrips) * kStrips;
  static constexpr int kThreads = kPixelColumns > kColumns ? (kPixelColumns + 31) / 32 * 32 : kColumns;
};

// Pixels outside of the image are loaded from here: a choice of address keeps loads free of branches.
static __device__ Vec<uint32_t, 4> zero_pixel;

MMIF_HD bool is_inside(int position, const Axis& axis) {
  return static_cast<unsigned>(position) < static_cast<unsigned>(axis.in);  // negative ones are large
}

template <int TAP>
using Tap = std::integral_constant<int, TAP>;

// Calls f(Tap<tap>): with the first tap known, all indices of march() are.
template <typename Tile, typename F>
__device__ __forceinline__ void with_tap(int tap, F f) {
  if constexpr (Tile::kUp == 2) {
    if (tap == 1) return f(Tap<1>{});
  }
  f(Tap<0>{});
}

template <typename A, int TAPS>
__device__ __forceinline__ void read_taps(const float* f, int64_t stride, A (&taps)[TAPS]) {
#pragma unroll
  for (int k = 0; k < TAPS; ++k) taps[k] = f[k * stride];
}

// Filters V numbers side by side: Tile::kSteps outputs along a line, of which the first window has tap TAP.
// `read(i, values)` gives position i of the line, once each and in order; `emit(s, values)` takes output s.
template <typename Tile, int TAP, int V, typename A, typename Read, typename Emit>
__device__ __forceinline__ void march(const A (&taps)[Tile::kTaps], Read read, Emit emit) {
  A window[Tile::kHits][V];  // a ring
#pragma unroll
  for (int s = 0; s < Tile::kSteps; ++s) {
    const Window w = Tile::after(s, TAP);
    const int known = s == 0 ? 0 : Tile::after(s - 1, TAP).input + Tile::kHits;
#pragma unroll
    for (int i = known; i < w.input + Tile::kHits; ++i) read(i, window[i % Tile::kHits]);
    A values[V];
#pragma unroll
    for (int v = 0; v < V; ++v) {
      values[v] = taps[w.tap] * window[w.input % Tile::kHits][v];
#pragma unroll
      for (int k = 1; k < Tile::kHits; ++k)
        values[v] += taps[w.tap + k * Tile::kUp] * window[(w.input + k) % Tile::kHits][v];
    }
    emit(s, values);
  }
}

}  // namespace mmif
