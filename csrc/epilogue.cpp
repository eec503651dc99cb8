// mmif::conv_epilogue on the device. Schema, fake and reference: mmif/ops/conv_epilogue.py.
#include "epilogue.h"

#include <array>
#include <tuple>

#include "tensors.h"

namespace mmif {
namespace {

using torch::headeronly::MemoryFormat;
using torch::headeronly::ScalarType;
using OptionalTensor = std::optional<Tensor>;

constexpr const char* kOp = "conv_epilogue";

// The small tensors: same device, the arithmetic type of `y`, contiguous, the given shape.
class SmallTensors {
 public:
  SmallTensors(const Tensor& y, DType dtype)
      : y_(y), acc_(dtype == DType::kFloat64 ? ScalarType::Double : ScalarType::Float) {}

  const void* operator()(const OptionalTensor& t, std::initializer_list<int64_t> shape, const char* name) {
    if (!t) return nullptr;
    check(*t, shape, name);
    return keep(torch::stable::contiguous(*t));
  }
  // [N, C], whose rows may lie apart: one layer's part of a tensor for all layers is not copied.
  const void* rows(const OptionalTensor& t, std::initializer_list<int64_t> shape, const char* name, int64_t& step) {
    if (!t) return nullptr;
    check(*t, shape, name);
    const Tensor dense = t->stride(1) == 1 ? *t : torch::stable::contiguous(*t);
    step = dense.stride(0);
    return keep(dense);
  }
  ScalarType type() const { return acc_; }

 private:
  void check(const Tensor& t, std::initializer_list<int64_t> shape, const char* name) const {
    check_like(t, y_, kOp, name, true);
    check_shape(t, shape, kOp, name);
    STD_TORCH_CHECK(t.scalar_type() == acc_, kOp, ": ", name, " must be ", name_of(acc_), ", got ",
                    name_of(t.scalar_type()));
  }
  const void* keep(const Tensor& t) {
    kept_.push_back(t);
    return t.const_data_ptr();
  }

  Tensor y_;
  ScalarType acc_;
  std::vector<Tensor> kept_;  // contiguous copies, alive until the launch
};

// Arguments by name, checked, in the order of the schema.
struct Inputs {
  Tensor y;
  OptionalTensor demod, noise, strength, bias, skip, next, rgb_weight, rgb_styles, rgb_bias, rgb_prev, f;
};

const float* filter_of(const Inputs& in, bool fir) {
  const bool needed = fir || in.rgb_prev;
  STD_TORCH_CHECK(in.f || !needed, kOp, ": f must be given where something is filtered, got None");
  if (!in.f) return nullptr;
  check_like(*in.f, in.y, kOp, "f", true);
  check_shape(*in.f, {4}, kOp, "f");
  STD_TORCH_CHECK(in.f->scalar_type() == ScalarType::Float, kOp, ": f must be float32, got ",
                  name_of(in.f->scalar_type()));
  return static_cast<const float*>(in.f->const_data_ptr());
}

std::tuple<Tensor, Tensor> conv_epilogue_device(Tensor y, OptionalTensor demod, OptionalTensor noise,
                                                OptionalTensor strength, OptionalTensor bias, OptionalTensor skip,
                                                OptionalTensor next, OptionalTensor rgb_weight,
                                                OptionalTensor rgb_styles, OptionalTensor rgb_bias,
                                                OptionalTensor rgb_prev, OptionalTensor f, bool fir, std::string act,
                                                double alpha, double gain, double clamp, double rgb_clamp,
                                                bool rgb_only) {
  Inputs in{y, demod, noise, strength, bias, skip, next, rgb_weight, rgb_styles, rgb_bias, rgb_prev, f};
  const DType dtype = dtype_of(y, kOp, "y");
  STD_TORCH_CHECK(y.dim() == 4, kOp, ": y must be [N, C, H, W], got ", shape_of(y));
  STD_TORCH_CHECK(!fir || (y.size(2) > 1 && y.size(3) > 1), kOp, ": y must be at least 2x2 to be filtered, got ",
                  shape_of(y));
  const bool rgb = rgb_weight.has_value();
  STD_TORCH_CHECK(!(fir && rgb), kOp, ": filtering and toRGB must not be asked for together, got both");
  STD_TORCH_CHECK(rgb == rgb_styles.has_value() && rgb == rgb_bias.has_value() && (rgb || !rgb_prev), kOp,
                  ": rgb_weight, rgb_styles and rgb_bias must be given together");
  STD_TORCH_CHECK(rgb || !rgb_only, kOp, ": rgb_only must come with toRGB, got rgb_weight None");
  STD_TORCH_CHECK(noise.has_value() == strength.has_value(), kOp, ": noise and strength must be given together");

  EpilogueParams p{};
  p.n = y.size(0);
  p.channels = y.size(1);
  p.height = y.size(2) - fir;
  p.width = y.size(3) - fir;
  STD_TORCH_CHECK(epilogue_takes(p.channels, dtype), kOp, ": channels must be a multiple of 16 bytes, got ", p.channels,
                  " of ", name_of(y.scalar_type()));
  STD_TORCH_CHECK(p.height * p.width < (int64_t{1} << 30), kOp, ": H * W must be below 2^30, got ", shape_of(y));
  STD_TORCH_CHECK(!rgb_prev || (p.height % 2 == 0 && p.width % 2 == 0), kOp,
                  ": H and W must be even beside rgb_prev, got ", shape_of(y));
  const Tensor dense_y = channels_last(y);
  OptionalTensor dense_skip;
  if (skip) {
    check_like(*skip, y, kOp, "skip");
    check_shape(*skip, {p.n, p.channels, p.height, p.width}, kOp, "skip");
    dense_skip = channels_last(*skip);
  }
  SmallTensors small(y, dtype);
  p.y = dense_y.const_data_ptr();
  p.skip = data(dense_skip);
  p.noise_n = noise && noise->dim() == 4 && noise->size(0) == 1 ? 1 : p.n;
  p.demod = small.rows(demod, {p.n, p.channels}, "demod", p.demod_step);
  p.noise = small(noise, {p.noise_n, 1, p.height, p.width}, "noise");
  p.strength = small(strength, {}, "strength");
  p.bias = small(bias, {p.channels}, "bias");
  p.next = small.rows(next, {p.n, p.channels}, "next_styles", p.next_step);
  p.rgb_weight = small(rgb_weight, {3, p.channels}, "rgb_weight");
  p.rgb_styles = small.rows(rgb_styles, {p.n, p.channels}, "rgb_styles", p.rgb_step);
  p.rgb_bias = small(rgb_bias, {3}, "rgb_bias");
  p.rgb_prev = small(rgb_prev, {p.n, 3, p.height / 2, p.width / 2}, "rgb_prev");
  p.taps = filter_of(in, fir);
  const Act kind = act_of(act, kOp);
  STD_TORCH_CHECK(is_piecewise(kind), kOp, ": act must be linear, relu or lrelu, got '", act, "'");
  p.slope = negative_slope(kind, alpha);
  p.gain = gain;
  p.clamp = clamp;
  p.rgb_clamp = rgb_clamp;

  Tensor out = rgb_only ? torch::stable::new_empty(y, {0})
                        : torch::stable::empty({p.n, p.channels, p.height, p.width}, y.scalar_type(), std::nullopt,
                                               y.device(), std::nullopt, MemoryFormat::ChannelsLast);
  const std::array<int64_t, 4> rgb_shape = {p.n, 3, p.height, p.width};
  Tensor image = rgb ? torch::stable::new_empty(y, {rgb_shape.data(), 4}, small.type())
                     : torch::stable::new_empty(y, {0}, small.type());
  if (p.n * p.channels == 0) return {out, image};
  p.out = rgb_only ? nullptr : out.mutable_data_ptr();
  p.rgb = rgb ? image.mutable_data_ptr() : nullptr;
  const DeviceScope scope(y);
  check_launch(launch_epilogue(p, fir, dtype, current_stream(y)), kOp);
  return {out, image};
}

}  // namespace
}  // namespace mmif

STABLE_TORCH_LIBRARY_IMPL(mmif, MMIF_DEVICE_KEY, m) { m.impl("conv_epilogue", TORCH_BOX(&mmif::conv_epilogue_device)); }
