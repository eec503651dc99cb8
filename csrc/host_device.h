// Marks what runs on both sides: the CUDA kernels and the CPU bodies share one definition of the mathematics.
#pragma once

#if defined(__CUDACC__)
#define MMIF_HD __host__ __device__ __forceinline__
#else
#define MMIF_HD inline
#endif
