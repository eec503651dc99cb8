// mmif::conv_epilogue on the device. Schema, fake and reference: mmif/ops/conv_epilogue.py.
#include "conv_epilogue.h"

#include <tuple>

#include "conv_epilogue_args.h"

namespace mmif {
namespace {

constexpr const char* kOp = "conv_epilogue";

std::tuple<Tensor, Tensor> conv_epilogue_device(Tensor y, bool fir, OptionalTensor demod, OptionalTensor noise,
                                                OptionalTensor strength, OptionalTensor bias, OptionalTensor skip,
                                                OptionalTensor next, OptionalTensor rgb_weight,
                                                OptionalTensor rgb_styles, OptionalTensor rgb_bias,
                                                OptionalTensor rgb_prev, OptionalTensor f, std::string act,
                                                double alpha, double gain, double clamp, double rgb_clamp,
                                                bool rgb_only) {
  const DType dtype = dtype_of(y, kOp, "y");
  STD_TORCH_CHECK(y.dim() == 4, kOp, ": y must be [N, C, H, W], got ", shape_of(y));
  STD_TORCH_CHECK(!fir || (y.size(2) > 1 && y.size(3) > 1), kOp, ": y must be at least 2x2 to be filtered, got ",
                  shape_of(y));
  STD_TORCH_CHECK(!(fir && rgb_weight), kOp, ": filtering and toRGB must not be asked for together, got both");
  STD_TORCH_CHECK(epilogue_takes(y.size(1), dtype), kOp, ": channels must be a multiple of 16 bytes, got ", y.size(1),
                  " of ", name_of(y.scalar_type()));
  const int64_t height = y.size(2) - fir, width = y.size(3) - fir;
  STD_TORCH_CHECK(height * width < (int64_t{1} << 30), kOp, ": H * W must be below 2^30, got ", shape_of(y));
  const EpilogueArgs args{demod,    noise, strength, bias,  skip, next,  rgb_weight, rgb_styles, rgb_bias,
                          rgb_prev, f,     act,      alpha, gain, clamp, rgb_clamp,  rgb_only};
  EpilogueCall call(kOp, y, {y.size(0), y.size(1), height, width}, args, fir);
  if (y.numel() == 0 && call.image.numel() == 0) return {call.out, call.image};
  const Tensor dense_y = channels_last(y);
  call.params.y = dense_y.const_data_ptr();
  const DeviceScope scope(y);
  check_launch(launch_epilogue(call.params, fir, dtype, current_stream(y)), kOp);
  return {call.out, call.image};
}

}  // namespace
}  // namespace mmif

STABLE_TORCH_LIBRARY_IMPL(mmif, MMIF_DEVICE_KEY, m) { m.impl("conv_epilogue", TORCH_BOX(&mmif::conv_epilogue_device)); }
