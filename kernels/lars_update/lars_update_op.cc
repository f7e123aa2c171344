// LARS as a TensorFlow op. See lars_update.h for the formula.
//
//     LowlevelSimclr>LarsUpdate(weight, gradient, velocity,
//                               learning_rate (), momentum (), weight_decay (), trust_coefficient ())
//         -> new_weight, new_velocity
//
// All arrays are float, except that the gradient may be bfloat16. All arrays have one shape.
//
// new_weight takes the memory of a float gradient if nothing else reads that gradient, as in a training step. The
// weights are never changed in place. So if something else still reads them, for example a snapshot, their values do
// not change.
#include <string>
#include <vector>

#include "../glue/tf_context.h"
#include "../runtime/thread_pool.h"
#include "lars_update.h"

namespace lowlevel_simclr {
namespace {

constexpr const char* kScalarNames[] = {"learning_rate", "momentum", "weight_decay", "trust_coefficient"};
constexpr int kScalars = 4, kFirstScalar = 3;

void shapes(TF_ShapeInferenceContext* context, TF_Status* status) {
  for (int index = 0; index < 2; ++index) {
    Shape weight(context);
    TF_ShapeInferenceContextGetInput(context, 0, weight, status);
    weight.write(index, status);
  }
}

bool same_shape(const Tensor& one, const Tensor& other) {
  bool same = one.rank() == other.rank();
  for (int axis = 0; same && axis < one.rank(); ++axis) same = one.dim(axis) == other.dim(axis);
  return same;
}

float scalar(TF_OpKernelContext* context, int which, Status& status) {
  const Tensor tensor = input(context, kFirstScalar + which, status);
  if (status.ok() && tensor.size() != 1) {
    status.invalid(std::string(kScalarNames[which]) + " must be one number.");
  }
  return status.ok() ? tensor.scalar<float>() : 0.0f;
}

// Returns the memory of an input if nothing else holds it, otherwise new memory.
Tensor forwarded_output(TF_OpKernelContext* context, int from, int index, const std::vector<int64_t>& dims,
                        Status& status) {
  int forwarded = -1;
  return Tensor(status.ok()
                    ? TF_ForwardInputOrAllocateOutput(context, &from, 1, index, dims.data(),
                                                      static_cast<int>(dims.size()), &forwarded, status)
                    : nullptr);
}

Tensor float_output(TF_OpKernelContext* context, int index, const std::vector<int64_t>& dims, int64_t count,
                    Status& status) {
  return Tensor(status.ok() ? TF_AllocateOutput(context, index, TF_FLOAT, dims.data(),
                                                static_cast<int>(dims.size()), count * sizeof(float), status)
                            : nullptr);
}

struct Gradient {
  const void* numbers;
  DataType type;
};

// Checks the shapes, and returns the gradient without a handle on it. A handle would keep TensorFlow from passing the
// gradient's memory on to an output. TensorFlow itself keeps the gradient until the op returns.
Gradient checked_gradient(TF_OpKernelContext* context, const Tensor& weight, const Tensor& velocity,
                          Status& status) {
  const Tensor gradient = input(context, 1, status);
  if (status.ok() && !(same_shape(weight, gradient) && same_shape(weight, velocity))) {
    status.invalid(
        "weight, gradient and velocity must have the same shape. Pass all three for the same variable.");
  }
  if (!status.ok()) return {nullptr, DataType::kFloat32};
  return {gradient.data(), gradient.type() == TF_BFLOAT16 ? DataType::kBfloat16 : DataType::kFloat32};
}

void compute(TF_OpKernelContext* context, Status& status) {
  const Tensor weight = input(context, 0, status), velocity = input(context, 2, status);
  float numbers[kScalars];
  for (int i = 0; i < kScalars; ++i) numbers[i] = scalar(context, i, status);
  const Gradient gradient = checked_gradient(context, weight, velocity, status);
  if (!status.ok()) return;
  std::vector<int64_t> dims(weight.rank());
  for (int axis = 0; axis < weight.rank(); ++axis) dims[axis] = weight.dim(axis);
  const int64_t count = weight.size();
  const Tensor new_weight = gradient.type == DataType::kFloat32
                                ? forwarded_output(context, 1, 0, dims, status)
                                : float_output(context, 0, dims, count, status);
  const Tensor new_velocity = float_output(context, 1, dims, count, status);
  const Tensor sums = temporary(context, lars_update_partial_sums(count) * sizeof(double), status);
  if (!status.ok()) return;
  const LarsChoices choices = {numbers[0], numbers[1], numbers[2], numbers[3], weight.rank() > 1};
  lars_update(shared_thread_pool(), count, choices, static_cast<const float*>(weight.data()),
              gradient.numbers, gradient.type, static_cast<const float*>(velocity.data()),
              static_cast<double*>(sums.data()), static_cast<float*>(new_weight.data()),
              static_cast<float*>(new_velocity.data()));
}

const bool registered = [] {
  register_op({"LowlevelSimclr>LarsUpdate",
               {"gradient_type: {float, bfloat16} = DT_FLOAT"},
               {"weight: float", "gradient: gradient_type", "velocity: float", "learning_rate: float",
                "momentum: float", "weight_decay: float", "trust_coefficient: float"},
               {"new_weight: float", "new_velocity: float"},
               shapes});
  register_cpu_kernel<compute>("LowlevelSimclr>LarsUpdate");
  return true;
}();

}  // namespace
}  // namespace lowlevel_simclr
