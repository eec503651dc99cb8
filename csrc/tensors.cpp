// Implementation of tensors.h.
#include "tensors.h"

#include <dlfcn.h>

#include <algorithm>
#include <array>
#include <initializer_list>

#include "cuda_error.h"

namespace mmif {

using torch::headeronly::ScalarType;

std::string name_of(ScalarType type) { return torch::headeronly::toString(type); }

Act act_of(const std::string& name, const char* op) {
  constexpr std::array<const char*, 9> kNames = {"linear", "relu", "lrelu",    "tanh", "sigmoid",
                                                 "elu",    "selu", "softplus", "swish"};
  const auto found = std::find(kNames.begin(), kNames.end(), name);
  STD_TORCH_CHECK(found != kNames.end(), op, ": act must be the name of an activation, got '", name, "'");
  return static_cast<Act>(found - kNames.begin());
}

DType dtype_of(const Tensor& t, const char* op, const char* name) {
  switch (t.scalar_type()) {
    case ScalarType::Half:
      return DType::kFloat16;
    case ScalarType::BFloat16:
      return DType::kBFloat16;
    case ScalarType::Float:
      return DType::kFloat32;
    case ScalarType::Double:
      return DType::kFloat64;
    default:
      STD_TORCH_CHECK(false, op, ": ", name, " must be float16, bfloat16, float32 or float64, got ",
                      name_of(t.scalar_type()));
  }
}

namespace {

template <typename Sizes>
std::string list_of(const Sizes& sizes) {
  std::string text = "[";
  for (size_t i = 0; i < sizes.size(); ++i) text += (i ? ", " : "") + std::to_string(*(sizes.begin() + i));
  return text + "]";
}

std::string device_of(const Tensor& t) {
  return t.is_cpu() ? "cpu" : (t.is_cuda() ? "cuda:" : "device ") + std::to_string(t.get_device_index());
}

}  // namespace

std::string shape_of(const Tensor& t) { return list_of(t.sizes()); }

void check_like(const Tensor& t, const Tensor& x, const char* op, const char* name, bool any_dtype) {
  STD_TORCH_CHECK(t.is_cpu() == x.is_cpu() && t.get_device_index() == x.get_device_index(), op, ": ", name,
                  " must be on the device of the first tensor, ", device_of(x), ", got ", device_of(t));
  STD_TORCH_CHECK(any_dtype || t.scalar_type() == x.scalar_type(), op, ": ", name,
                  " must have the dtype of the first tensor, ", name_of(x.scalar_type()), ", got ",
                  name_of(t.scalar_type()));
}

void check_shape(const Tensor& t, std::initializer_list<int64_t> shape, const char* op, const char* name) {
  bool same = t.dim() == static_cast<int64_t>(shape.size());
  for (int64_t i = 0; same && i < t.dim(); ++i) same = t.size(i) == *(shape.begin() + i);
  STD_TORCH_CHECK(same, op, ": ", name, " must have the shape ", list_of(shape), ", got ", shape_of(t));
}

Tensor dense_like(const Tensor& t, const Tensor& like) {
  bool same = true;
  for (int64_t i = 0; i < t.dim(); ++i) same = same && (t.size(i) <= 1 || t.stride(i) == like.stride(i));
  if (same) return t;
  Tensor copy = torch::stable::empty_like(like);
  torch::stable::copy_(copy, t);
  return copy;
}

Tensor channels_last(const Tensor& t) {
  const Tensor dense = torch::stable::contiguous(t, torch::headeronly::MemoryFormat::ChannelsLast);
  return reinterpret_cast<uintptr_t>(dense.const_data_ptr()) % 16 == 0 ? dense : torch::stable::clone(dense);
}

#if defined(MMIF_EMULATE) || !defined(MMIF_WITH_CUDA)

void* current_stream(const Tensor&) { return nullptr; }

void check_launch(int error, const char* op) { STD_TORCH_CHECK(error == 0, op, ": launch failed with code ", error); }

#else

void* current_stream(const Tensor& t) {
  // Exported by libtorch_cuda, which torch has loaded if it has a CUDA tensor at all; looked up at run time because
  // this library also loads where there is no libtorch_cuda.
  using Function = AOTITorchError (*)(int32_t, void**);
  static const auto function = [] {
    void* library = dlopen("libtorch_cuda.so", RTLD_NOLOAD | RTLD_LAZY);
    return reinterpret_cast<Function>(library ? dlsym(library, "aoti_torch_get_current_cuda_stream") : nullptr);
  }();
  STD_TORCH_CHECK(function, "mmif: torch's current CUDA stream was not found: torch >= 2.11 with CUDA is needed");
  void* stream = nullptr;
  STD_TORCH_CHECK(function(t.get_device_index(), &stream) == 0, "mmif: torch could not give its current CUDA stream");
  return stream;
}

void check_launch(int error, const char* op) {
  STD_TORCH_CHECK(error == 0, op, ": the kernel launch failed: ", cuda_error_string(error));
}

#endif

}  // namespace mmif
