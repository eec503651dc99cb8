// mmif::upfirdn2d on the CPU: loops over neighbouring numbers that the compiler vectorises, in torch's thread pool.
#include <torch/headeronly/util/BFloat16.h>
#include <torch/headeronly/util/Half.h>

#include <algorithm>

#include "upfirdn2d_args.h"

namespace mmif {
namespace {

constexpr int64_t kGrain = 16384;  // outputs per thread below which a second thread does not pay
constexpr int64_t kLine = 8192;    // numbers of a line: a few lines of pixels stay in the caches next to the core

template <typename T>
using Acc = std::conditional_t<std::is_same_v<T, double>, double, float>;

// out[i] = sum_k taps[k * step] * in[i + k * stride], or that added to what out holds.
template <int COUNT, bool ADD, typename T, typename A>
void weigh_some(const T* __restrict__ in, int64_t stride, const A* taps, int step, int64_t n, A* __restrict__ out) {
  A weights[COUNT];
  for (int k = 0; k < COUNT; ++k) weights[k] = taps[k * step];
  for (int64_t i = 0; i < n; ++i) {
    A sum = weights[0] * static_cast<A>(in[i]);
    for (int k = 1; k < COUNT; ++k) sum += weights[k] * static_cast<A>(in[i + k * stride]);
    out[i] = ADD ? out[i] + sum : sum;
  }
}

template <bool ADD, typename T, typename A>
void weigh(const T* in, int64_t stride, const A* taps, int step, int count, int64_t n, A* out) {
  switch (count) {
    case 0:
      if (!ADD) std::fill_n(out, n, A(0));
      return;
    case 1:
      return weigh_some<1, ADD>(in, stride, taps, step, n, out);
    case 2:
      return weigh_some<2, ADD>(in, stride, taps, step, n, out);
    case 3:
      return weigh_some<3, ADD>(in, stride, taps, step, n, out);
    default:
      weigh_some<4, ADD>(in, stride, taps, step, n, out);
      return weigh<true>(in + 4 * stride, stride, taps + 4 * step, step, count - 4, n, out);
  }
}

// The same for planes, four taps and a factor of two, which a loop over single outputs would not vectorise: `n` pairs
// of outputs, of which the first window has tap 0.
template <bool ADD, typename A>
void double_line(const A* __restrict__ in, const A* taps, int64_t n, A* __restrict__ out) {
  const A t0 = taps[0], t1 = taps[1], t2 = taps[2], t3 = taps[3];
  for (int64_t i = 0; i < n; ++i) {
    const A even = t0 * in[i] + t2 * in[i + 1], odd = t1 * in[i + 1] + t3 * in[i + 2];
    out[2 * i] = ADD ? out[2 * i] + even : even;
    out[2 * i + 1] = ADD ? out[2 * i + 1] + odd : odd;
  }
}

// `n` outputs, each two pixels behind the one before.
template <bool ADD, typename A>
void halve_line(const A* __restrict__ in, const A* taps, int64_t n, A* __restrict__ out) {
  const A t0 = taps[0], t1 = taps[1], t2 = taps[2], t3 = taps[3];
  for (int64_t i = 0; i < n; ++i) {
    const A sum = t0 * in[2 * i] + t1 * in[2 * i + 1] + t2 * in[2 * i + 2] + t3 * in[2 * i + 3];
    out[i] = ADD ? out[i] + sum : sum;
  }
}

// What one thread needs to filter images: NCHW planes, or channels_last images, whose pixels are all channels wide.
template <typename T>
class Resampler {
  using A = Acc<T>;

 public:
  explicit Resampler(const Upfirdn2dParams& p)
      : p_(p), rows_(p.rows), cols_(p.cols), pixel_(p.channels_last ? p.c : 1) {
    const A gain = static_cast<A>(p.gain);
    for (int i = 0; i < rows_.taps; ++i) {
      weights_.push_back(p.separable ? p.f[i * p.f_strides[0]] : 1);
      for (int j = 0; j < cols_.taps && (i == 0 || !p.separable); ++j)
        taps_.push_back(gain * p.f[(p.separable ? 0 : i * p.f_strides[0]) + j * p.f_strides[1]]);
    }
  }

  // Rows [y0, y1) of the output, in blocks of columns narrow enough that a row of pixels is still in the caches when
  // the next window needs it.
  void run(int64_t image, int y0, int y1) {
    x_ = static_cast<const T*>(p_.x) + image * rows_.in * cols_.in * pixel_;
    out_ = static_cast<T*>(p_.out) + image * rows_.out * cols_.out * pixel_;
    const int width = static_cast<int>(std::max<int64_t>(16, kLine / pixel_));
    for (int x0 = 0; x0 < cols_.out; x0 += width) {
      x0_ = x0;
      x1_ = std::min(cols_.out, x0 + width);
      const Window last = window_of(cols_, x1_ - 1);
      first_ = window_of(cols_, x0_).input;
      line_.resize((last.input + hits(cols_, last) - first_) * pixel_);
      sums_.resize((x1_ - x0_) * pixel_);
      for (int y = y0; y < y1; ++y) row(y);
    }
  }

 private:
  void row(int y) {
    const Inside w = inside(rows_, y);
    T* out = out_ + (int64_t{y} * cols_.out + x0_) * pixel_;
    A* sums = sums_.data();
    if constexpr (std::is_same_v<T, A>) sums = out;
    if (p_.separable) {
      read_line(w.input, w.tap, w.count);
      filter_line<false>(taps_.data(), sums);
    } else {  // a separable filter for each of its rows
      std::fill_n(sums, sums_.size(), A(0));
      for (int k = 0; k < w.count; ++k) {
        const int tap = w.tap + k * rows_.up;
        read_line(w.input + k, tap, 1);
        filter_line<true>(taps_.data() + int64_t{tap} * cols_.taps, sums);
      }
    }
    if constexpr (!std::is_same_v<T, A>) std::transform(sums, sums + sums_.size(), out, [](A v) { return T(v); });
  }

  // line = sum along y of `count` rows from `y` on, zero where there is no pixel.
  void read_line(int y, int tap, int count) {
    const int64_t begin = std::max(first_, 0) * pixel_, size = static_cast<int64_t>(line_.size());
    const int64_t before = std::min(begin - first_ * pixel_, size);
    const int64_t n = std::clamp<int64_t>(cols_.in * pixel_ - begin, 0, size - before);
    std::fill_n(line_.data(), before, A(0));
    weigh<false>(x_ + y * (cols_.in * pixel_) + begin, cols_.in * pixel_, weights_.data() + tap, rows_.up,
                 std::max(count, 0), n, line_.data() + before);
    std::fill(line_.data() + before + n, line_.data() + size, A(0));
  }

  // out = line filtered along x, or that added to out.
  template <bool ADD>
  void filter_line(const A* taps, A* out) {
    const int up = cols_.up, down = cols_.down;
    if (up == 1 && down == 1) {
      weigh<ADD>(line_.data(), pixel_, taps, 1, cols_.taps, (x1_ - x0_) * pixel_, out);
    } else if (pixel_ == 1 && cols_.taps == 4 && up == 1 && down == 2) {
      halve_line<ADD>(line_.data(), taps, x1_ - x0_, out);
    } else if (pixel_ == 1 && cols_.taps == 4 && up == 2 && down == 1) {
      const int x = x0_ + window_of(cols_, x0_).tap, pairs = (x1_ - x) / 2;  // from the first window with tap 0 on
      filter_pixels<ADD>(taps, x0_, x, out);
      double_line<ADD>(line_.data() + (window_of(cols_, x).input - first_), taps, pairs, out + (x - x0_));
      filter_pixels<ADD>(taps, x + 2 * pairs, x1_, out);
    } else {
      filter_pixels<ADD>(taps, x0_, x1_, out);
    }
  }

  template <bool ADD>
  void filter_pixels(const A* taps, int begin, int end, A* out) {
    for (int x = begin; x < end; ++x) {
      const Window w = window_of(cols_, x);
      weigh<ADD>(line_.data() + (w.input - first_) * pixel_, pixel_, taps + w.tap, cols_.up, hits(cols_, w), pixel_,
                 out + (x - x0_) * pixel_);
    }
  }

  const Upfirdn2dParams& p_;
  const Axis rows_, cols_;
  const int64_t pixel_;            // numbers side by side
  std::vector<A> weights_, taps_;  // along y (ones if not separable); along x, gain included, for each row if need be
  const T* x_ = nullptr;           // of the image
  T* out_ = nullptr;
  int x0_ = 0, x1_ = 0, first_ = 0;  // columns of the block, and the pixel where its line begins
  std::vector<A> line_, sums_;
};

template <typename T>
void run(const Upfirdn2dParams& p) {
  const int64_t images = p.channels_last ? p.n : p.n * p.c, height = p.rows.out;
  const int64_t row = p.cols.out * (p.channels_last ? p.c : 1);
  torch::stable::parallel_for(0, images * height, std::max<int64_t>(1, kGrain / row), [&](int64_t first, int64_t last) {
    Resampler<T> resampler(p);
    while (first < last) {
      const int64_t y = first % height, count = std::min(height - y, last - first);
      resampler.run(first / height, static_cast<int>(y), static_cast<int>(y + count));
      first += count;
    }
  });
}

Tensor upfirdn2d_cpu(const Tensor& x, const Tensor& f, std::vector<int64_t> factors, std::vector<int64_t> pads,
                     bool flip_filter, double gain) {
  const Upfirdn2dArgs checked(x, f, factors, pads, flip_filter, gain);
  if (checked.out.numel() == 0) return checked.out;
  Upfirdn2dParams p = checked.params;
  const Tensor dense = p.channels_last ? x : torch::stable::contiguous(x);
  p.x = dense.const_data_ptr();
  switch (checked.dtype) {
    case DType::kFloat16:
      run<torch::headeronly::Half>(p);
      break;
    case DType::kBFloat16:
      run<torch::headeronly::BFloat16>(p);
      break;
    case DType::kFloat32:
      run<float>(p);
      break;
    case DType::kFloat64:
      run<double>(p);
      break;
  }
  return checked.out;
}

}  // namespace
}  // namespace mmif

STABLE_TORCH_LIBRARY_IMPL(mmif, CPU, m) { m.impl("upfirdn2d", TORCH_BOX(&mmif::upfirdn2d_cpu)); }
