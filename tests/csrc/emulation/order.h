// The order in which blocks, warps and lanes take their turns.
#pragma once

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <numeric>
#include <random>
#include <string>
#include <vector>

namespace mmif::emulation {

class Order {
 public:
  Order() {
    if (name_ == "forward" || name_ == "reverse" || name_ == "random") return;
    std::fprintf(stderr, "emulation: EMU_ORDER must be forward, reverse or random, got %s\n", name_.c_str());
    std::abort();
  }

  // 0 to n - 1, another permutation each time if random; valid until the next call.
  const std::vector<int>& next(size_t n) {
    if (order_.size() != n) {
      order_.resize(n);
      std::iota(order_.begin(), order_.end(), 0);
      if (name_ == "reverse") std::reverse(order_.begin(), order_.end());
    }
    if (name_ == "random") std::shuffle(order_.begin(), order_.end(), generator_);
    return order_;
  }

 private:
  static std::string environment() {
    const char* name = std::getenv("EMU_ORDER");
    return name ? name : "forward";
  }

  const std::string name_ = environment();
  std::mt19937 generator_{0};
  std::vector<int> order_;
};

}  // namespace mmif::emulation
