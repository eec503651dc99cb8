// mmif::demodulate on the device. Schema, fake and reference: mmif/ops/demodulate.py.
#include "demodulate.h"

#include <tuple>

#include "tensors.h"

namespace mmif {
namespace {

constexpr const char* kOp = "demodulate";

std::tuple<Tensor, Tensor> demodulate_device(Tensor styles, Tensor w2, double eps) {
  for (const Tensor& t : {styles, w2}) {
    STD_TORCH_CHECK(t.dim() == 3 && t.scalar_type() == torch::headeronly::ScalarType::Float, kOp,
                    ": styles and w2 must be float32 [L, N, I] and [L, O, I], got ", name_of(t.scalar_type()), " ",
                    shape_of(t));
  }
  DemodulateParams p{};
  p.layers = styles.size(0);
  p.n = styles.size(1);
  p.in_channels = styles.size(2);
  p.out_channels = w2.size(1);
  p.eps = static_cast<float>(eps);
  check_like(w2, styles, kOp, "w2");
  check_shape(w2, {p.layers, p.out_channels, p.in_channels}, kOp, "w2");
  STD_TORCH_CHECK(p.layers <= 65535, kOp, ": there must be at most 65535 layers, got ", p.layers);
  const Tensor dense_styles = torch::stable::contiguous(styles), dense_w2 = torch::stable::contiguous(w2);
  Tensor scaled = torch::stable::new_empty(styles, {p.layers, p.n, p.in_channels});
  Tensor demod = torch::stable::new_empty(styles, {p.layers, p.n, p.out_channels});
  if (scaled.numel() == 0 && demod.numel() == 0) return {scaled, demod};
  p.styles = static_cast<const float*>(dense_styles.const_data_ptr());
  p.w2 = static_cast<const float*>(dense_w2.const_data_ptr());
  p.scaled = static_cast<float*>(scaled.mutable_data_ptr());
  p.demod = static_cast<float*>(demod.mutable_data_ptr());
  const DeviceScope scope(styles);
  check_launch(launch_demodulate(p, current_stream(styles)), kOp);
  return {scaled, demod};
}

}  // namespace
}  // namespace mmif

STABLE_TORCH_LIBRARY_IMPL(mmif, MMIF_DEVICE_KEY, m) { m.impl("demodulate", TORCH_BOX(&mmif::demodulate_device)); }
