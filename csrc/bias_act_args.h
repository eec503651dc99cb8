// The arguments of bias_act and bias_act_grad, checked, made dense in one memory order, and as parameters of a launch.
#pragma once

#include <string>

#include "bias_act.h"
#include "tensors.h"

namespace mmif {

struct BiasActArgs {
  // `like` gives shape, memory order and dtype: x for the function, y for its derivatives, which also need dy.
  BiasActArgs(const Tensor& like, const std::optional<Tensor>& dy, const std::optional<Tensor>& x,
              const std::optional<Tensor>& b, int64_t dim, const std::string& act, double alpha, double gain,
              double clamp, int64_t order);

  // [bias_size] of zeros where nothing will be summed, or [0] if not wanted.
  Tensor new_bias_grad(bool wanted) const;

  Tensor out;
  DType dtype;
  BiasActParams params{};

 private:
  std::optional<Tensor> x_, b_, dy_, y_;  // what params points into
};

}  // namespace mmif
