// Launchers of the fused epilogue: everything that follows a convolution of the generator, in one pass.
//
//   v   = y * demod[n, c] + noise[n, h, w] * strength + bias[c]      y filtered by a 4x4 FIR first, if asked for
//   a   = clamp(gain * act(v)) + skip
//   out = a * next[n, c]
//   rgb = clamp(sum_c a * rgb_weight[k, c] * rgb_styles[n, c] + rgb_bias[k]) + upsampled rgb_prev     if asked for
#pragma once

#include "activation.h"
#include "params.h"

namespace mmif {

// Channels last throughout. Small tensors have the arithmetic type, float (double beside kFloat64); nullptr: left out.
struct EpilogueParams {
  const void* y;           // [N, H, W, C], or [N, H + 1, W + 1, C] in front of a FIR
  const void* demod;       // [N, C]
  const void* noise;       // [noise_n, H, W]
  const void* strength;    // scalar, with noise
  const void* bias;        // [C]
  const void* skip;        // [N, H, W, C]
  const void* next;        // [N, C]
  void* out;               // [N, H, W, C], or nullptr beside rgb
  const void* rgb_weight;  // [3, C]
  const void* rgb_styles;  // [N, C]
  const void* rgb_bias;    // [3]
  const void* rgb_prev;    // [N, 3, H / 2, W / 2]
  void* rgb;               // [N, 3, H, W]
  const float* taps;       // [4], the FIR of the up-layer and of the RGB upsampling; a gain of 4 comes with it
  int64_t n, height, width, channels;
  int64_t demod_step, next_step, rgb_step;  // elements from one image's row of demod, next, rgb_styles to the next
  int64_t noise_n;                          // N or 1
  double slope, gain, clamp, rgb_clamp;     // clamps < 0: none
};

// C must be a multiple of 16 bytes and every pointer 16-byte aligned. `fir`: y is one larger than out.
int launch_epilogue(const EpilogueParams& p, bool fir, DType dtype, void* stream);

// True if the kernels take this number of channels.
bool epilogue_takes(int64_t channels, DType dtype);

}  // namespace mmif
