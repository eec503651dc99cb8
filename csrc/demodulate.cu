// Demodulation factors of all layers in one launch. Latency-bound: a few megabytes of w2, read once.
#include "demodulate.h"
#include "platform.h"

namespace mmif {
namespace {

constexpr int kThreads = 256, kWarps = kThreads / 32;

__device__ float warp_max(float v) {
  for (int offset = 16; offset > 0; offset /= 2) v = fmaxf(v, __shfl_xor_sync(0xffffffffu, v, offset));
  return v;
}
__device__ float warp_sum(float v) {
  for (int offset = 16; offset > 0; offset /= 2) v += __shfl_xor_sync(0xffffffffu, v, offset);
  return v;
}

// Thread mapping: block (o / 8, layer), one warp per output channel, its row of w2 stays in L1 over the samples.
// Dividing the styles by their largest keeps the squares in range and cancels in the product demod * scaled.
__global__ void __launch_bounds__(kThreads) demodulate_kernel(DemodulateParams p) {
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  const int64_t layer = blockIdx.y, o = int64_t{blockIdx.x} * kWarps + warp;
  const float* row = p.w2 + (layer * p.out_channels + o) * p.in_channels;
  for (int64_t n = 0; n < p.n; ++n) {
    const int64_t start = (layer * p.n + n) * p.in_channels;
    float largest = 0;
    for (int64_t i = lane; i < p.in_channels; i += 32) largest = fmaxf(largest, fabsf(p.styles[start + i]));
    largest = fmaxf(warp_max(largest), 1e-12f);
    float sum = 0;
    for (int64_t i = lane; i < p.in_channels && o < p.out_channels; i += 32) {
      const float s = p.styles[start + i] / largest;
      sum += s * s * row[i];
    }
    sum = warp_sum(sum);
    if (lane == 0 && o < p.out_channels) p.demod[(layer * p.n + n) * p.out_channels + o] = 1 / sqrtf(sum + p.eps);
    if (o == 0) {  // one warp of each layer writes the scaled styles
      for (int64_t i = lane; i < p.in_channels; i += 32) p.scaled[start + i] = p.styles[start + i] / largest;
    }
  }
}

}  // namespace

int launch_demodulate(const DemodulateParams& p, void* stream) {
  // At least one block a layer: it also scales the styles.
  const int64_t blocks = p.out_channels > kWarps ? (p.out_channels + kWarps - 1) / kWarps : 1;
  const dim3 grid(static_cast<unsigned>(blocks), static_cast<unsigned>(p.layers));
  return MMIF_LAUNCH(demodulate_kernel, grid, dim3(kThreads), stream, p);
}

}  // namespace mmif
