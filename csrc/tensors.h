// What the bindings of all ops need: checks with one clear line, dense copies, the current stream.
#pragma once

#include <torch/csrc/stable/accelerator.h>
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/core/ScalarType.h>

#include <optional>
#include <string>

#include "activation.h"
#include "params.h"

// The dispatch key whose bodies launch kernels. The emulation runs the same kernels, and this code, on CPU tensors.
#if defined(MMIF_EMULATE)
#define MMIF_DEVICE_KEY CPU
#else
#define MMIF_DEVICE_KEY CUDA
#endif

namespace mmif {

using torch::stable::Tensor;

// The DType of t; an error that names the op and the argument if t is not one of the four floating types.
DType dtype_of(const Tensor& t, const char* op, const char* name);

// The activation called `name`; an error that names the op if there is none.
Act act_of(const std::string& name, const char* op);

// "[2, 3]"
std::string shape_of(const Tensor& t);
std::string name_of(torch::headeronly::ScalarType type);

// Errors unless `t` has the dtype (unless `any_dtype`) and the device of `x`.
void check_like(const Tensor& t, const Tensor& x, const char* op, const char* name, bool any_dtype = false);
void check_shape(const Tensor& t, std::initializer_list<int64_t> shape, const char* op, const char* name);

// `t` itself if it lies in memory as `like` does (dense, same shape), else a copy that does.
Tensor dense_like(const Tensor& t, const Tensor& like);

// `t` [N, C, H, W] itself if it is channels last and 16-byte aligned, else a copy that is.
Tensor channels_last(const Tensor& t);

inline const void* data(const std::optional<Tensor>& t) { return t ? t->const_data_ptr() : nullptr; }

// torch's current stream on the device of t, a cudaStream_t; nullptr under emulation.
void* current_stream(const Tensor& t);

// Makes the device of t current while it lives; nothing for CPU tensors.
class DeviceScope {
 public:
  explicit DeviceScope(const Tensor& t) {
    if (t.is_cuda()) guard_.emplace(t.get_device_index());
  }

 private:
  std::optional<torch::stable::accelerator::DeviceGuard> guard_;
};

// Raises what CUDA says if a launcher returned an error code.
void check_launch(int error, const char* op);

}  // namespace mmif
