// The nine StyleGAN activations and their derivatives up to order three, for device and host.
#pragma once

#include <cmath>

#include "host_device.h"

namespace mmif {

enum class Act : int { kLinear, kRelu, kLrelu, kTanh, kSigmoid, kElu, kSelu, kSoftplus, kSwish };

// linear, relu and lrelu: two straight pieces, told apart by the sign alone.
inline bool is_piecewise(Act act) { return act <= Act::kLrelu; }
inline double negative_slope(Act act, double alpha) {
  return act == Act::kLinear ? 1.0 : act == Act::kRelu ? 0.0 : alpha;
}

// NaN stays NaN; -inf times a slope of zero is 0, not NaN.
template <typename A>
MMIF_HD A piecewise(A z, A slope) {
  return z > 0 ? z : slope != 0 ? z * slope : z < 0 ? A(0) : z;
}

// NaN stays NaN.
template <typename A>
MMIF_HD A clamp_to(A v, A limit) {
  return v > limit ? limit : v < -limit ? -limit : v;
}

// Derivative of order `order` of sigmoid at a point where its value is s.
template <typename A>
MMIF_HD A sigmoid_derivative(A s, int order) {
  const A first = s * (1 - s);
  if (order == 0) return s;
  if (order == 1) return first;
  return order == 2 ? first * (1 - 2 * s) : first * (1 - 6 * s + 6 * s * s);
}

template <typename A>
MMIF_HD A tanh_derivative(A t, int order) {
  const A first = 1 - t * t;
  if (order == 0) return t;
  if (order == 1) return first;
  return order == 2 ? -2 * t * first : first * (6 * t * t - 2);
}

// elu is scale 1, alpha 1. exp(0) = 1 and not expm1 + 1 behind the first derivative: the reference
// does so.
template <typename A>
MMIF_HD A elu_derivative(A z, A scale, A alpha, int order) {
  if (z > 0) return order == 0 ? scale * z : order == 1 ? scale : A(0);
  return order == 0 ? scale * alpha * std::expm1(z) : scale * alpha * std::exp(z);
}

// Derivative of order 0..3 of a smooth activation at z.
template <typename A>
MMIF_HD A smooth(Act act, A z, int order) {
  if (act == Act::kTanh) return tanh_derivative(std::tanh(z), order);
  if (act == Act::kElu) return elu_derivative(z, A(1), A(1), order);
  if (act == Act::kSelu) return elu_derivative(z, A(1.0507009873554805), A(1.6732632423543772), order);
  if (act == Act::kSoftplus && order == 0) return z > 20 ? z : std::log1p(std::exp(z));
  const A s = 1 / (1 + std::exp(-z));
  if (act == Act::kSigmoid) return sigmoid_derivative(s, order);
  if (act == Act::kSoftplus) return sigmoid_derivative(s, order - 1);
  const A outer = z * sigmoid_derivative(s, order);  // swish = z s, so its k-th derivative is z s^(k) + k s^(k-1)
  return order == 0 ? outer : outer + order * sigmoid_derivative(s, order - 1);
}

}  // namespace mmif
