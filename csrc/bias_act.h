// Launchers of bias_act: the function, its derivatives, and the derivative with the bias gradient reduced beside it.
#pragma once

#include <cstdint>

#include "activation.h"
#include "params.h"

namespace mmif {

// All tensors are dense in one memory order; the bias of flat element i is b[i / bias_stride % bias_size].
struct BiasActParams {
  const void* x;   // [numel]; order >= 1 of a piecewise linear activation: nullptr
  const void* b;   // [bias_size] or nullptr
  const void* dy;  // [numel], order >= 1
  const void* y;   // [numel], order >= 1: output of the function; its sign and size tell piece and clamp
  void* out;       // [numel]
  int64_t numel, bias_stride, bias_size;
  double alpha, gain;
  double clamp;  // < 0: none
  Act act;
  int order;  // 0: clamp(gain * act(x + b)); 1..3: dy * gain * act^(order)(x + b), zero where
              // clamped
};

// Rows of partial sums, each of bias_size numbers, that launch_bias_act_reduce needs.
int64_t bias_act_partial_rows(const BiasActParams& p);

int launch_bias_act(const BiasActParams& p, DType dtype, void* stream);

// Order >= 1. Also writes db[c], the sum of `out` over everything but the bias's dimension.
// `partial` is scratch, float (double for kFloat64) [bias_act_partial_rows(p), bias_size]; the
// order of summation is fixed.
int launch_bias_act_reduce(const BiasActParams& p, void* partial, void* db, DType dtype, void* stream);

}  // namespace mmif
