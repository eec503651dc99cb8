// Separable FIR filter on planes: NCHW tensors, of which only the rows need be dense.
#pragma once

#include "fir.h"

namespace mmif {

// A tile: `bands` bands of Tile::kSteps rows, each of (Tile::kColumns / bands) columns. Bands are a power of two, from
// 2 to Tile::kStrips: narrow planes have narrow tiles.
struct FirNchwGrid {
  int bands_log2;
  Divisor pixel_columns;               // of a thread's index
  Divisor tiles_x, tiles_y, channels;  // of a block's index, the fastest first
  int64_t blocks;

  template <typename Tile>
  static FirNchwGrid of(const Upfirdn2dParams& p) {
    FirNchwGrid g;
    g.bands_log2 = 1;
    while ((1 << g.bands_log2) < Tile::kStrips && (Tile::kColumns >> (g.bands_log2 + 1)) >= p.cols.out) ++g.bands_log2;
    const int columns = Tile::kColumns >> g.bands_log2;
    const int tiles_x = ceil_div(p.cols.out, columns), tiles_y = ceil_div(p.rows.out, Tile::kSteps << g.bands_log2);
    g.pixel_columns = Divisor(Tile::span(columns));
    g.tiles_x = Divisor(tiles_x);
    g.tiles_y = Divisor(tiles_y);
    g.channels = Divisor(static_cast<uint32_t>(p.c));
    g.blocks = p.n * p.c * tiles_y * tiles_x;
    return g;
  }
};

// First pass: thread (band, column of pixels). Second pass: thread (band, column of outputs). Shared memory: the sums
// along y, [row][column of pixels].
template <typename T, typename Tile>
__global__ void __launch_bounds__(Tile::kThreads) fir_nchw_kernel(Upfirdn2dParams p, FirNchwGrid g, Acc<T> gain) {
  using A = Acc<T>;
  constexpr int kSteps = Tile::kSteps;
  __shared__ A sums[kSteps * Tile::kPixelColumns];

  const uint32_t strip = g.tiles_x.quotient(blockIdx.x), plane = g.tiles_y.quotient(strip);
  const int bands = 1 << g.bands_log2, columns = Tile::kColumns >> g.bands_log2, pitch = Tile::span(columns);
  const int x0 = static_cast<int>(g.tiles_x.remainder(blockIdx.x)) * columns;
  const int y0 = static_cast<int>(g.tiles_y.remainder(strip)) * bands * kSteps;
  const Window left = window_at(x0 * Tile::kDown - p.cols.pad, Tile::kUp);
  const Window top = window_at(y0 * Tile::kDown - p.rows.pad, Tile::kUp);

  if (const int band = g.pixel_columns.quotient(threadIdx.x); band < bands) {
    const int column = static_cast<int>(threadIdx.x) - band * pitch;
    const int x = left.input + column, first = top.input + band * (kSteps * Tile::kDown / Tile::kUp);
    const T* pixel = static_cast<const T*>(p.x) + g.channels.quotient(plane) * p.x_strides[0] +
                     g.channels.remainder(plane) * p.x_strides[1] + first * p.x_strides[2] + x;
    T pixels[Tile::kReads];
#pragma unroll
    for (int i = 0; i < Tile::kReads; ++i) {
      const bool exists = is_inside(x, p.cols) && is_inside(first + i, p.rows);
      pixels[i] = *(exists ? pixel : reinterpret_cast<const T*>(&zero_pixel));
      pixel += p.x_strides[2];
    }
    A taps[Tile::kTaps];
    read_taps(p.f, p.f_strides[0], taps);
    A* out = sums + band * kSteps * pitch + column;
    with_tap<Tile>(top.tap, [&](auto tap) {
      march<Tile, decltype(tap)::value, 1>(
          taps, [&](int i, A(&values)[1]) { values[0] = to_acc(pixels[i]); },
          [&](int s, const A(&values)[1]) { out[s * pitch] = values[0]; });
    });
  }
  __syncthreads();

  const int column = threadIdx.x & (columns - 1), row = static_cast<int>(threadIdx.x / columns) * kSteps;
  const int x = x0 + column, rows = p.rows.out - y0 - row;
  if (threadIdx.x >= Tile::kColumns || x >= p.cols.out) return;
  const Window w = Tile::after(column, left.tap);
  A taps[Tile::kHits];
#pragma unroll
  for (int k = 0; k < Tile::kHits; ++k) taps[k] = p.f[(w.tap + k * Tile::kUp) * p.f_strides[1]];
  const A* line = sums + row * pitch + w.input;
  T* out = static_cast<T*>(p.out) + (int64_t{plane} * p.rows.out + y0 + row) * p.cols.out + x;
#pragma unroll
  for (int s = 0; s < kSteps; ++s) {
    if (s >= rows) return;
    A sum = 0;
#pragma unroll
    for (int k = 0; k < Tile::kHits; ++k) sum += taps[k] * line[s * pitch + k];
    out[int64_t{s} * p.cols.out] = from_acc<T>(sum * gain);
  }
}

// True if fir_nchw_kernel can run: what its launch takes for granted.
template <typename Tile>
bool fits_fir_nchw(const Upfirdn2dParams& p) {
  const bool dense_rows = p.x_strides[3] == 1 || p.cols.in <= 1;
  return !p.channels_last && dense_rows && p.c <= kMaxBlocks && FirNchwGrid::of<Tile>(p).blocks <= kMaxBlocks;
}

template <typename T, typename Tile>
int launch_fir_nchw(const Upfirdn2dParams& p, void* stream) {
  const auto g = FirNchwGrid::of<Tile>(p);
  return MMIF_LAUNCH((fir_nchw_kernel<T, Tile>), dim3(static_cast<unsigned>(g.blocks)), dim3(Tile::kThreads), stream, p,
                     g, static_cast<Acc<T>>(p.gain));
}

}  // namespace mmif
