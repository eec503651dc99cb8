// Separable FIR filter on channels_last tensors, with whatever is to happen to its output in the same kernel.
//
// That is `Store`: on the device, store.row(n, y, vector) returns what is called as put(x, values) for the outputs of
// that row and vector of channels, Tile::kSteps for each thread and all inside of the image. `values` is an array of
// kVector<T> numbers of type Acc<T>, gain included. What depends on the row and the channels alone is loaded in row().
#pragma once

#include "fir.h"

namespace mmif {

// A tile: `lanes` vectors of channels x (Tile::kColumns / lanes) columns x Tile::kSteps rows. Lanes are a power of two,
// at most Tile::kStrips: narrow tensors have wide tiles, so that no thread idles.
struct FirNhwcGrid {
  int vectors, lanes_log2;
  Divisor groups, tiles_x, tiles_y;  // of a block's index, the fastest first
  int64_t blocks;

  template <typename Tile>
  static FirNhwcGrid of(const Upfirdn2dParams& p, int vector_size) {
    FirNhwcGrid g;
    g.vectors = static_cast<int>(p.c / vector_size);
    g.lanes_log2 = 0;
    while ((1 << g.lanes_log2) < Tile::kStrips && (1 << g.lanes_log2) < g.vectors) ++g.lanes_log2;
    const int groups = ceil_div(g.vectors, 1 << g.lanes_log2);
    const int tiles_x = ceil_div(p.cols.out, Tile::kColumns >> g.lanes_log2);
    const int tiles_y = ceil_div(p.rows.out, Tile::kSteps);
    g.groups = Divisor(groups);
    g.tiles_x = Divisor(tiles_x);
    g.tiles_y = Divisor(tiles_y);
    g.blocks = p.n * tiles_y * tiles_x * groups;
    return g;
  }
};

// The sums along y of one tile, as 16-byte pieces: [piece][row][column][lane], so that neighbouring threads access
// neighbouring pieces.
template <typename T, typename Tile>
struct FirSums {
  static constexpr int kWide = 16 / sizeof(Acc<T>), kPieces = kVector<T> / kWide;
  static constexpr int kSize = Tile::kSteps * (Tile::kPixelColumns + Tile::kStrips);
  using Piece = Vec<Acc<T>, kWide>;

  Piece* pieces;

  __device__ __forceinline__ void put(int index, const Acc<T> (&values)[kVector<T>]) const {
#pragma unroll
    for (int v = 0; v < kVector<T>; ++v) pieces[v / kWide * kSize + index].v[v % kWide] = values[v];
  }
  __device__ __forceinline__ void get(int index, Acc<T> (&values)[kVector<T>]) const {
#pragma unroll
    for (int v = 0; v < kVector<T>; ++v) values[v] = pieces[v / kWide * kSize + index].v[v % kWide];
  }
};

// First pass: thread (column of pixels, lane). Second pass: thread (row, Tile::kSteps columns of outputs, lane).
template <typename T, typename Tile, typename Store>
__global__ void __launch_bounds__(Tile::kThreads)
    fir_nhwc_kernel(Upfirdn2dParams p, FirNhwcGrid g, Acc<T> gain, Store store) {
  using A = Acc<T>;
  using Pixel = Vec<T, kVector<T>>;
  using Sums = FirSums<T, Tile>;
  constexpr int V = kVector<T>, kSteps = Tile::kSteps;
  __shared__ typename Sums::Piece pieces[Sums::kPieces * Sums::kSize];
  const Sums sums{pieces};

  const uint32_t strip = g.groups.quotient(blockIdx.x), band = g.tiles_x.quotient(strip);
  const auto n = static_cast<int>(g.tiles_y.quotient(band));
  const int lanes = 1 << g.lanes_log2, columns = Tile::kColumns >> g.lanes_log2;
  const int lane = threadIdx.x & (lanes - 1), place = threadIdx.x >> g.lanes_log2;
  const int vector = static_cast<int>(g.groups.remainder(blockIdx.x)) * lanes + lane;
  const int x0 = static_cast<int>(g.tiles_x.remainder(strip)) * columns;
  const int y0 = static_cast<int>(g.tiles_y.remainder(band)) * kSteps;
  const Window left = window_at(x0 * Tile::kDown - p.cols.pad, Tile::kUp);
  const Window top = window_at(y0 * Tile::kDown - p.rows.pad, Tile::kUp);
  // Odd, so that rows begin at different banks: in the second pass neighbouring threads are on different rows.
  const int pixel_columns = Tile::span(columns), pitch = (pixel_columns | 1) * lanes;

  if (place < pixel_columns && vector < g.vectors) {
    const int x = left.input + place;
    const int64_t stride = int64_t{p.cols.in} * g.vectors;
    const auto* pixel = static_cast<const Pixel*>(p.x) + (int64_t{n} * p.rows.in + top.input) * stride +
                        int64_t{x} * g.vectors + vector;
    Pixel pixels[Tile::kReads];
#pragma unroll
    for (int i = 0; i < Tile::kReads; ++i) {
      const bool exists = is_inside(x, p.cols) && is_inside(top.input + i, p.rows);
      pixels[i] = *(exists ? pixel : reinterpret_cast<const Pixel*>(&zero_pixel));
      pixel += stride;
    }
    A taps[Tile::kTaps];
    read_taps(p.f, p.f_strides[0], taps);
    with_tap<Tile>(top.tap, [&](auto tap) {
      march<Tile, decltype(tap)::value, V>(
          taps,
          [&](int i, A(&values)[V]) {
#pragma unroll
            for (int v = 0; v < V; ++v) values[v] = to_acc(pixels[i].v[v]);
          },
          [&](int s, const A(&values)[V]) { sums.put(s * pitch + static_cast<int>(threadIdx.x), values); });
    });
  }
  __syncthreads();

  const int row = place % kSteps, first = place / kSteps * kSteps;  // first column of outputs
  if (threadIdx.x >= Tile::kColumns || vector >= g.vectors || y0 + row >= p.rows.out) return;
  A taps[Tile::kTaps];
  read_taps(p.f, p.f_strides[1], taps);
  const auto put = store.row(n, y0 + row, vector);
  const int line = row * pitch + (first * Tile::kDown / Tile::kUp) * lanes + lane;
  with_tap<Tile>(left.tap, [&](auto tap) {
    march<Tile, decltype(tap)::value, V>(
        taps, [&](int i, A(&values)[V]) { sums.get(line + i * lanes, values); },
        [&](int s, A(&values)[V]) {
          const int x = x0 + first + s;
          if (x >= p.cols.out) return;
#pragma unroll
          for (int v = 0; v < V; ++v) values[v] *= gain;
          put(x, values);
        });
  });
}

// True if fir_nhwc_kernel can run: what its launch takes for granted.
template <typename T, typename Tile>
bool fits_fir_nhwc(const Upfirdn2dParams& p) {
  constexpr int V = kVector<T>;
  return p.channels_last && p.c % V == 0 && aligned16(p.x) && aligned16(p.out) &&
         p.cols.out * (p.c / V) <= kMaxBlocks && FirNhwcGrid::of<Tile>(p, V).blocks <= kMaxBlocks;
}

template <typename T, typename Tile, typename Store>
int launch_fir_nhwc(const Upfirdn2dParams& p, const Store& store, void* stream) {
  const auto g = FirNhwcGrid::of<Tile>(p, kVector<T>);
  return MMIF_LAUNCH((fir_nhwc_kernel<T, Tile, Store>), dim3(static_cast<unsigned>(g.blocks)), dim3(Tile::kThreads),
                     stream, p, g, static_cast<Acc<T>>(p.gain), store);
}

}  // namespace mmif
