// The arguments of upfirdn2d, checked, and as parameters of a launch.
#pragma once

#include <vector>

#include "tensors.h"
#include "upfirdn2d.h"

namespace mmif {

struct Upfirdn2dArgs {
  // The parameters point into x and f, which must outlive them.
  Upfirdn2dArgs(const Tensor& x, const Tensor& f, const std::vector<int64_t>& factors, const std::vector<int64_t>& pads,
                bool flip_filter, double gain);

  Tensor out;
  DType dtype;
  Upfirdn2dParams params{};
};

}  // namespace mmif
