// mmif::bias_act and mmif::bias_act_grad on the device. Schemas, fakes and autograd: mmif/ops/bias_act.py.
#include "bias_act.h"

#include <algorithm>
#include <tuple>

#include "bias_act_args.h"
#include "tensors.h"

namespace mmif {
namespace {

Tensor bias_act_device(const Tensor& x, const std::optional<Tensor>& b, int64_t dim, std::string act, double alpha,
                       double gain, double clamp) {
  BiasActArgs args(x, std::nullopt, x, b, dim, act, alpha, gain, clamp, 0);
  if (x.numel() == 0) return args.out;
  const DeviceScope scope(x);
  check_launch(launch_bias_act(args.params, args.dtype, current_stream(x)), "bias_act");
  return args.out;
}

std::tuple<Tensor, Tensor> bias_act_grad_device(const Tensor& dy, const std::optional<Tensor>& x,
                                                const std::optional<Tensor>& b, const Tensor& y, int64_t dim,
                                                std::string act, double alpha, double gain, double clamp, int64_t order,
                                                bool bias_grad) {
  BiasActArgs args(y, dy, x, b, dim, act, alpha, gain, clamp, order);
  Tensor db = args.new_bias_grad(bias_grad);
  if (y.numel() == 0) return {args.out, db};
  const DeviceScope scope(y);
  void* stream = current_stream(y);
  if (!bias_grad) {
    check_launch(launch_bias_act(args.params, args.dtype, stream), "bias_act_grad");
    return {args.out, db};
  }
  const auto acc =
      args.dtype == DType::kFloat64 ? torch::headeronly::ScalarType::Double : torch::headeronly::ScalarType::Float;
  Tensor partial = torch::stable::new_empty(y, {bias_act_partial_rows(args.params), args.params.bias_size}, acc);
  check_launch(
      launch_bias_act_reduce(args.params, partial.mutable_data_ptr(), db.mutable_data_ptr(), args.dtype, stream),
      "bias_act_grad");
  return {args.out, db};
}

}  // namespace
}  // namespace mmif

STABLE_TORCH_LIBRARY_IMPL(mmif, MMIF_DEVICE_KEY, m) {
  m.impl("bias_act", TORCH_BOX(&mmif::bias_act_device));
  m.impl("bias_act_grad", TORCH_BOX(&mmif::bias_act_grad_device));
}
