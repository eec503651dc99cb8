// The four floating types of the ops, the type each computes in, and vectors of them.
#pragma once

#include <cstdint>

#include "params.h"
#include "platform.h"

namespace mmif {

// Half precision computes in float, the others in themselves.
template <typename T>
struct AccOf {
  using type = float;
};
template <>
struct AccOf<double> {
  using type = double;
};
template <typename T>
using Acc = typename AccOf<T>::type;

__host__ __device__ __forceinline__ float to_acc(__half v) { return __half2float(v); }
__host__ __device__ __forceinline__ float to_acc(__nv_bfloat16 v) { return __bfloat162float(v); }
__host__ __device__ __forceinline__ float to_acc(float v) { return v; }
__host__ __device__ __forceinline__ double to_acc(double v) { return v; }

template <typename T>
__host__ __device__ __forceinline__ T from_acc(Acc<T> v) {
  return static_cast<T>(v);
}
template <>
__host__ __device__ __forceinline__ __half from_acc<__half>(float v) {
  return __float2half(v);
}
template <>
__host__ __device__ __forceinline__ __nv_bfloat16 from_acc<__nv_bfloat16>(float v) {
  return __float2bfloat16(v);
}

// V elements that are loaded and stored at once; 16 bytes where V = kVector<T>.
template <typename T, int V>
struct alignas(sizeof(T) * V) Vec {
  T v[V];
};
template <typename T>
constexpr int kVector = 16 / sizeof(T);

template <typename T, int V>
__device__ __forceinline__ Vec<T, V> load(const void* base, int64_t index) {
  return reinterpret_cast<const Vec<T, V>*>(base)[index];
}
template <typename T, int V>
__device__ __forceinline__ void store(void* base, int64_t index, const Vec<T, V>& value) {
  reinterpret_cast<Vec<T, V>*>(base)[index] = value;
}

// Calls `f` with a value of the type that `dtype` names and returns what it returns.
template <typename F>
int dispatch(DType dtype, F&& f) {
  switch (dtype) {
    case DType::kFloat16:
      return f(__half{});
    case DType::kBFloat16:
      return f(__nv_bfloat16{});
    case DType::kFloat32:
      return f(float{});
    default:
      return f(double{});
  }
}

inline bool aligned16(const void* pointer) { return reinterpret_cast<uintptr_t>(pointer) % 16 == 0; }

// Division by a constant of numbers below 2^31, without a division (Granlund and Montgomery 1994).
struct Divisor {
  uint32_t divisor = 1, multiplier = 0, shift = 0;

  Divisor() = default;
  explicit Divisor(uint32_t d) : divisor(d) {
    while ((uint64_t{1} << shift) < d) ++shift;
    multiplier = static_cast<uint32_t>(((uint64_t{1} << 32) * ((uint64_t{1} << shift) - d)) / d + 1);
  }
  __host__ __device__ __forceinline__ uint32_t quotient(uint32_t n) const {
    const auto high = static_cast<uint32_t>((static_cast<uint64_t>(n) * multiplier) >> 32);
    return (high + n) >> shift;
  }
  __host__ __device__ __forceinline__ uint32_t remainder(uint32_t n) const { return n - quotient(n) * divisor; }
};

}  // namespace mmif
