// Implementation of bias_act_args.h.
#include "bias_act_args.h"

#include <algorithm>

namespace mmif {
namespace {

std::optional<Tensor> dense(const std::optional<Tensor>& t, const Tensor& like, const char* name) {
  if (!t) return t;
  check_like(*t, like, "bias_act", name);
  STD_TORCH_CHECK(t->sizes().equals(like.sizes()), "bias_act: ", name, " must have the shape ", shape_of(like),
                  ", got ", shape_of(*t));
  return dense_like(*t, like);
}

}  // namespace

BiasActArgs::BiasActArgs(const Tensor& like, const std::optional<Tensor>& dy, const std::optional<Tensor>& x,
                         const std::optional<Tensor>& b, int64_t dim, const std::string& act, double alpha, double gain,
                         double clamp, int64_t order)
    : out(torch::stable::empty_like(like)), dtype(dtype_of(like, "bias_act", order ? "y" : "x")) {
  const int64_t rank = like.dim();
  STD_TORCH_CHECK(rank == 0 ? dim == 0 : dim >= 0 && dim < rank, "bias_act: dim must be in [0, ", rank, "), got ", dim);
  STD_TORCH_CHECK(order >= 0 && order <= 3, "bias_act: order must be in [0, 3], got ", order);
  params.act = act_of(act, "bias_act");
  STD_TORCH_CHECK(x || is_piecewise(params.act), "bias_act: ", act, " needs x for its derivatives, got None");
  params.numel = like.numel();
  params.bias_size = rank ? like.size(dim) : 1;
  // A dimension of one step may have any stride: all elements then share one bias.
  params.bias_stride = params.bias_size > 1 ? out.stride(dim) : std::max<int64_t>(params.numel, 1);
  STD_TORCH_CHECK(params.bias_size < (int64_t{1} << 30), "bias_act: x must have less than 2^30 biases, got ",
                  params.bias_size);
  if (b) {
    check_like(*b, like, "bias_act", "b");
    check_shape(*b, {params.bias_size}, "bias_act", "b");
    b_ = torch::stable::contiguous(*b);
  }
  x_ = dense(x, out, "x");
  dy_ = dense(dy, out, "dy");
  if (order) y_ = dense(like, out, "y");
  params.x = data(x_);
  params.b = data(b_);
  params.dy = data(dy_);
  params.y = data(y_);
  params.out = out.mutable_data_ptr();
  params.alpha = alpha;
  params.gain = gain;
  params.clamp = clamp;
  params.order = static_cast<int>(order);
}

Tensor BiasActArgs::new_bias_grad(bool wanted) const {
  Tensor db = torch::stable::new_empty(out, {wanted ? params.bias_size : 0});
  return wanted && params.numel == 0 ? torch::stable::zero_(db) : db;
}

}  // namespace mmif
