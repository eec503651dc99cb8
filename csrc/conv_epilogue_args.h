// The epilogue's arguments as the bindings of conv_epilogue and narrow_conv3x3 get them, checked, and its outputs.
#pragma once

#include <array>
#include <vector>

#include "conv_epilogue.h"
#include "tensors.h"

namespace mmif {

using OptionalTensor = std::optional<Tensor>;

// In the order of the schemas and of the tuple in mmif/ops/_epilogue.py.
struct EpilogueArgs {
  OptionalTensor demod, noise, strength, bias, skip, next, rgb_weight, rgb_styles, rgb_bias, rgb_prev, f;
  std::string act;
  double alpha, gain, clamp, rgb_clamp;
  bool rgb_only;
};

// One call of an epilogue: what its launcher wants but for y, and the tensors behind the pointers.
class EpilogueCall {
 public:
  // y has the device and dtype of `like` and `shape` [N, C, H, W], filtered if `fir`.
  EpilogueCall(const char* op, const Tensor& like, const std::array<int64_t, 4>& shape, const EpilogueArgs& args,
               bool fir);

  EpilogueParams params{};
  Tensor out, image;

 private:
  void take_tensors(const EpilogueArgs& args);
  void take_options(const EpilogueArgs& args);
  void make_outputs(bool rgb, bool rgb_only);

  // A small tensor: of the arithmetic type, contiguous, of a shape.
  const void* dense(const OptionalTensor& t, std::initializer_list<int64_t> shape, const char* name);
  // [N, C], whose rows may lie apart: one layer's part of a tensor for all layers is not copied.
  const void* rows(const OptionalTensor& t, const char* name, int64_t& step);
  const float* filter(const OptionalTensor& f, bool needed);
  void check_small(const Tensor& t, std::initializer_list<int64_t> shape, const char* name) const;
  const void* keep(const Tensor& t);

  const char* op_;
  Tensor like_;
  torch::headeronly::ScalarType small_;
  std::vector<Tensor> kept_;
};

}  // namespace mmif
