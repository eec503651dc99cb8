// Launcher of the demodulation of many layers at once.
#pragma once

#include <cstdint>

namespace mmif {

// Layers are padded to common widths; padding of w2 is zero, padding of styles arbitrary but finite.
struct DemodulateParams {
  const float* styles;  // [L, N, I]
  const float* w2;      // [L, O, I], sums of squares of the weights
  float* scaled;        // [L, N, I], styles / max |styles| of their layer and sample
  float* demod;         // [L, N, O], rsqrt(sum_i scaled^2 w2 + eps)
  int64_t layers, n, in_channels, out_channels;
  float eps;
};

int launch_demodulate(const DemodulateParams& p, void* stream);

}  // namespace mmif
