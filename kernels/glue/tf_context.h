// The parts of TensorFlow's C API that ops need, with classes that own its handles. Only X_op.cc includes this file.
// TensorFlow keeps only its C API binary compatible from version to version. So one binary that uses the C API works
// with all versions. The C API gives kernels no threads. The library has its own threads (runtime/thread_pool.h).
#pragma once

#include <cstdint>
#include <string>
#include <utility>

#include "tensorflow/c/kernels.h"
#include "tensorflow/c/ops.h"
#include "tensorflow/c/tf_datatype.h"
#include "tensorflow/c/tf_status.h"
#include "tensorflow/c/tf_tensor.h"

namespace lowlevel_simclr {

class Status {
 public:
  Status() : status_(TF_NewStatus()) {}
  ~Status() { TF_DeleteStatus(status_); }
  Status(const Status&) = delete;
  Status& operator=(const Status&) = delete;

  operator TF_Status*() const { return status_; }
  bool ok() const { return TF_GetCode(status_) == TF_OK; }
  void invalid(const std::string& message) { TF_SetStatus(status_, TF_INVALID_ARGUMENT, message.c_str()); }

 private:
  TF_Status* status_;
};

class Tensor {
 public:
  Tensor() = default;
  explicit Tensor(TF_Tensor* tensor) : tensor_(tensor) {}
  Tensor(Tensor&& other) noexcept : tensor_(other.tensor_) { other.tensor_ = nullptr; }
  Tensor(const Tensor&) = delete;
  Tensor& operator=(const Tensor&) = delete;
  Tensor& operator=(Tensor&& other) noexcept {
    std::swap(tensor_, other.tensor_);
    return *this;
  }
  ~Tensor() {
    if (tensor_ != nullptr) TF_DeleteTensor(tensor_);
  }

  TF_DataType type() const { return TF_TensorType(tensor_); }
  int rank() const { return TF_NumDims(tensor_); }
  int64_t dim(int axis) const { return TF_Dim(tensor_, axis); }
  int64_t size() const { return TF_TensorElementCount(tensor_); }
  void* data() const { return TF_TensorData(tensor_); }

  template <typename T>
  T scalar() const {
    return *static_cast<const T*>(data());
  }

 private:
  TF_Tensor* tensor_ = nullptr;
};

inline Tensor input(TF_OpKernelContext* context, int index, Status& status) {
  TF_Tensor* tensor = nullptr;
  if (status.ok()) TF_GetInput(context, index, &tensor, status);
  return Tensor(tensor);
}

template <int kRank>
Tensor output(TF_OpKernelContext* context, int index, TF_DataType type, const int64_t (&dims)[kRank],
              Status& status) {
  size_t bytes = TF_DataTypeSize(type);
  for (int64_t dim : dims) bytes *= dim;
  return Tensor(status.ok() ? TF_AllocateOutput(context, index, type, dims, kRank, bytes, status) : nullptr);
}

inline Tensor scalar_output(TF_OpKernelContext* context, int index, TF_DataType type, Status& status) {
  const size_t bytes = TF_DataTypeSize(type);
  return Tensor(status.ok() ? TF_AllocateOutput(context, index, type, nullptr, 0, bytes, status) : nullptr);
}

// Returns host memory that lives as long as one call. TensorFlow's allocator provides it, aligned to 64 bytes.
inline Tensor temporary(TF_OpKernelContext* context, int64_t bytes, Status& status) {
  TF_AllocatorAttributes attributes{TF_ALLOCATOR_ATTRIBUTES_STRUCT_SIZE, 1};
  return Tensor(status.ok() ? TF_AllocateTemp(context, TF_UINT8, &bytes, 1, &attributes, status) : nullptr);
}

// The definition of an op, for register_op. Every X_op.cc registers its ops when the library is loaded.
struct OpDefinition {
  const char* name;
  std::initializer_list<const char*> attributes, inputs, outputs;
  void (*shapes)(TF_ShapeInferenceContext*, TF_Status*);
};

inline void register_op(const OpDefinition& op) {
  TF_OpDefinitionBuilder* builder = TF_NewOpDefinitionBuilder(op.name);
  for (const char* attribute : op.attributes) TF_OpDefinitionBuilderAddAttr(builder, attribute);
  for (const char* one : op.inputs) TF_OpDefinitionBuilderAddInput(builder, one);
  for (const char* one : op.outputs) TF_OpDefinitionBuilderAddOutput(builder, one);
  TF_OpDefinitionBuilderSetShapeInferenceFunction(builder, op.shapes);
  Status status;
  TF_RegisterOpDefinition(builder, status);
}

// Registers a CPU kernel without a state. The function `compute` reports failures through its argument of type Status.
template <void (*compute)(TF_OpKernelContext*, Status&)>
void register_cpu_kernel(const char* op) {
  const auto create = [](TF_OpKernelConstruction*) -> void* { return nullptr; };
  const auto run = [](void*, TF_OpKernelContext* context) {
    Status status;
    compute(context, status);
    if (!status.ok()) TF_OpKernelContext_Failure(context, status);
  };
  Status status;
  TF_KernelBuilder* builder = TF_NewKernelBuilder(op, "CPU", create, run, [](void*) {});
  TF_RegisterKernelBuilder(op, builder, status);
}

// ---- Shapes

class Shape {
 public:
  explicit Shape(TF_ShapeInferenceContext* context) : context_(context), handle_(TF_NewShapeHandle()) {}
  Shape(TF_ShapeInferenceContext* context, TF_ShapeHandle* handle) : context_(context), handle_(handle) {}
  Shape(const Shape&) = delete;
  Shape& operator=(const Shape&) = delete;
  ~Shape() { TF_DeleteShapeHandle(handle_); }

  operator TF_ShapeHandle*() const { return handle_; }

  // Reads the shape of input `index`. It is an error if the shape does not have this rank.
  void read(int index, int64_t rank, TF_Status* status) {
    TF_ShapeInferenceContextGetInput(context_, index, handle_, status);
    if (TF_GetCode(status) == TF_OK)
      TF_ShapeInferenceContextWithRank(context_, handle_, rank, handle_, status);
  }

  void become_axes(const Shape& other, int64_t begin, int64_t end, TF_Status* status) {
    if (TF_GetCode(status) != TF_OK) return;
    TF_ShapeInferenceContextSubshape(context_, other.handle_, begin, end, handle_, status);
  }

  void append(const Shape& other, TF_Status* status) {
    if (TF_GetCode(status) != TF_OK) return;
    TF_ShapeInferenceContextConcatenateShapes(context_, handle_, other.handle_, handle_, status);
  }

  void write(int index, TF_Status* status) const {
    if (TF_GetCode(status) == TF_OK) TF_ShapeInferenceContextSetOutput(context_, index, handle_, status);
  }

 private:
  TF_ShapeInferenceContext* context_;
  TF_ShapeHandle* handle_;
};

}  // namespace lowlevel_simclr
