// What launchers and bindings share; no CUDA header, so that bindings compile without a toolkit.
#pragma once

#include <cstdint>

namespace mmif {

enum class DType : int { kFloat16, kBFloat16, kFloat32, kFloat64 };

}  // namespace mmif
