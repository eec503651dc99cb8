// Launcher of a 3x3 convolution with the fused epilogue inside: a narrow layer of the generator in one kernel.
#pragma once

#include "conv_epilogue.h"

namespace mmif {

// Stride 1, padding 1, every pointer 16-byte aligned.
struct NarrowConvParams {
  const void* x;       // [N, H, W, I]
  const void* weight;  // [O, 3, 3, I]
  int64_t in_channels;
  EpilogueParams epilogue;  // its channels are O; its y is the convolution's result, which no memory holds
};

// I and O as narrow_conv_takes() says, kFloat16 or kBFloat16, N * H * W below 2^31.
int launch_narrow_conv(const NarrowConvParams& p, DType dtype, void* stream);

// True if the kernels take this number of channels, at the input or at the output.
bool narrow_conv_takes(int64_t channels);

}  // namespace mmif
