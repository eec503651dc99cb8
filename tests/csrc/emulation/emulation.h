// CUDA on the CPU, for tests: what csrc/platform.h includes under MMIF_EMULATE, so that a .cu file compiles as C++.
//
// Every CUDA thread is a fiber; emulation.cpp runs one at a time until it waits at a barrier or shuffle. A mistake of a
// kernel that a GPU would answer with a hang or with garbage ends the process with one line.
#pragma once

#include <torch/headeronly/util/BFloat16.h>
#include <torch/headeronly/util/Half.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <string_view>
#include <tuple>
#include <type_traits>

#define __host__
#define __device__
#define __global__ static  // makes its __shared__ variables this file's own: AddressSanitizer guards no others
#define __forceinline__ inline
#define __launch_bounds__(...)
#if defined(__SANITIZE_ADDRESS__)
#define __shared__ static  // AddressSanitizer puts guards around static arrays, not around thread-local ones
#else
#define __shared__ static thread_local  // so that a block can start with NaN in all of it: see emulation.cpp
#endif

struct dim3 {
  uint32_t x, y, z;
  constexpr dim3(uint32_t x = 1, uint32_t y = 1, uint32_t z = 1) : x(x), y(y), z(z) {}
};

extern dim3 threadIdx, blockIdx, blockDim, gridDim;

using std::max;
using std::min;

using __half = c10::Half;
using __nv_bfloat16 = c10::BFloat16;

// Both conversions round to nearest even and keep NaN.
inline float __half2float(__half v) { return v; }
inline __half __float2half(float v) { return v; }
inline float __bfloat162float(__nv_bfloat16 v) { return v; }
inline __nv_bfloat16 __float2bfloat16(float v) { return v; }

template <typename T>
T __ldg(const T* address) {
  return *address;
}

// Fibers take turns, so that a plain sum is atomic.
template <typename T>
T atomicAdd(T* address, T value) {
  const T old = *address;
  *address = old + value;
  return old;
}

namespace mmif::emulation {

// One instance of a kernel that this library can launch. Makes itself known when the library is loaded.
struct Kernel {
  explicit Kernel(const char* signature);  // of signature_of<kernel>, as the compiler prints it

  std::string_view name;
  bool ran = false;
};

// Runs `thread(arguments)` for every thread of the grid. Returns 0, or CUDA's error code for sizes beyond its limits.
int run_grid(Kernel& kernel, dim3 grid, dim3 block, void (*thread)(void*), void* arguments);

void sync_block();
// `operation` names the intrinsic, for messages and because all lanes must call the same one.
void sync_warp(const char* operation, uint32_t mask);
// Each lane of `mask` gives `value` and gets that of lane `source`; NaN where `source` is not in `mask`.
uint64_t exchange(const char* operation, uint32_t mask, uint64_t value, int source);
int lane();

template <auto kernel>
const char* signature_of() {
  return __PRETTY_FUNCTION__;
}
template <auto kernel>
Kernel instance(signature_of<kernel>());

// The arguments as the parameters of the kernel.
template <typename... Parameters, typename... Arguments>
std::tuple<Parameters...> converted(void (*)(Parameters...), const Arguments&... arguments) {
  static_assert((std::is_trivially_copyable_v<Parameters> && ...), "CUDA copies parameters bit by bit");
  return {arguments...};
}

template <auto kernel, typename... Arguments>
int launch(dim3 grid, dim3 block, const Arguments&... arguments) {
  auto parameters = converted(kernel, arguments...);
  const auto thread = [](void* p) { std::apply(kernel, *static_cast<decltype(parameters)*>(p)); };
  return run_grid(instance<kernel>, grid, block, thread, &parameters);
}

template <typename T>
T shuffle(const char* operation, uint32_t mask, T value, int source) {
  static_assert(std::is_arithmetic_v<T> && sizeof(T) <= sizeof(uint64_t), "shuffles move int, float or double");
  uint64_t bits = 0;
  std::memcpy(&bits, &value, sizeof(T));
  bits = exchange(operation, mask, bits, source);
  std::memcpy(&value, &bits, sizeof(T));
  return value;
}

// First and last lane of the calling lane's group of `width`.
inline int first_lane(int width) { return lane() & -width; }
inline int last_lane(int width) { return first_lane(width) + width - 1; }

}  // namespace mmif::emulation

inline void __syncthreads() { mmif::emulation::sync_block(); }
inline void __syncwarp(uint32_t mask = 0xffffffffu) { mmif::emulation::sync_warp("__syncwarp", mask); }

template <typename T>
T __shfl_sync(uint32_t mask, T value, int source, int width = 32) {
  using namespace mmif::emulation;
  return shuffle("__shfl_sync", mask, value, first_lane(width) + (source & (width - 1)));
}

// Below, a lane whose source lies beyond its group keeps its own value.
template <typename T>
T __shfl_up_sync(uint32_t mask, T value, unsigned delta, int width = 32) {
  using namespace mmif::emulation;
  const int source = lane() - static_cast<int>(delta);
  return shuffle("__shfl_up_sync", mask, value, source < first_lane(width) ? lane() : source);
}

template <typename T>
T __shfl_down_sync(uint32_t mask, T value, unsigned delta, int width = 32) {
  using namespace mmif::emulation;
  const int source = lane() + static_cast<int>(delta);
  return shuffle("__shfl_down_sync", mask, value, source > last_lane(width) ? lane() : source);
}

template <typename T>
T __shfl_xor_sync(uint32_t mask, T value, int lanes, int width = 32) {
  using namespace mmif::emulation;
  const int source = lane() ^ lanes;
  return shuffle("__shfl_xor_sync", mask, value, source > last_lane(width) ? lane() : source);
}

// See csrc/platform.h.
#define MMIF_LAUNCH(kernel, grid, block, stream, ...) \
  (static_cast<void>(stream), mmif::emulation::launch<kernel>(grid, block, __VA_ARGS__))
