// Tensor cores and what feeds them, as every architecture from sm_80 on has them; the emulation has its own.
#pragma once

#include "platform.h"

#if defined(MMIF_EMULATE)
#include "mma_emulation.h"
#endif

namespace mmif {

// d += a * b on 16x16 and 16x8 elements of T, __half or __nv_bfloat16, spread over a warp. With lane = 4 g + t and
// e = 0 for the lower half of a word, 1 for the upper one:
//   a[i]  holds row g + 8 (i % 2), k = 2 t + e + 8 (i / 2)
//   b[i]  holds column g, k = 2 t + e + 8 i
//   d[i]  is row g + 8 (i / 2), column 2 t + i % 2
template <typename T>
__device__ __forceinline__ void mma_16x8x16(float (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
#if defined(MMIF_EMULATE)
  emulation::mma_16x8x16<T>(d, a, b0, b1);
#else
  if constexpr (std::is_same_v<T, __half>) {
    asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
  } else {
    asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
  }
#endif
}

// Four 8x8 matrices from shared memory, whose rows of 16 bytes the lanes point at, lane 8 i + r at row r of matrix i:
// words[i] is word t of row g of matrix i.
__device__ __forceinline__ void load_matrices(uint32_t (&words)[4], const void* row) {
#if defined(MMIF_EMULATE)
  emulation::load_matrices(words, row);
#else
  const auto address = static_cast<uint32_t>(__cvta_generic_to_shared(row));
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
               : "=r"(words[0]), "=r"(words[1]), "=r"(words[2]), "=r"(words[3])
               : "r"(address)
               : "memory");
#endif
}

// Starts to copy 16 bytes to shared memory, or zeros unless `exists`; `from` is a valid address all the same. The
// thread sees them behind wait_for_copies(), others behind a barrier after that. REUSED: other blocks read the same,
// through L1.
template <bool REUSED>
__device__ __forceinline__ void copy_16_bytes(void* to, const void* from, bool exists) {
#if defined(MMIF_EMULATE)
  emulation::copy_16_bytes(to, from, exists);
#else
  const auto address = static_cast<uint32_t>(__cvta_generic_to_shared(to));
  const int bytes = exists ? 16 : 0;
  if constexpr (REUSED) {
    asm volatile("cp.async.ca.shared.global [%0], [%1], 16, %2;" ::"r"(address), "l"(from), "r"(bytes) : "memory");
  } else {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(address), "l"(from), "r"(bytes) : "memory");
  }
#endif
}

__device__ __forceinline__ void wait_for_copies() {
#if defined(MMIF_EMULATE)
  emulation::wait_for_copies();
#else
  asm volatile("cp.async.wait_all;" ::: "memory");
#endif
}

}  // namespace mmif
