#pragma once

namespace mmif {

// CUDA's description of an error code that a launcher returned.
const char* cuda_error_string(int error);

}  // namespace mmif
