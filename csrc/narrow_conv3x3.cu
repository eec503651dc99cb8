// A narrow 3x3 convolution as an implicit GEMM on tensor cores. Its sums never leave the registers: the epilogue takes
// them there.
//
// A block makes a tile of 16x16 pixels, each of its four warps four rows, 32 output channels at a time. The tile's
// input, with a border of one pixel, stays in shared memory; the weights pass through it, one stage being copied while
// the one before is multiplied. The rows of an mma's matrix are 16 neighbouring pixels, so that a fragment, once
// loaded, serves the three taps above each other.
#include "conv_epilogue_device.h"
#include "mma.h"
#include "narrow_conv3x3.h"
#include "upfirdn2d.h"

namespace mmif {
namespace {

constexpr int kSide = 16, kHalo = kSide + 2;     // of a tile, and with its border
constexpr int kThreads = 128, kRows = 4;         // of pixels, a warp
constexpr int kGroup = 32, kParts = kGroup / 8;  // output channels at a time, and the mmas that make them
constexpr int kDepth = 16;                       // input channels of an mma
constexpr int kFilters = 3 * kGroup;             // of a stage: 3 taps of 32 output channels

using Piece = Vec<uint32_t, 4>;  // 8 channels

// Shared memory: a plane for every 8 channels with one piece a pixel, so that what ldmatrix reads lies side by side.
// Gaps between the planes of the input let the pieces of a pixel, too, fall in different banks.
template <int IN>
struct Input {
  static constexpr int kPieces = IN / 8, kPlane = kHalo * kHalo + 64 / IN % 4, kSize = kPieces * kPlane;
};

struct Tensors {
  const void *x, *weight;
};

// Where the calling lane works: columns `left` and `left` + 8, `kRows` rows from `top` on.
struct Place {
  int64_t n;
  int top, left, height, width;

  __device__ __forceinline__ bool has(int r, int half) const { return top + r < height && left + half * 8 < width; }
  __device__ __forceinline__ int64_t pixel(int r, int half) const { return int64_t{top + r} * width + left + half * 8; }
};

// Starts to copy the tile whose first pixel is (y0, x0).
template <int IN>
__device__ __forceinline__ void copy_input(Piece* input, const void* x, int64_t n, int y0, int x0, int height,
                                           int width) {
  constexpr int kPieces = Input<IN>::kPieces;
  const auto* image = static_cast<const Piece*>(x) + n * height * width * kPieces;
  for (int i = threadIdx.x; i < kHalo * kHalo * kPieces; i += kThreads) {
    const int pixel = i / kPieces, piece = i % kPieces;
    const int row = y0 - 1 + pixel / kHalo, column = x0 - 1 + pixel % kHalo;
    const bool inside = static_cast<unsigned>(row) < static_cast<unsigned>(height) &&
                        static_cast<unsigned>(column) < static_cast<unsigned>(width);
    const int64_t from = inside ? (int64_t{row} * width + column) * kPieces + piece : 0;
    copy_16_bytes<false>(&input[piece * Input<IN>::kPlane + pixel], image + from, inside);
  }
}

// The output channel of a group that is column `column % 8` of mma `column / 8`: dealt out such that what a lane has of
// the four mmas, two columns each, are eight channels in a row.
__device__ __forceinline__ int channel_of(int column) { return column % 8 / 2 * 8 + column / 8 * 2 + column % 2; }

// Starts to copy a stage: one column of the window for 16 input channels. Stages run over the columns, then over the
// input channels, then over the groups of output channels. A thread copies its part of one filter, zeros if there is
// none.
template <int IN>
__device__ __forceinline__ void copy_weights(Piece* weights, const void* weight, int stage, int channels) {
  constexpr int kPieces = Input<IN>::kPieces, kDepths = IN / kDepth;
  const int filter = threadIdx.x, row = filter / kGroup;
  if (filter >= kFilters) return;
  const int column = stage % 3, depth = stage / 3 % kDepths, group = stage / 3 / kDepths;
  const int channel = group * kGroup + channel_of(filter % kGroup);
  const bool exists = channel < channels;
  const int from = exists ? ((channel * 3 + row) * 3 + column) * kPieces + depth * 2 : 0;
#pragma unroll
  for (int piece = 0; piece < 2; ++piece)
    copy_16_bytes<true>(&weights[piece * kFilters + filter], static_cast<const Piece*>(weight) + from + piece, exists);
}

using Sums = float[kRows][kParts][4];

// Multiplies one stage. `input` points at the warp's first pixel under this column of the window, in the first of two
// planes.
template <typename T, int IN>
__device__ __forceinline__ void multiply(const Piece* input, const Piece* weights, Sums& sums) {
  const int lane = threadIdx.x % 32;
  const Piece* pixel = input + lane / 16 * Input<IN>::kPlane + lane % 16;
  const Piece* filter = weights + lane / 8 % 2 * kFilters + lane / 16 * 8 + lane % 8;
  uint32_t pixels[kRows + 2][4];
#pragma unroll
  for (int r = 0; r < kRows + 2; ++r) load_matrices(pixels[r], pixel + r * kHalo);
#pragma unroll
  for (int tap = 0; tap < 3; ++tap) {
#pragma unroll
    for (int part = 0; part < kParts; part += 2) {
      uint32_t filters[4];  // of two mmas
      load_matrices(filters, filter + tap * kGroup + part * 8);
#pragma unroll
      for (int r = 0; r < kRows; ++r) {
        mma_16x8x16<T>(sums[r][part], pixels[r + tap], filters[0], filters[1]);
        mma_16x8x16<T>(sums[r][part + 1], pixels[r + tap], filters[2], filters[3]);
      }
    }
  }
}

// What toRGB multiplies 8 channels of an image by; zeros without a toRGB.
struct Colours {
  float of[3][8] = {};

  __device__ __forceinline__ Colours(const ToRGB<float>& to_rgb, int64_t n, int channel) {
    if (!to_rgb.rgb) return;
#pragma unroll
    for (int v = 0; v < 8; ++v) {
      const float style = to_rgb.styles[n * to_rgb.styles_step + channel + v];
#pragma unroll
      for (int i = 0; i < 3; ++i) of[i][v] = to_rgb.weight[i * to_rgb.channels + channel + v] * style;
    }
  }
  __device__ __forceinline__ void add(const float (&values)[8], float (&dots)[3]) const {
#pragma unroll
    for (int v = 0; v < 8; ++v) {
#pragma unroll
      for (int i = 0; i < 3; ++i) dots[i] += values[v] * of[i][v];
    }
  }
};

// The epilogue of one group: lane 4 g + t has channels 8 t .. 8 t + 7 of it, `channel` is their first, and keeps the
// toRGB sums of row t. `shifts` points at the lane's first pixel. Registers cannot be indexed at run time: rows move
// up.
template <typename T>
__device__ __forceinline__ void finish_group(const Epilogue<T>& epilogue, const ToRGB<float>& to_rgb,
                                             const Place& place, int channel, const float* shifts, Sums& sums,
                                             float (&image)[2][3]) {
  const int t = threadIdx.x % 4;
  const bool exists = channel < epilogue.channels;
  const auto of = epilogue.read_channels(place.n, exists ? channel : 0);
  const Colours colours(to_rgb, place.n, exists ? channel : 0);
#pragma unroll 1
  for (int r = 0; r < kRows; ++r) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      float values[8], dots[3] = {};
#pragma unroll
      for (int v = 0; v < 8; ++v) values[v] = sums[0][v / 2][half * 2 + v % 2];
      if (exists && place.has(r, half)) {
        epilogue(of, shifts[r * kSide + half * 8], place.n, place.pixel(r, half), channel, values);
        colours.add(values, dots);
      }
      if (!to_rgb.rgb) continue;
#pragma unroll
      for (int i = 0; i < 3; ++i) {
        dots[i] += __shfl_xor_sync(0xffffffffu, dots[i], 1);
        dots[i] += __shfl_xor_sync(0xffffffffu, dots[i], 2);
        if (t == r) image[half][i] += dots[i];
      }
    }
#pragma unroll
    for (int i = 0; i < (kRows - 1) * kParts * 4; ++i)
      sums[i / 16][i / 4 % 4][i % 4] = sums[i / 16 + 1][i / 4 % 4][i % 4];
  }
}

template <typename T, int IN>
__global__ void __launch_bounds__(kThreads, 3)
    narrow_conv_kernel(Tensors tensors, Divisor tiles_x, Divisor tiles_y, Epilogue<T> epilogue, ToRGB<float> to_rgb) {
  __shared__ Piece input[Input<IN>::kSize];
  __shared__ Piece weights[2][2 * kFilters];
  __shared__ float shifts[kSide * kSide];

  const uint32_t band = tiles_x.quotient(blockIdx.x), n = tiles_y.quotient(band);
  const int x0 = static_cast<int>(tiles_x.remainder(blockIdx.x)) * kSide;
  const int y0 = static_cast<int>(tiles_y.remainder(band)) * kSide;
  const int height = static_cast<int>(to_rgb.height), width = static_cast<int>(to_rgb.width);
  const int channels = static_cast<int>(epilogue.channels);
  const int warp = threadIdx.x / 32, g = threadIdx.x % 32 / 4, t = threadIdx.x % 4;
  const Place place{n, y0 + warp * kRows, x0 + g, height, width};

  copy_input<IN>(input, tensors.x, n, y0, x0, height, width);
  copy_weights<IN>(weights[0], tensors.weight, 0, channels);
  for (int i = threadIdx.x; i < kSide * kSide; i += kThreads) {
    const int y = y0 + i / kSide, x = x0 + i % kSide;
    if (y < height && x < width) shifts[i] = epilogue.read_shift(n, int64_t{y} * width + x);
  }
  constexpr int kStages = 3 * IN / kDepth;  // of a group
  const int groups = (channels + kGroup - 1) / kGroup;
  float image[2][3] = {};
  for (int group = 0; group < groups; ++group) {
    Sums sums = {};
#pragma unroll 1
    for (int s = 0; s < kStages; ++s) {
      const int stage = group * kStages + s, next = stage + 1;
      wait_for_copies();
      __syncthreads();  // this stage is there, and all have left the one before
      if (next < groups * kStages) copy_weights<IN>(weights[next % 2], tensors.weight, next, channels);
      const int first = s / 3 * 2 * Input<IN>::kPlane + warp * kRows * kHalo + s % 3;
      multiply<T, IN>(input + first, weights[stage % 2], sums);
    }
    finish_group(epilogue, to_rgb, place, group * kGroup + t * 8, shifts + warp * kRows * kSide + g, sums, image);
  }
  if (!to_rgb.rgb) return;
#pragma unroll 1
  for (int half = 0; half < 2; ++half) {
    if (place.has(t, half)) to_rgb.finish(n, place.top + t, place.left + half * 8, image[0]);
    for (int i = 0; i < 3; ++i) image[0][i] = image[1][i];
  }
}

template <typename T, int IN>
int launch(const NarrowConvParams& p, void* stream) {
  const EpilogueParams& e = p.epilogue;
  const int tiles_x = ceil_div(static_cast<int>(e.width), kSide), tiles_y = ceil_div(static_cast<int>(e.height), kSide);
  return MMIF_LAUNCH((narrow_conv_kernel<T, IN>), dim3(static_cast<unsigned>(e.n * tiles_y * tiles_x)), dim3(kThreads),
                     stream, Tensors{p.x, p.weight}, Divisor(tiles_x), Divisor(tiles_y), Epilogue<T>(e),
                     ToRGB<float>(e));
}

template <typename T>
int launch_for(const NarrowConvParams& p, void* stream) {
  switch (p.in_channels) {
    case 16:
      return launch<T, 16>(p, stream);
    case 32:
      return launch<T, 32>(p, stream);
    case 48:
      return launch<T, 48>(p, stream);
    default:
      return launch<T, 64>(p, stream);
  }
}

}  // namespace

bool narrow_conv_takes(int64_t channels) { return channels > 0 && channels <= 64 && channels % kDepth == 0; }

int launch_narrow_conv(const NarrowConvParams& p, DType dtype, void* stream) {
  return dtype == DType::kFloat16 ? launch_for<__half>(p, stream) : launch_for<__nv_bfloat16>(p, stream);
}

}  // namespace mmif
