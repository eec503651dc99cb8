// What the kernels need from their surroundings: CUDA under nvcc, or the CPU emulation of tests/csrc/emulation.
//
// A .cu file includes this header, never torch, and launches through MMIF_LAUNCH: then the same source builds into the
// extension, into an engine's plugin, and as plain C++ into the emulation.
#pragma once

#if defined(MMIF_EMULATE)
#include "emulation.h"
#else
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

// Returns the launch's error code; `kernel` goes in parentheses when it has template arguments.
#define MMIF_LAUNCH(kernel, grid, block, stream, ...) \
  (kernel<<<grid, block, 0, static_cast<cudaStream_t>(stream)>>>(__VA_ARGS__), static_cast<int>(cudaGetLastError()))
#endif
