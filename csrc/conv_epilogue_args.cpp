// Implementation of conv_epilogue_args.h.
#include "conv_epilogue_args.h"

namespace mmif {

using torch::headeronly::MemoryFormat;
using torch::headeronly::ScalarType;

EpilogueCall::EpilogueCall(const char* op, const Tensor& like, const std::array<int64_t, 4>& shape,
                           const EpilogueArgs& args, bool fir)
    : op_(op),
      like_(like),
      small_(dtype_of(like, op, "y") == DType::kFloat64 ? ScalarType::Double : ScalarType::Float) {
  params.n = shape[0];
  params.channels = shape[1];
  params.height = shape[2];
  params.width = shape[3];
  const bool rgb = args.rgb_weight.has_value();
  STD_TORCH_CHECK(rgb == args.rgb_styles.has_value() && rgb == args.rgb_bias.has_value() && (rgb || !args.rgb_prev), op,
                  ": rgb_weight, rgb_styles and rgb_bias must be given together");
  STD_TORCH_CHECK(rgb || !args.rgb_only, op, ": rgb_only must come with toRGB, got rgb_weight None");
  STD_TORCH_CHECK(args.noise.has_value() == args.strength.has_value(), op,
                  ": noise and strength must be given together");
  STD_TORCH_CHECK(!args.rgb_prev || (params.height % 2 == 0 && params.width % 2 == 0), op,
                  ": H and W must be even beside rgb_prev, got ", params.height, " and ", params.width);
  take_tensors(args);
  params.taps = filter(args.f, fir || args.rgb_prev);
  take_options(args);
  make_outputs(rgb, args.rgb_only);
}

void EpilogueCall::take_tensors(const EpilogueArgs& args) {
  const int64_t n = params.n, c = params.channels, height = params.height, width = params.width;
  if (args.skip) {
    check_like(*args.skip, like_, op_, "skip");
    check_shape(*args.skip, {n, c, height, width}, op_, "skip");
    params.skip = keep(channels_last(*args.skip));
  }
  params.noise_n = args.noise && args.noise->dim() == 4 && args.noise->size(0) == 1 ? 1 : n;
  params.demod = rows(args.demod, "demod", params.demod_step);
  params.noise = dense(args.noise, {params.noise_n, 1, height, width}, "noise");
  params.strength = dense(args.strength, {}, "strength");
  params.bias = dense(args.bias, {c}, "bias");
  params.next = rows(args.next, "next_styles", params.next_step);
  params.rgb_weight = dense(args.rgb_weight, {3, c}, "rgb_weight");
  params.rgb_styles = rows(args.rgb_styles, "rgb_styles", params.rgb_step);
  params.rgb_bias = dense(args.rgb_bias, {3}, "rgb_bias");
  params.rgb_prev = dense(args.rgb_prev, {n, 3, height / 2, width / 2}, "rgb_prev");
}

void EpilogueCall::take_options(const EpilogueArgs& args) {
  const Act act = act_of(args.act, op_);
  STD_TORCH_CHECK(is_piecewise(act), op_, ": act must be linear, relu or lrelu, got '", args.act, "'");
  params.slope = negative_slope(act, args.alpha);
  params.gain = args.gain;
  params.clamp = args.clamp;
  params.rgb_clamp = args.rgb_clamp;
}

void EpilogueCall::make_outputs(bool rgb, bool rgb_only) {
  const std::array<int64_t, 4> shape = {params.n, 3, params.height, params.width};
  out = rgb_only ? torch::stable::new_empty(like_, {0})
                 : torch::stable::empty({params.n, params.channels, params.height, params.width}, like_.scalar_type(),
                                        std::nullopt, like_.device(), std::nullopt, MemoryFormat::ChannelsLast);
  image =
      rgb ? torch::stable::new_empty(like_, {shape.data(), 4}, small_) : torch::stable::new_empty(like_, {0}, small_);
  params.out = rgb_only ? nullptr : out.mutable_data_ptr();
  params.rgb = rgb ? image.mutable_data_ptr() : nullptr;
}

const void* EpilogueCall::dense(const OptionalTensor& t, std::initializer_list<int64_t> shape, const char* name) {
  if (!t) return nullptr;
  check_small(*t, shape, name);
  return keep(torch::stable::contiguous(*t));
}

const void* EpilogueCall::rows(const OptionalTensor& t, const char* name, int64_t& step) {
  if (!t) return nullptr;
  check_small(*t, {params.n, params.channels}, name);
  const Tensor dense = t->stride(1) == 1 ? *t : torch::stable::contiguous(*t);
  step = dense.stride(0);
  return keep(dense);
}

const float* EpilogueCall::filter(const OptionalTensor& f, bool needed) {
  STD_TORCH_CHECK(f || !needed, op_, ": f must be given where something is filtered, got None");
  if (!f) return nullptr;
  check_like(*f, like_, op_, "f", true);
  check_shape(*f, {4}, op_, "f");
  STD_TORCH_CHECK(f->scalar_type() == ScalarType::Float, op_, ": f must be float32, got ", name_of(f->scalar_type()));
  return static_cast<const float*>(keep(torch::stable::contiguous(*f)));
}

void EpilogueCall::check_small(const Tensor& t, std::initializer_list<int64_t> shape, const char* name) const {
  check_like(t, like_, op_, name, true);
  check_shape(t, shape, op_, name);
  STD_TORCH_CHECK(t.scalar_type() == small_, op_, ": ", name, " must be ", name_of(small_), ", got ",
                  name_of(t.scalar_type()));
}

const void* EpilogueCall::keep(const Tensor& t) {
  kept_.push_back(t);
  return t.const_data_ptr();
}

}  // namespace mmif
