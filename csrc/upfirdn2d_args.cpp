// Implementation of upfirdn2d_args.h.
#include "upfirdn2d_args.h"

#include <algorithm>
#include <array>
#include <cstdlib>

namespace mmif {
namespace {

using torch::headeronly::MemoryFormat;
using torch::headeronly::ScalarType;

constexpr int64_t kLimit = int64_t{1} << 30;  // of everything along an axis: see Axis

void check(const Tensor& x, const Tensor& f, size_t factors, size_t pads) {
  STD_TORCH_CHECK(x.dim() == 4, "upfirdn2d: x must be [N, C, H, W], got ", shape_of(x));
  STD_TORCH_CHECK((f.dim() == 1 || f.dim() == 2) && f.numel() > 0, "upfirdn2d: f must be [taps] or [fh, fw], got ",
                  shape_of(f));
  STD_TORCH_CHECK(f.scalar_type() == ScalarType::Float, "upfirdn2d: f must be float32, got ", name_of(f.scalar_type()));
  check_like(f, x, "upfirdn2d", "f", true);
  STD_TORCH_CHECK(factors == 4, "upfirdn2d: factors must be (upx, upy, downx, downy), got ", factors, " numbers");
  STD_TORCH_CHECK(pads == 4, "upfirdn2d: pads must be (left, right, top, bottom), got ", pads, " numbers");
}

Axis axis_of(const char* side, int64_t in, int64_t up, int64_t down, int64_t before, int64_t after, int64_t taps) {
  STD_TORCH_CHECK(up >= 1 && down >= 1, "upfirdn2d: factors must be >= 1, got up ", up, " and down ", down);
  // Each number is looked at before they are multiplied: their products then fit into 64 bits.
  const bool small =
      std::max({in, up, down, taps}) < kLimit && std::max(before, after) < kLimit && std::min(before, after) > -kLimit;
  STD_TORCH_CHECK(small && in * up + std::max<int64_t>(before, 0) + std::max<int64_t>(after, 0) < kLimit,
                  "upfirdn2d: the upsampled, padded image must have sides below 2^30, got ", side, " ", in, " with up ",
                  up, ", down ", down, ", padding (", before, ", ", after, ") and ", taps, " taps");
  const int64_t valid = in * up + before + after - taps + 1;
  STD_TORCH_CHECK(valid >= 1, "upfirdn2d: the padded image must be at least as large as the filter, got ", side, " ",
                  in, " with up ", up, ", padding (", before, ", ", after, ") and ", taps, " taps");
  return {static_cast<int>(in),     static_cast<int>((valid - 1) / down + 1),
          static_cast<int>(up),     static_cast<int>(down),
          static_cast<int>(before), static_cast<int>(taps)};
}

// As torch.Tensor.is_contiguous(memory_format=torch.channels_last) sees it.
bool is_channels_last(const Tensor& x) {
  int64_t expected = 1;
  for (const int dim : {1, 3, 2, 0}) {
    if (x.size(dim) != 1 && x.stride(dim) != expected) return false;
    expected *= x.size(dim);
  }
  return x.size(1) > 1;
}

}  // namespace

Upfirdn2dArgs::Upfirdn2dArgs(const Tensor& x, const Tensor& f, const std::vector<int64_t>& factors,
                             const std::vector<int64_t>& pads, bool flip_filter, double gain)
    : dtype(dtype_of(x, "upfirdn2d", "x")) {
  check(x, f, factors.size(), pads.size());
  const bool separable = f.dim() == 1;
  const int64_t height = f.size(0), width = f.size(separable ? 0 : 1);
  const int64_t step_y = f.stride(0), step_x = f.stride(separable ? 0 : 1);
  params.rows = axis_of("height", x.size(2), factors[1], factors[3], pads[2], pads[3], height);
  params.cols = axis_of("width", x.size(3), factors[0], factors[2], pads[0], pads[1], width);
  params.n = x.size(0);
  params.c = x.size(1);
  for (int dim = 0; dim < 4; ++dim) params.x_strides[dim] = x.stride(dim);
  params.separable = separable;
  params.channels_last = is_channels_last(x);
  params.gain = gain;
  // A convolution slides the filter turned round: its window starts with the last tap.
  const int64_t last = (separable ? 0 : (height - 1) * step_y) + (width - 1) * step_x;
  params.f = static_cast<const float*>(f.const_data_ptr()) + (flip_filter ? 0 : last);
  params.f_strides[0] = flip_filter ? step_y : -step_y;
  params.f_strides[1] = flip_filter ? step_x : -step_x;

  const std::array<int64_t, 4> shape = {params.n, params.c, params.rows.out, params.cols.out};
  const auto format = params.channels_last ? MemoryFormat::ChannelsLast : MemoryFormat::Contiguous;
  out = torch::stable::empty({shape.data(), shape.size()}, x.scalar_type(), std::nullopt, x.device(), std::nullopt,
                             format);
  params.x = x.const_data_ptr();
  params.out = out.mutable_data_ptr();
}

}  // namespace mmif
