// mmif::bias_act and mmif::bias_act_grad on the CPU: loops that the compiler vectorises, in torch's thread pool.
#include <torch/headeronly/util/BFloat16.h>
#include <torch/headeronly/util/Half.h>

#include <algorithm>
#include <tuple>
#include <vector>

#include "bias_act_args.h"

namespace mmif {
namespace {

constexpr int64_t kGrain = 32768;  // elements per thread below which a second thread does not pay

template <typename T>
using Acc = std::conditional_t<std::is_same_v<T, double>, double, float>;

// The derivative compares the limit with outputs, which are rounded to T.
template <typename T>
Acc<T> rounded_clamp(const BiasActParams& p) {
  return static_cast<Acc<T>>(static_cast<T>(p.clamp));
}

// Elements [begin, end) of one row whose bias is constant (`step` 0) or runs with the element (`step` 1).
template <typename T, bool GRAD, bool CLAMP>
void piecewise_row(const BiasActParams& p, int64_t begin, int64_t end, const T* b, int step) {
  using A = Acc<T>;
  const A slope = static_cast<A>(negative_slope(p.act, p.alpha)), gain = static_cast<A>(p.gain);
  const A limit = rounded_clamp<T>(p), order1 = p.order == 1 ? A(1) : A(0);
  const T* x = static_cast<const T*>(p.x);
  const T* dy = static_cast<const T*>(p.dy);
  const T* y = static_cast<const T*>(p.y);
  T* out = static_cast<T*>(p.out);
  for (int64_t i = begin; i < end; ++i) {
    if constexpr (GRAD) {
      const A y_i = y[i], slope_i = y_i * gain > 0 ? A(1) : slope;
      const A v = static_cast<A>(dy[i]) * (gain * slope_i * order1);
      out[i] = static_cast<T>(!CLAMP || (y_i < limit && y_i > -limit) ? v : A(0));
    } else {
      const A z = static_cast<A>(x[i]) + (b ? static_cast<A>(b[(i - begin) * step]) : A(0));
      const A v = piecewise(z, slope) * gain;
      out[i] = static_cast<T>(CLAMP ? clamp_to(v, limit) : v);
    }
  }
}

template <typename T>
void smooth_row(const BiasActParams& p, int64_t begin, int64_t end, const T* b, int step) {
  using A = Acc<T>;
  const A gain = static_cast<A>(p.gain), limit = rounded_clamp<T>(p);
  for (int64_t i = begin; i < end; ++i) {
    const A bias = b ? static_cast<A>(b[(i - begin) * step]) : A(0);
    A v = gain * smooth(p.act, static_cast<A>(static_cast<const T*>(p.x)[i]) + bias, p.order);
    if (p.order) {
      const A y = static_cast<const T*>(p.y)[i];
      v = p.clamp < 0 || (y < limit && y > -limit) ? v * static_cast<A>(static_cast<const T*>(p.dy)[i]) : A(0);
    } else if (p.clamp >= 0) {
      v = clamp_to(v, limit);
    }
    static_cast<T*>(p.out)[i] = static_cast<T>(v);
  }
}

template <typename T>
auto row_function(const BiasActParams& p) {
  if (!is_piecewise(p.act)) return &smooth_row<T>;
  if (p.order) return p.clamp >= 0 ? &piecewise_row<T, true, true> : &piecewise_row<T, true, false>;
  return p.clamp >= 0 ? &piecewise_row<T, false, true> : &piecewise_row<T, false, false>;
}

// A row is as long as the bias is constant (NCHW), or all channels of one position (channels last).
template <typename T>
void run(const BiasActParams& p) {
  const auto row = row_function<T>(p);
  const T* b = static_cast<const T*>(p.b);
  const bool innermost = p.bias_stride == 1;
  const int64_t length = !b ? std::min(p.numel, kGrain) : innermost ? p.bias_size : p.bias_stride;
  const int64_t rows = (p.numel + length - 1) / length;
  torch::stable::parallel_for(0, rows, std::max<int64_t>(1, kGrain / length), [&](int64_t first, int64_t last) {
    for (int64_t r = first; r < last; ++r) {
      const T* bias = !b || innermost ? b : b + r % p.bias_size;
      row(p, r * length, std::min((r + 1) * length, p.numel), bias, innermost);
    }
  });
}

// db[c] = sum of out over everything but the channels, in double, in a fixed order whatever the number of threads.
template <typename T>
void sum_to_bias(const BiasActParams& p, T* db) {
  const T* out = static_cast<const T*>(p.out);
  const int64_t inner = p.bias_stride, channels = p.bias_size, outer = p.numel / (inner * channels);
  torch::stable::parallel_for(0, channels, std::max<int64_t>(1, kGrain / (inner * outer)),
                              [&](int64_t first, int64_t last) {
                                std::vector<double> sums(last - first);
                                for (int64_t o = 0; o < outer; ++o) {
                                  for (int64_t c = first; c < last; ++c) {
                                    const T* plane = out + (o * channels + c) * inner;
                                    double lanes[8] = {};  // eight sums side by side: one would wait for itself
                                    int64_t i = 0;
                                    for (; i + 8 <= inner; i += 8) {
                                      for (int k = 0; k < 8; ++k) lanes[k] += static_cast<Acc<T>>(plane[i + k]);
                                    }
                                    for (; i < inner; ++i) lanes[0] += static_cast<Acc<T>>(plane[i]);
                                    for (const double lane : lanes) sums[c - first] += lane;
                                  }
                                }
                                for (int64_t c = first; c < last; ++c) db[c] = static_cast<T>(sums[c - first]);
                              });
}

template <typename T>
void run_with_bias_grad(const BiasActParams& p, void* db) {
  run<T>(p);
  if (db) sum_to_bias(p, static_cast<T*>(db));
}

void compute(const BiasActArgs& args, void* db) {
  if (args.params.numel == 0) return;
  switch (args.dtype) {
    case DType::kFloat16:
      return run_with_bias_grad<torch::headeronly::Half>(args.params, db);
    case DType::kBFloat16:
      return run_with_bias_grad<torch::headeronly::BFloat16>(args.params, db);
    case DType::kFloat32:
      return run_with_bias_grad<float>(args.params, db);
    case DType::kFloat64:
      return run_with_bias_grad<double>(args.params, db);
  }
}

Tensor bias_act_cpu(const Tensor& x, const std::optional<Tensor>& b, int64_t dim, std::string act, double alpha,
                    double gain, double clamp) {
  const BiasActArgs args(x, std::nullopt, x, b, dim, act, alpha, gain, clamp, 0);
  compute(args, nullptr);
  return args.out;
}

std::tuple<Tensor, Tensor> bias_act_grad_cpu(const Tensor& dy, const std::optional<Tensor>& x,
                                             const std::optional<Tensor>& b, const Tensor& y, int64_t dim,
                                             std::string act, double alpha, double gain, double clamp, int64_t order,
                                             bool bias_grad) {
  const BiasActArgs args(y, dy, x, b, dim, act, alpha, gain, clamp, order);
  Tensor db = args.new_bias_grad(bias_grad);
  compute(args, bias_grad ? db.mutable_data_ptr() : nullptr);
  return {args.out, db};
}

}  // namespace
}  // namespace mmif

STABLE_TORCH_LIBRARY_IMPL(mmif, CPU, m) {
  m.impl("bias_act", TORCH_BOX(&mmif::bias_act_cpu));
  m.impl("bias_act_grad", TORCH_BOX(&mmif::bias_act_grad_cpu));
}
