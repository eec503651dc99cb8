// The fused epilogue on the GPU. Memory-bound: y, skip and out pass once, 16 bytes at a time; the rest sits in L1.
#include <algorithm>

#include "dtype.h"
#include "epilogue.h"
#include "fir_nhwc.h"

namespace mmif {
namespace {

constexpr int kThreads = 256;

// Computes and stores one vector of V channels at one pixel; the kernels differ in how they come by y.
template <typename T>
struct Epilogue {
  using A = Acc<T>;
  static constexpr int V = kVector<T>;

  const A *demod, *noise, *strength, *bias, *next;
  const void* skip;
  void* out;
  int64_t pixels, channels, noise_step, demod_step, next_step;  // pixels per image
  A slope, gain, clamp;

  explicit Epilogue(const EpilogueParams& p)
      : demod(static_cast<const A*>(p.demod)),
        noise(static_cast<const A*>(p.noise)),
        strength(static_cast<const A*>(p.strength)),
        bias(static_cast<const A*>(p.bias)),
        next(static_cast<const A*>(p.next)),
        skip(p.skip),
        out(p.out),
        pixels(p.height * p.width),
        channels(p.channels),
        noise_step(p.noise_n > 1 ? p.height * p.width : 0),
        demod_step(p.demod_step),
        next_step(p.next_step),
        slope(static_cast<A>(p.slope)),
        gain(static_cast<A>(p.gain)),
        clamp(static_cast<A>(p.clamp)) {}

  // What it needs to know of V channels of one image; a tensor that is left out changes nothing.
  struct Channels {
    A demod[V], bias[V], next[V];
  };
  __device__ __forceinline__ Channels read_channels(int64_t n, int64_t c) const {
    Channels of;
#pragma unroll
    for (int k = 0; k < V; ++k) {
      of.demod[k] = demod ? __ldg(demod + n * demod_step + c + k) : A(1);
      of.bias[k] = bias ? __ldg(bias + c + k) : A(0);
      of.next[k] = next ? __ldg(next + n * next_step + c + k) : A(1);
    }
    return of;
  }

  // `v` holds y and becomes a, the value before the next layer's styles. Channels c .. c + V - 1 at `pixel` of image n.
  __device__ __forceinline__ void operator()(const Channels& of, int64_t n, int64_t pixel, int64_t c, A (&v)[V]) const {
    const int64_t vector = ((n * pixels + pixel) * channels + c) / V;
    const A shift = noise ? __ldg(noise + n * noise_step + pixel) * __ldg(strength) : A(0);
    Vec<T, V> skipped{}, result;
    if (skip) skipped = load<T, V>(skip, vector);
#pragma unroll
    for (int k = 0; k < V; ++k) {
      A a = piecewise(v[k] * of.demod[k] + shift + of.bias[k], slope) * gain;
      if (clamp >= 0) a = clamp_to(a, clamp);
      if (skip) a += to_acc(skipped.v[k]);
      v[k] = a;
      result.v[k] = from_acc<T>(a * of.next[k]);
    }
    if (out) store<T, V>(out, vector, result);
  }
};

// toRGB of one pixel: three dot products over the channels, then the upsampled image of the resolution below.
template <typename A>
struct ToRGB {
  const A *weight, *styles, *bias, *prev;
  A* rgb;
  const float* taps;
  int64_t height, width, channels, styles_step;
  A clamp;

  explicit ToRGB(const EpilogueParams& p)
      : weight(static_cast<const A*>(p.rgb_weight)),
        styles(static_cast<const A*>(p.rgb_styles)),
        bias(static_cast<const A*>(p.rgb_bias)),
        prev(static_cast<const A*>(p.rgb_prev)),
        rgb(static_cast<A*>(p.rgb)),
        taps(p.taps),
        height(p.height),
        width(p.width),
        channels(p.channels),
        styles_step(p.rgb_step),
        clamp(static_cast<A>(p.rgb_clamp)) {}

  template <int V>
  __device__ void add(int64_t n, int64_t c, const A (&v)[V], A (&sum)[3]) const {
#pragma unroll
    for (int k = 0; k < V; ++k) {
      const A styled = v[k] * styles[n * styles_step + c + k];
#pragma unroll
      for (int i = 0; i < 3; ++i) sum[i] += styled * weight[i * channels + c + k];
    }
  }
  __device__ void finish(int64_t n, int64_t pixel, const A (&sum)[3]) const {
    const int64_t y = pixel / width, x = pixel % width;
    for (int i = 0; i < 3; ++i) {
      A value = sum[i] + bias[i];
      if (clamp >= 0) value = clamp_to(value, clamp);
      if (prev) value += upsampled(prev + (n * 3 + i) * (height / 2) * (width / 2), y, x);
      rgb[((n * 3 + i) * height + y) * width + x] = value;
    }
  }
  // One pixel of the plane upsampled by two: of the four taps of each axis, the two that meet a pixel and not a zero.
  __device__ A upsampled(const A* plane, int64_t y, int64_t x) const {
    A total = 0;
    for (int ky = y % 2; ky < 4; ky += 2) {
      const int64_t iy = (y + ky) / 2 - 1;
      if (iy < 0 || iy >= height / 2) continue;
      A row = 0;
      for (int kx = x % 2; kx < 4; kx += 2) {
        const int64_t ix = (x + kx) / 2 - 1;
        if (ix >= 0 && ix < width / 2) row += A(taps[3 - kx]) * plane[iy * (width / 2) + ix];
      }
      total += A(taps[3 - ky]) * row;
    }
    return 4 * total;
  }
};

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
  while (lanes / 2 * kVector<T> >= p.channels) lanes /= 2;
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
