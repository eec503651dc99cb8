// upfirdn2d on the GPU. The filters and factors of StyleGAN2 go through shared memory in one pass, each pixel loaded
// once per tile; everything else takes the general kernel.
#include <algorithm>

#include "fir_nchw.h"
#include "fir_nhwc.h"

namespace mmif {
namespace {

constexpr int kThreads = 256;

template <typename T>
struct PlainStore {
  Vec<T, kVector<T>>* out;
  int rows, cols, vectors;

  struct Row {
    Vec<T, kVector<T>>* pixels;
    int vectors;

    __device__ __forceinline__ void operator()(int x, const Acc<T> (&values)[kVector<T>]) const {
      Vec<T, kVector<T>> pixel;
#pragma unroll
      for (int v = 0; v < kVector<T>; ++v) pixel.v[v] = from_acc<T>(values[v]);
      pixels[x * vectors] = pixel;
    }
  };
  __device__ __forceinline__ Row row(int n, int y, int vector) const {
    return {out + ((int64_t{n} * rows + y) * cols * vectors + vector), vectors};
  }
};

// Any filter, factors and strides. One output per thread and turn, neighbours in memory next to each other; only taps
// on pixels that exist are looked at. No shared memory. Index: 32 bits where all positions fit, for their division.
template <typename T, typename Index>
__global__ void __launch_bounds__(kThreads) upfirdn2d_general_kernel(Upfirdn2dParams p, Index total) {
  using A = Acc<T>;
  const T* x = static_cast<const T*>(p.x);
  T* out = static_cast<T*>(p.out);
  const auto channels = static_cast<Index>(p.c), height = static_cast<Index>(p.rows.out),
             width = static_cast<Index>(p.cols.out);
  for (Index i = Index{blockIdx.x} * kThreads + threadIdx.x; i < total; i += Index{gridDim.x} * kThreads) {
    Index rest = p.channels_last ? i / channels : i;
    const Index ox = rest % width;
    rest /= width;
    const Index oy = rest % height;
    rest /= height;
    const Index c = p.channels_last ? i % channels : rest % channels;
    const Index n = p.channels_last ? rest : rest / channels;

    const Inside down = inside(p.rows, static_cast<int>(oy)), across = inside(p.cols, static_cast<int>(ox));
    const T* first = x + static_cast<int64_t>(n) * p.x_strides[0] + static_cast<int64_t>(c) * p.x_strides[1] +
                     down.input * p.x_strides[2] + across.input * p.x_strides[3];
    const float* f = p.f + across.tap * p.f_strides[1] + (p.separable ? 0 : down.tap * p.f_strides[0]);
    A sum = 0;
    for (int k = 0; k < down.count; ++k) {
      const T* pixel = first + k * p.x_strides[2];
      const float* tap = p.separable ? f : f + k * p.rows.up * p.f_strides[0];
      A row = 0;
      for (int j = 0; j < across.count; ++j)
        row += static_cast<A>(tap[j * p.cols.up * p.f_strides[1]]) * to_acc(pixel[j * p.x_strides[3]]);
      sum += p.separable ? row * static_cast<A>(p.f[(down.tap + k * p.rows.up) * p.f_strides[0]]) : row;
    }
    out[i] = from_acc<T>(sum * static_cast<A>(p.gain));
  }
}

template <typename T>
int launch_general(const Upfirdn2dParams& p, void* stream) {
  const int64_t total = p.n * p.c * p.rows.out * p.cols.out;
  const auto blocks = static_cast<unsigned>(std::min<int64_t>((total + kThreads - 1) / kThreads, 1 << 20));
  if (total < (int64_t{1} << 31)) {
    return MMIF_LAUNCH((upfirdn2d_general_kernel<T, uint32_t>), dim3(blocks), dim3(kThreads), stream, p,
                       static_cast<uint32_t>(total));
  }
  return MMIF_LAUNCH((upfirdn2d_general_kernel<T, int64_t>), dim3(blocks), dim3(kThreads), stream, p, total);
}

template <typename T, int UP, int DOWN>
int launch_tiled(const Upfirdn2dParams& p, void* stream) {
  constexpr int V = kVector<T>;
  using Tile = FirTile<UP, DOWN, 4>;
  using PlaneTile = FirTile<UP, DOWN, 4, 16 / DOWN>;  // one number at a time: registers for more steps
  if (fits_fir_nhwc<T, Tile>(p)) {
    const PlainStore<T> store{static_cast<Vec<T, V>*>(p.out), p.rows.out, p.cols.out, static_cast<int>(p.c / V)};
    return launch_fir_nhwc<T, Tile>(p, store, stream);
  }
  return fits_fir_nchw<PlaneTile>(p) ? launch_fir_nchw<T, PlaneTile>(p, stream) : launch_general<T>(p, stream);
}

template <typename T>
int launch(const Upfirdn2dParams& p, void* stream) {
  const int up = p.rows.up, down = p.rows.down;
  if (p.separable && p.rows.taps == 4 && p.cols.up == up && p.cols.down == down) {
    if (up == 1 && down == 1) return launch_tiled<T, 1, 1>(p, stream);
    if (up == 2 && down == 1) return launch_tiled<T, 2, 1>(p, stream);
    if (up == 1 && down == 2) return launch_tiled<T, 1, 2>(p, stream);
  }
  return launch_general<T>(p, stream);
}

}  // namespace

int launch_upfirdn2d(const Upfirdn2dParams& p, DType dtype, void* stream) {
  return dispatch(dtype, [&](auto tag) { return launch<decltype(tag)>(p, stream); });
}

}  // namespace mmif
