// mmif::upfirdn2d on the device. Schema, fake and autograd: mmif/ops/upfirdn2d.py.
#include "upfirdn2d.h"

#include "upfirdn2d_args.h"

namespace mmif {
namespace {

Tensor upfirdn2d_device(const Tensor& x, const Tensor& f, std::vector<int64_t> factors, std::vector<int64_t> pads,
                        bool flip_filter, double gain) {
  const Upfirdn2dArgs args(x, f, factors, pads, flip_filter, gain);
  if (args.out.numel() == 0) return args.out;
  const DeviceScope scope(x);
  check_launch(launch_upfirdn2d(args.params, args.dtype, current_stream(x)), "upfirdn2d");
  return args.out;
}

}  // namespace
}  // namespace mmif

STABLE_TORCH_LIBRARY_IMPL(mmif, MMIF_DEVICE_KEY, m) { m.impl("upfirdn2d", TORCH_BOX(&mmif::upfirdn2d_device)); }
