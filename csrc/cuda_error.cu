#include "cuda_error.h"
#include "platform.h"

namespace mmif {

#if defined(MMIF_EMULATE)
const char* cuda_error_string(int) { return "emulated"; }
#else
const char* cuda_error_string(int error) { return cudaGetErrorString(static_cast<cudaError_t>(error)); }
#endif

}  // namespace mmif
