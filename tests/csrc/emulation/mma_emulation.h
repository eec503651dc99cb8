// What csrc/mma.h calls under MMIF_EMULATE: mma.sync, ldmatrix and cp.async on the CPU.
#pragma once

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <vector>

#include "emulation.h"

namespace mmif::emulation {

constexpr uint32_t kAllLanes = 0xffffffffu;

inline void check_aligned(const char* operation, const void* address) {
  if (reinterpret_cast<uintptr_t>(address) % 16 == 0) return;
  std::fprintf(stderr, "emulation: %s must have an address that is a multiple of 16, got %p\n", operation, address);
  std::abort();
}

// Element e of the two in a word.
template <typename T>
float element(uint32_t word, int e) {
  T value;
  static_assert(2 * sizeof(T) == sizeof(word));
  std::memcpy(&value, reinterpret_cast<const char*>(&word) + e * sizeof(T), sizeof(T));
  return value;
}

// Lanes lay their fragments side by side, then each computes its own elements of d.
template <typename T>
void mma_16x8x16(float (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
  static struct {
    uint32_t a[4], b[2];
  } lanes[32];  // one warp's will do: warps take turns at the barriers of the block only
  std::memcpy(lanes[lane()].a, a, sizeof(a));
  lanes[lane()].b[0] = b0;
  lanes[lane()].b[1] = b1;
  sync_warp("mma.sync", kAllLanes);
  for (int i = 0; i < 4; ++i) {
    const int row = lane() / 4 + i / 2 * 8, column = lane() % 4 * 2 + i % 2;
    for (int k = 0; k < 16; ++k) {
      const auto& left = lanes[row % 8 * 4 + k % 8 / 2];
      const auto& right = lanes[column * 4 + k % 8 / 2];
      d[i] += element<T>(left.a[row / 8 + k / 8 * 2], k % 2) * element<T>(right.b[k / 8], k % 2);
    }
  }
  sync_warp("mma.sync", kAllLanes);
}

inline void load_matrices(uint32_t (&words)[4], const void* row) {
  static const void* rows[32];  // see above
  check_aligned("ldmatrix", row);
  rows[lane()] = row;
  sync_warp("ldmatrix", kAllLanes);
  for (int i = 0; i < 4; ++i) {
    std::memcpy(&words[i], static_cast<const uint32_t*>(rows[8 * i + lane() / 4]) + lane() % 4, sizeof(uint32_t));
  }
  sync_warp("ldmatrix", kAllLanes);
}

struct Copy {
  void* to;
  const void* from;
  bool exists;
};

// The calling thread's copies under way.
inline std::vector<Copy>& copies() {
  static std::vector<Copy> of_threads[1024];
  return of_threads[threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z)];
}

inline void copy_16_bytes(void* to, const void* from, bool exists) {
  check_aligned("cp.async", to);
  check_aligned("cp.async", from);
  copies().push_back({to, from, exists});
}

// Only now are the copies made, as late as a GPU may make them: what was read too early was not there.
inline void wait_for_copies() {
  for (const Copy& copy : copies()) {
    if (copy.exists) {
      std::memcpy(copy.to, copy.from, 16);
    } else {
      std::memset(copy.to, 0, 16);
    }
  }
  copies().clear();
}

}  // namespace mmif::emulation
