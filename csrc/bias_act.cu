// bias_act on the GPU. Memory-bound: 16-byte accesses where alignment allows, one pass, float arithmetic in registers.
#include <algorithm>

#include "bias_act.h"
#include "dtype.h"

namespace mmif {
namespace {

constexpr int kThreads = 256;
constexpr int kUnroll = 4;                    // vectors in flight per thread
constexpr int64_t kSlice = int64_t{1} << 30;  // elements per launch, so that indices fit in 31 bits
constexpr int kMaxPartialRows = 256;

// What an element needs to know, in the arithmetic type.
template <typename T>
struct Math {
  using A = Acc<T>;
  A slope, gain;
  A clamp;  // rounded to T: the derivative compares it with outputs, which are
  Act act;
  int order;

  explicit Math(const BiasActParams& p)
      : slope(static_cast<A>(negative_slope(p.act, p.alpha))),
        gain(static_cast<A>(p.gain)),
        clamp(to_acc(from_acc<T>(static_cast<A>(p.clamp)))),
        act(p.act),
        order(p.order) {}

  __device__ A forward(A z, bool is_smooth) const {
    const A v = (is_smooth ? smooth(act, z, 0) : piecewise(z, slope)) * gain;
    return clamp >= 0 ? clamp_to(v, clamp) : v;
  }
  // z: pre-activation; of a piecewise activation only its sign is used.
  __device__ A backward(A dy, A z, A y, bool is_smooth) const {
    const A slope_here = order > 1 ? A(0) : z > 0 ? A(1) : slope;
    const A v = dy * (gain * (is_smooth ? smooth(act, z, order) : slope_here));
    return clamp < 0 || (y < clamp && y > -clamp) ? v : A(0);
  }
};

// The tensors of one launch; the kernels differ only in how they walk over them.
template <typename T, int V, bool SMOOTH, bool GRAD>
struct Element {
  const void *x, *dy, *y;
  void* out;
  Math<T> math;

  explicit Element(const BiasActParams& p) : x(p.x), dy(p.dy), y(p.y), out(p.out), math(p) {}

  struct Inputs {
    Vec<T, V> x, dy, y;
  };

  __device__ Inputs read(int64_t i) const {
    Inputs in{};
    if (!GRAD || SMOOTH) in.x = load<T, V>(x, i);
    if (GRAD) {
      in.dy = load<T, V>(dy, i);
      in.y = load<T, V>(y, i);
    }
    return in;
  }
  // Computes element k of the vector; `b` is its bias.
  __device__ T compute(const Inputs& in, int k, Acc<T> b) const {
    if (!GRAD) return from_acc<T>(math.forward(to_acc(in.x.v[k]) + b, SMOOTH));
    const Acc<T> y_k = to_acc(in.y.v[k]);
    const Acc<T> z = SMOOTH ? to_acc(in.x.v[k]) + b : y_k * math.gain;
    return from_acc<T>(math.backward(to_acc(in.dy.v[k]), z, y_k, SMOOTH));
  }
};

// Where the bias of a vector's elements lies. `shift` is the position of this launch's first element.
struct BiasIndex {
  Divisor stride, size;
  uint32_t shift, base;

  __device__ uint32_t operator()(uint32_t element) const {
    return size.remainder(stride.quotient(element + shift) + base);
  }
};

// Thread mapping: a block of kThreads takes kThreads * kUnroll vectors, neighbours next to each other. Each thread
// loads all its vectors before it computes the first. No shared memory.
template <typename T, int V, bool SMOOTH, bool GRAD>
__global__ void __launch_bounds__(kThreads)
    bias_act_kernel(Element<T, V, SMOOTH, GRAD> element, const T* b, BiasIndex where, uint32_t vectors) {
  using Inputs = typename Element<T, V, SMOOTH, GRAD>::Inputs;
  const uint32_t first = blockIdx.x * (kThreads * kUnroll) + threadIdx.x;
  Inputs in[kUnroll];
#pragma unroll
  for (int u = 0; u < kUnroll; ++u) {
    const uint32_t i = first + u * kThreads;
    if (i < vectors) in[u] = element.read(i);
  }
#pragma unroll
  for (int u = 0; u < kUnroll; ++u) {
    const uint32_t i = first + u * kThreads;
    if (i >= vectors) break;
    Vec<T, V> out;
    // One division per vector: neighbours share their bias (stride a multiple of V) or lie side by side (stride 1).
    const uint32_t c = b ? where(i * V) : 0;
    const bool side_by_side = where.stride.divisor == 1;
#pragma unroll
    for (int k = 0; k < V; ++k) {
      const Acc<T> bias = b ? to_acc(b[side_by_side ? c + k : c]) : Acc<T>(0);
      out.v[k] = element.compute(in[u], k, bias);
    }
    store<T, V>(element.out, i, out);
  }
}

// Sum of `value` over the block, valid in thread 0. Two barriers; `scratch` holds one number per warp.
template <typename A>
__device__ A block_sum(A value, A* scratch) {
  for (int offset = 16; offset > 0; offset /= 2) value += __shfl_down_sync(0xffffffffu, value, offset);
  if (threadIdx.x % 32 == 0) scratch[threadIdx.x / 32] = value;
  __syncthreads();
  A total = 0;
  if (threadIdx.x == 0) {
    for (int warp = 0; warp < kThreads / 32; ++warp) total += scratch[warp];
  }
  __syncthreads();
  return total;
}

// Bias along a dimension with elements between its steps (NCHW). Block (c, row) takes planes row, row + rows, ... of
// channel c; `lanes` threads share a plane, so that small planes still fill the block.
template <typename T, int V>
__global__ void __launch_bounds__(kThreads)
    reduce_planes_kernel(Element<T, V, false, true> element, const T* b, Acc<T>* partial, int64_t planes,
                         int64_t vectors, int64_t channels, int lanes) {
  __shared__ Acc<T> scratch[kThreads / 32];
  const int64_t c = blockIdx.x;
  const Acc<T> bias = b ? to_acc(b[c]) : Acc<T>(0);
  const int groups = kThreads / lanes;
  const int lane = threadIdx.x % lanes;
  Acc<T> sum = 0;
  for (int64_t plane = int64_t{blockIdx.y} * groups + threadIdx.x / lanes; plane < planes;
       plane += int64_t{gridDim.y} * groups) {
    const int64_t start = (plane * channels + c) * vectors;
    for (int64_t i = lane; i < vectors; i += lanes) {
      const auto in = element.read(start + i);
      Vec<T, V> out;
#pragma unroll
      for (int k = 0; k < V; ++k) {
        out.v[k] = element.compute(in, k, bias);
        sum += to_acc(out.v[k]);
      }
      store<T, V>(element.out, start + i, out);
    }
  }
  const Acc<T> total = block_sum(sum, scratch);
  if (threadIdx.x == 0) partial[blockIdx.y * channels + c] = total;
}

// Bias along the innermost dimension (channels_last, or [N, C]). A block takes 32 vectors of channels; its 8 warps
// walk down the rows, and their sums meet in shared memory.
template <typename T, int V>
__global__ void __launch_bounds__(kThreads)
    reduce_rows_kernel(Element<T, V, false, true> element, const T* b, Acc<T>* partial, int64_t rows, int64_t vectors) {
  constexpr int kWarps = kThreads / 32;
  __shared__ Acc<T> sums[kWarps][32 * V];
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  const int64_t c = int64_t{blockIdx.x} * 32 + lane;  // vector of channels
  Acc<T> bias[V] = {}, sum[V] = {};
  if (c < vectors) {
    for (int k = 0; k < V; ++k) bias[k] = b ? to_acc(b[c * V + k]) : Acc<T>(0);
    for (int64_t row = int64_t{blockIdx.y} * kWarps + warp; row < rows; row += int64_t{gridDim.y} * kWarps) {
      const auto in = element.read(row * vectors + c);
      Vec<T, V> out;
#pragma unroll
      for (int k = 0; k < V; ++k) {
        out.v[k] = element.compute(in, k, bias[k]);
        sum[k] += to_acc(out.v[k]);
      }
      store<T, V>(element.out, row * vectors + c, out);
    }
  }
  for (int k = 0; k < V; ++k) sums[warp][lane * V + k] = sum[k];
  __syncthreads();
  for (int i = threadIdx.x; i < 32 * V; i += kThreads) {
    Acc<T> total = 0;
    for (int w = 0; w < kWarps; ++w) total += sums[w][i];
    const int64_t channel = int64_t{blockIdx.x} * 32 * V + i;
    if (channel < vectors * V) partial[blockIdx.y * vectors * V + channel] = total;
  }
}

// db[c] = sum over rows of partial[row][c]: one thread per channel, neighbours next to each other.
template <typename T>
__global__ void __launch_bounds__(kThreads) sum_rows_kernel(const Acc<T>* partial, T* db, int rows, int64_t channels) {
  const int64_t c = int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (c >= channels) return;
  Acc<T> total = 0;
  for (int row = 0; row < rows; ++row) total += partial[row * channels + c];
  db[c] = from_acc<T>(total);
}

int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

// True if V-vectors never straddle two biases (or lie side by side) and every pointer is aligned for them.
template <typename T>
bool can_vectorize(const BiasActParams& p) {
  constexpr int64_t v = kVector<T>;
  const bool fits = !p.b || p.bias_stride % v == 0 || (p.bias_stride == 1 && p.bias_size % v == 0);
  return fits && p.numel % v == 0 && aligned16(p.x) && aligned16(p.dy) && aligned16(p.y) && aligned16(p.out);
}

const void* advance(const void* pointer, int64_t bytes) {
  return pointer ? static_cast<const char*>(pointer) + bytes : nullptr;
}

template <typename T, int V, bool SMOOTH, bool GRAD>
int launch_slices(BiasActParams p, void* stream) {
  const int64_t numel = p.numel;
  for (int64_t start = 0; start < numel;) {
    int64_t end = std::min(numel, start + kSlice);
    BiasIndex where{Divisor(1), Divisor(static_cast<uint32_t>(p.bias_size)), 0, 0};
    where.base = static_cast<uint32_t>(start / p.bias_stride % p.bias_size);
    if (p.bias_stride <= kSlice) {
      where.stride = Divisor(static_cast<uint32_t>(p.bias_stride));
      where.shift = static_cast<uint32_t>(start % p.bias_stride);
    } else {  // the whole slice has one bias
      end = std::min(end, (start / p.bias_stride + 1) * p.bias_stride);
      where.stride = Divisor(uint32_t{1} << 31);
    }
    const auto vectors = static_cast<uint32_t>((end - start) / V);
    const auto blocks = static_cast<unsigned>(ceil_div(vectors, kThreads * kUnroll));
    const int error = MMIF_LAUNCH((bias_act_kernel<T, V, SMOOTH, GRAD>), dim3(blocks), dim3(kThreads), stream,
                                  Element<T, V, SMOOTH, GRAD>(p), static_cast<const T*>(p.b), where, vectors);
    if (error) return error;
    const int64_t bytes = (end - start) * static_cast<int64_t>(sizeof(T));
    p.x = advance(p.x, bytes);
    p.dy = advance(p.dy, bytes);
    p.y = advance(p.y, bytes);
    p.out = static_cast<char*>(p.out) + bytes;
    start = end;
  }
  return 0;
}

// Smooth activations are rare and their kernels large: they get one, without vectors.
template <typename T>
int launch_elementwise(const BiasActParams& p, void* stream) {
  constexpr int V = kVector<T>;
  const bool grad = p.order > 0;
  if (!is_piecewise(p.act)) {
    return grad ? launch_slices<T, 1, true, true>(p, stream) : launch_slices<T, 1, true, false>(p, stream);
  }
  if (!can_vectorize<T>(p)) {
    return grad ? launch_slices<T, 1, false, true>(p, stream) : launch_slices<T, 1, false, false>(p, stream);
  }
  return grad ? launch_slices<T, V, false, true>(p, stream) : launch_slices<T, V, false, false>(p, stream);
}

int64_t planes_of(const BiasActParams& p) { return p.numel / (p.bias_size * p.bias_stride); }

template <typename T, int V>
int launch_reduce(const BiasActParams& p, void* partial, void* db, void* stream) {
  const auto* b = static_cast<const T*>(p.b);
  auto* sums = static_cast<Acc<T>*>(partial);
  const auto rows = static_cast<unsigned>(bias_act_partial_rows(p));
  const Element<T, V, false, true> element(p);
  int error;
  if (p.bias_stride == 1) {
    const int64_t vectors = p.bias_size / V;
    const dim3 grid(static_cast<unsigned>(ceil_div(vectors, 32)), rows);
    error =
        MMIF_LAUNCH((reduce_rows_kernel<T, V>), grid, dim3(kThreads), stream, element, b, sums, planes_of(p), vectors);
  } else {
    const int64_t vectors = p.bias_stride / V;
    int lanes = kThreads;
    while (lanes / 2 >= vectors) lanes /= 2;
    const dim3 grid(static_cast<unsigned>(p.bias_size), rows);
    error = MMIF_LAUNCH((reduce_planes_kernel<T, V>), grid, dim3(kThreads), stream, element, b, sums, planes_of(p),
                        vectors, p.bias_size, lanes);
  }
  if (error) return error;
  const dim3 grid(static_cast<unsigned>(ceil_div(p.bias_size, kThreads)));
  return MMIF_LAUNCH((sum_rows_kernel<T>), grid, dim3(kThreads), stream, sums, static_cast<T*>(db),
                     static_cast<int>(rows), p.bias_size);
}

// The derivative of the identity at order one: what was written as `out` comes out unchanged.
BiasActParams identity_of(BiasActParams p) {
  p.dy = p.y = p.out;
  p.act = Act::kLinear;
  p.order = 1;
  p.gain = 1.0;
  p.clamp = -1.0;
  return p;
}

}  // namespace

int64_t bias_act_partial_rows(const BiasActParams& p) {
  // About 16 K elements per block and channel (or 8 K rows of 32 vectors), enough blocks to fill a large GPU.
  const int64_t per_channel = p.numel / p.bias_size;
  return std::max<int64_t>(1, std::min<int64_t>(kMaxPartialRows, per_channel / 4096));
}

int launch_bias_act(const BiasActParams& p, DType dtype, void* stream) {
  return dispatch(dtype, [&](auto tag) { return launch_elementwise<decltype(tag)>(p, stream); });
}

int launch_bias_act_reduce(const BiasActParams& p, void* partial, void* db, DType dtype, void* stream) {
  return dispatch(dtype, [&](auto tag) {
    using T = decltype(tag);
    constexpr int V = kVector<T>;
    BiasActParams q = p;
    if (!is_piecewise(p.act)) {  // two passes: the derivative, then the sum of what it wrote
      if (const int error = launch_elementwise<T>(p, stream)) return error;
      q = identity_of(p);
    }
    const bool vectorize = can_vectorize<T>(q) && (q.bias_stride == 1 ? q.bias_size : q.bias_stride) % V == 0;
    return vectorize ? launch_reduce<T, V>(q, partial, db, stream) : launch_reduce<T, 1>(q, partial, db, stream);
  });
}

}  // namespace mmif
