// The fused epilogue as kernels call it, wherever their y comes from: memory, a FIR, the registers of a convolution.
#pragma once

#include "conv_epilogue.h"
#include "dtype.h"

namespace mmif {

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

  // And of a pixel.
  __device__ __forceinline__ A read_shift(int64_t n, int64_t pixel) const {
    return noise ? __ldg(noise + n * noise_step + pixel) * __ldg(strength) : A(0);
  }

  // `v` holds y and becomes a, the value before the next layer's styles. Channels c .. c + V - 1 at `pixel` of image n.
  __device__ __forceinline__ void operator()(const Channels& of, int64_t n, int64_t pixel, int64_t c, A (&v)[V]) const {
    (*this)(of, read_shift(n, pixel), n, pixel, c, v);
  }
  __device__ __forceinline__ void operator()(const Channels& of, A shift, int64_t n, int64_t pixel, int64_t c,
                                             A (&v)[V]) const {
    const int64_t vector = ((n * pixels + pixel) * channels + c) / V;
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
    finish(n, pixel / width, pixel % width, sum);
  }
  __device__ void finish(int64_t n, int64_t y, int64_t x, const A (&sum)[3]) const {
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

}  // namespace mmif
