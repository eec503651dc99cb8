// The fused epilogue on the GPU. Memory-bound: y, skip and out pass once, 16 bytes at a time; the rest sits in L1.
#include <algorithm>

#include "conv_epilogue_device.h"
#include "fir_nhwc.h"

namespace mmif {
namespace {

constexpr int kThreads = 256;

template <typename T>
__device__ void load_acc(const void* base, int64_t vector, Acc<T> (&v)[kVector<T>]) {
  const auto loaded = load<T, kVector<T>>(base, vector);
#pragma unroll
  for (int k = 0; k < kVector<T>; ++k) v[k] = to_acc(loaded.v[k]);
}

// Thread mapping: one vector of channels per thread, neighbours next to each other. No shared memory.
template <typename T>
__global__ void __launch_bounds__(kThreads)
    epilogue_kernel(Epilogue<T> epilogue, const void* y, int64_t vectors, Divisor per_pixel, Divisor per_image) {
  const int64_t i = int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (i >= vectors) return;
  Acc<T> v[kVector<T>];
  load_acc<T>(y, i, v);
  // Divisions are by constants below 2^31; only an activation of more than 2^31 vectors takes the slow ones.
  int64_t pixel, n, c;
  if (i < (int64_t{1} << 31)) {
    const auto index = static_cast<uint32_t>(i);
    const uint32_t position = per_pixel.quotient(index);
    c = index - position * per_pixel.divisor;
    n = per_image.quotient(position);
    pixel = position - n * per_image.divisor;
  } else {
    c = i % per_pixel.divisor;
    n = i / per_pixel.divisor / per_image.divisor;
    pixel = i / per_pixel.divisor % per_image.divisor;
  }
  epilogue(epilogue.read_channels(n, c * kVector<T>), n, pixel, c * kVector<T>, v);
}

// Thread mapping: `lanes` threads (a power of two, at most a warp) share a pixel and meet in a butterfly of shuffles,
// so that the sum over the channels has one order and needs no second kernel. Three blocks per multiprocessor keep
// ptxas from saving registers by spilling.
template <typename T>
__global__ void __launch_bounds__(kThreads, 3)
    epilogue_rgb_kernel(Epilogue<T> epilogue, ToRGB<Acc<T>> to_rgb, const void* y, int64_t positions, int lanes) {
  constexpr int V = kVector<T>;
  const int lane = threadIdx.x % lanes;
  const int64_t position = int64_t{blockIdx.x} * (kThreads / lanes) + threadIdx.x / lanes;
  const bool inside = position < positions;
  const int64_t n = position / epilogue.pixels, pixel = position % epilogue.pixels;
  Acc<T> sum[3] = {};
  for (int64_t c = lane * V; inside && c < epilogue.channels; c += lanes * V) {
    Acc<T> v[V];
    load_acc<T>(y, (position * epilogue.channels + c) / V, v);
    epilogue(epilogue.read_channels(n, c), n, pixel, c, v);
    to_rgb.add(n, c, v, sum);
  }
  for (int offset = lanes / 2; offset > 0; offset /= 2) {
    for (Acc<T>& s : sum) s += __shfl_xor_sync(0xffffffffu, s, offset);
  }
  if (inside && lane == 0) to_rgb.finish(n, pixel, sum);
}

// The epilogue as what happens to the output of the FIR kernel.
template <typename T>
struct EpilogueStore {
  Epilogue<T> epilogue;
  int64_t width;

  struct Row {
    const Epilogue<T>& epilogue;
    typename Epilogue<T>::Channels channels;
    int64_t n, first, c;  // first pixel of the row

    __device__ __forceinline__ void operator()(int x, Acc<T> (&values)[kVector<T>]) const {
      epilogue(channels, n, first + x, c, values);
    }
  };
  __device__ __forceinline__ Row row(int n, int y, int vector) const {
    const int64_t c = int64_t{vector} * kVector<T>;
    return {epilogue, epilogue.read_channels(n, c), n, y * width, c};
  }
};

unsigned blocks_for(int64_t items, int per_block) { return static_cast<unsigned>((items + per_block - 1) / per_block); }

// The blur behind a transposed convolution: one zero before the first pixel, one output less than inputs.
template <typename T>
int launch_fir(const EpilogueParams& p, void* stream) {
  using Tile = FirTile<1, 1, 4>;
  Upfirdn2dParams fir{};
  fir.x = p.y;
  fir.f = p.taps + 3;  // a convolution: the window's first tap is the filter's last
  fir.f_strides[0] = fir.f_strides[1] = -1;
  fir.n = p.n;
  fir.c = p.channels;
  const auto height = static_cast<int>(p.height), width = static_cast<int>(p.width);
  fir.rows = {height + 1, height, 1, 1, 1, 4};
  fir.cols = {width + 1, width, 1, 1, 1, 4};
  fir.gain = 4;
  return launch_fir_nhwc<T, Tile>(fir, EpilogueStore<T>{Epilogue<T>(p), p.width}, stream);
}

template <typename T>
int launch_flat(const EpilogueParams& p, void* stream) {
  const int64_t per_pixel = p.channels / kVector<T>, pixels = p.height * p.width;
  const int64_t vectors = p.n * pixels * per_pixel;
  return MMIF_LAUNCH((epilogue_kernel<T>), dim3(blocks_for(vectors, kThreads)), dim3(kThreads), stream, Epilogue<T>(p),
                     p.y, vectors, Divisor(static_cast<uint32_t>(per_pixel)), Divisor(static_cast<uint32_t>(pixels)));
}

template <typename T>
int launch_rgb(const EpilogueParams& p, void* stream) {
  int lanes = 32;
  while (lanes > 1 && lanes / 2 * kVector<T> >= p.channels) lanes /= 2;
  const int64_t positions = p.n * p.height * p.width;
  return MMIF_LAUNCH((epilogue_rgb_kernel<T>), dim3(blocks_for(positions, kThreads / lanes)), dim3(kThreads), stream,
                     Epilogue<T>(p), ToRGB<Acc<T>>(p), p.y, positions, lanes);
}

}  // namespace

bool epilogue_takes(int64_t channels, DType dtype) {
  return dispatch(dtype, [&](auto tag) { return channels % kVector<decltype(tag)> == 0; });
}

int launch_epilogue(const EpilogueParams& p, bool fir, DType dtype, void* stream) {
  return dispatch(dtype, [&](auto tag) {
    using T = decltype(tag);
    if (fir) return launch_fir<T>(p, stream);
    return p.rgb ? launch_rgb<T>(p, stream) : launch_flat<T>(p, stream);
  });
}

}  // namespace mmif
