// Small kernels that use the emulation well or badly; the argument names one. Prints what is wrong, or nothing.
#include <cstdio>
#include <functional>
#include <limits>
#include <map>
#include <string>
#include <vector>

#include "platform.h"

namespace {

constexpr uint32_t kAll = 0xffffffffu;

int expect(const char* what, const std::vector<float>& got, const std::function<float(int)>& expected) {
  for (int i = 0; i < static_cast<int>(got.size()); ++i)
    if (got[i] != expected(i)) return std::printf("%s: [%d] must be %g, got %g\n", what, i, expected(i), got[i]);
  return 0;
}

__global__ void indices_kernel(float* out) {
  const int thread = threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z);
  const int block = blockIdx.x + gridDim.x * (blockIdx.y + gridDim.y * blockIdx.z);
  atomicAdd(out + block * 24 + thread, static_cast<float>(block * 24 + thread + 1));
}

int indices() {
  std::vector<float> out(24 * 24, -1);
  return MMIF_LAUNCH(indices_kernel, dim3(2, 3, 4), dim3(3, 4, 2), nullptr, out.data()) +
         expect("index", out, [](int i) { return static_cast<float>(i); });
}

// Each warp turns its values round, twice at different widths, and the block adds up what thread i + 1 has.
__global__ void exchange_kernel(float* out) {
  __shared__ float all[64];
  const int i = threadIdx.x;
  const float up = __shfl_up_sync(kAll, static_cast<float>(i), 3, 8);
  const int down = __shfl_down_sync(kAll, i, 5, 16);
  const double swapped = __shfl_xor_sync(kAll, static_cast<double>(i), 1);
  const unsigned first = __shfl_sync(kAll, static_cast<unsigned>(i), 0, 4);
  all[i] = up + 64 * (down + 64 * (static_cast<float>(swapped) + 64 * first));
  __syncthreads();
  out[i] = __ldg(all + (i + 1) % 64);
}

int exchange() {
  std::vector<float> out(64);
  return MMIF_LAUNCH(exchange_kernel, 1, 64, nullptr, out.data()) + expect("exchange", out, [](int i) {
           const int j = (i + 1) % 64, up = j % 8 < 3 ? j : j - 3, down = j % 16 + 5 > 15 ? j : j + 5;
           return static_cast<float>(up + 64 * (down + 64 * ((j ^ 1) + 64 * (j / 4 * 4))));
         });
}

// Half warps that go different ways, and threads that return where nobody waits for them.
__global__ void branches_kernel(float* out) {
  const int i = threadIdx.x;
  if (i % 32 < 16) {
    out[i] = static_cast<float>(__shfl_xor_sync(0x0000ffffu, i, 8));
    return;
  }
  __syncwarp(0xffff0000u);
  out[i] = static_cast<float>(__shfl_sync(0xffff0000u, i, 16));
}

int branches() {
  std::vector<float> out(64);
  return MMIF_LAUNCH(branches_kernel, 1, 64, nullptr, out.data()) +
         expect("branches", out, [](int i) { return static_cast<float>(i % 32 < 16 ? i ^ 8 : i / 32 * 32 + 16); });
}

__global__ void stranger_kernel(float* out) {
  if (threadIdx.x < 16) out[threadIdx.x] = __shfl_sync(0xffffu, 1.0f, 16);
}

int stranger() {
  std::vector<float> out(16);
  MMIF_LAUNCH(stranger_kernel, 1, 32, nullptr, out.data());
  return std::isnan(out[0]) ? 0 : std::printf("stranger: a lane not in the mask must give NaN, got %g\n", out[0]);
}

__global__ void uninitialised_kernel(float* out) {
  __shared__ float shared[32];
  out[32 * blockIdx.x + threadIdx.x] = shared[threadIdx.x];
  __syncthreads();
  shared[threadIdx.x] = 1;
}

int uninitialised() {
  std::vector<float> out(64);
  MMIF_LAUNCH(uninitialised_kernel, 2, 32, nullptr, out.data());
  for (const float v : out)
    if (!std::isnan(v)) return std::printf("uninitialised: shared memory must start as NaN, got %g\n", v);
  return 0;
}

int limits() {
  const int codes = MMIF_LAUNCH(indices_kernel, 0, 32, nullptr, nullptr) +
                    MMIF_LAUNCH(indices_kernel, 1, 1025, nullptr, nullptr) +
                    MMIF_LAUNCH(indices_kernel, dim3(1, 65536), 32, nullptr, nullptr);
  return codes == 3 * 9 ? 0 : std::printf("limits: each launch must return 9, the sum is %d\n", codes);
}

int conversions() {
  const float nan = std::numeric_limits<float>::quiet_NaN(), inf = std::numeric_limits<float>::infinity();
  const std::vector<float> values = {1 + 0x1p-11f, 1 + 0x3p-11f, 65520, 0x1p-25f, 0x3p-25f, -inf};
  const std::vector<float> halves = {1, 1 + 0x1p-9f, inf, 0, 0x1p-23f, -inf};
  if (!std::isnan(__half2float(__float2half(nan))) || !std::isnan(__bfloat162float(__float2bfloat16(nan))))
    return std::printf("conversions: NaN must stay NaN\n");
  std::vector<float> got;
  for (const float v : values) got.push_back(__half2float(__float2half(v)));
  if (expect("float16", got, [&](int i) { return halves[i]; })) return 1;
  got = {__bfloat162float(__float2bfloat16(1 + 0x1p-8f)), __bfloat162float(__float2bfloat16(1 + 0x3p-8f))};
  return expect("bfloat16", got, [](int i) { return i ? 1 + 0x1p-6f : 1; });
}

__global__ void barrier_without_all_kernel(float*) {
  if (threadIdx.x >= 32) __syncthreads();
}

__global__ void shuffle_without_all_kernel(float*) {
  if (threadIdx.x != 7) __shfl_down_sync(kAll, 1.0f, 1);
}

__global__ void shuffle_and_barrier_kernel(float*) {
  if (threadIdx.x == 9) __syncthreads();
  __syncwarp();
}

__global__ void different_operations_kernel(float*) {
  if (threadIdx.x % 2) __shfl_up_sync(kAll, 1, 1);
  __shfl_down_sync(kAll, 1, 1);
}

__global__ void mask_without_caller_kernel(float*) { __syncwarp(1); }

__global__ void full_mask_kernel(float*) { __syncwarp(); }

const std::map<std::string, std::function<int()>> kCases = {
    {"indices", indices},
    {"exchange", exchange},
    {"branches", branches},
    {"stranger", stranger},
    {"uninitialised", uninitialised},
    {"limits", limits},
    {"conversions", conversions},
    {"barrier_without_all", [] { return MMIF_LAUNCH(barrier_without_all_kernel, 1, 64, nullptr, nullptr); }},
    {"shuffle_without_all", [] { return MMIF_LAUNCH(shuffle_without_all_kernel, 1, 32, nullptr, nullptr); }},
    {"shuffle_and_barrier", [] { return MMIF_LAUNCH(shuffle_and_barrier_kernel, 1, 32, nullptr, nullptr); }},
    {"different_operations", [] { return MMIF_LAUNCH(different_operations_kernel, 1, 32, nullptr, nullptr); }},
    {"mask_without_caller", [] { return MMIF_LAUNCH(mask_without_caller_kernel, 1, 32, nullptr, nullptr); }},
    {"partial_warp", [] { return MMIF_LAUNCH(full_mask_kernel, 1, 48, nullptr, nullptr); }},
};

}  // namespace

int main(int, char** argv) { return kCases.at(argv[1])() != 0; }
