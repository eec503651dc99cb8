// mmif::narrow_conv3x3 on the device. Schema, fake and reference: mmif/ops/narrow_conv3x3.py.
#include "narrow_conv3x3.h"

#include <tuple>

#include "conv_epilogue_args.h"

namespace mmif {
namespace {

constexpr const char* kOp = "narrow_conv3x3";

void check_convolution(const Tensor& x, const Tensor& weight, DType dtype) {
  STD_TORCH_CHECK(dtype == DType::kFloat16 || dtype == DType::kBFloat16, kOp, ": x must be float16 or bfloat16, got ",
                  name_of(x.scalar_type()));
  STD_TORCH_CHECK(x.dim() == 4 && x.size(2) * x.size(3) > 0 && weight.dim() == 4, kOp,
                  ": x must be [N, I, H, W] with a pixel or more and weight [O, I, 3, 3], got ", shape_of(x), " and ",
                  shape_of(weight));
  check_like(weight, x, kOp, "weight");
  check_shape(weight, {weight.size(0), x.size(1), 3, 3}, kOp, "weight");
  STD_TORCH_CHECK(narrow_conv_takes(x.size(1)) && narrow_conv_takes(weight.size(0)), kOp,
                  ": channels must be 16, 32, 48 or 64 on either side, got weight ", shape_of(weight));
  STD_TORCH_CHECK(x.size(0) * x.size(2) * x.size(3) < (int64_t{1} << 31), kOp, ": N * H * W must be below 2^31, got ",
                  shape_of(x));
}

std::tuple<Tensor, Tensor> narrow_conv3x3_device(Tensor x, Tensor weight, OptionalTensor demod, OptionalTensor noise,
                                                 OptionalTensor strength, OptionalTensor bias, OptionalTensor skip,
                                                 OptionalTensor next, OptionalTensor rgb_weight,
                                                 OptionalTensor rgb_styles, OptionalTensor rgb_bias,
                                                 OptionalTensor rgb_prev, OptionalTensor f, std::string act,
                                                 double alpha, double gain, double clamp, double rgb_clamp,
                                                 bool rgb_only) {
  const DType dtype = dtype_of(x, kOp, "x");
  check_convolution(x, weight, dtype);
  const EpilogueArgs args{demod,    noise, strength, bias,  skip, next,  rgb_weight, rgb_styles, rgb_bias,
                          rgb_prev, f,     act,      alpha, gain, clamp, rgb_clamp,  rgb_only};
  EpilogueCall call(kOp, x, {x.size(0), weight.size(0), x.size(2), x.size(3)}, args, false);
  if (x.numel() == 0) return {call.out, call.image};
  const Tensor dense_x = channels_last(x), dense_weight = channels_last(weight);
  const NarrowConvParams p{dense_x.const_data_ptr(), dense_weight.const_data_ptr(), x.size(1), call.params};
  const DeviceScope scope(x);
  check_launch(launch_narrow_conv(p, dtype, current_stream(x)), kOp);
  return {call.out, call.image};
}

}  // namespace
}  // namespace mmif

STABLE_TORCH_LIBRARY_IMPL(mmif, MMIF_DEVICE_KEY, m) {
  m.impl("narrow_conv3x3", TORCH_BOX(&mmif::narrow_conv3x3_device));
}
