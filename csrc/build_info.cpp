// What this library was built with, for mmif/ops/_extension.py, which reads it with ctypes.

#define MMIF_STRING(x) #x
#define MMIF_STRING_OF(x) MMIF_STRING(x)

// CUDA toolkit and architectures as "13.0 80 86 90a", or "" if built without CUDA.
extern "C" __attribute__((visibility("default"))) const char* mmif_cuda_build() {
#if defined(MMIF_WITH_CUDA)
  return MMIF_STRING_OF(MMIF_WITH_CUDA);
#else
  return "";
#endif
}
