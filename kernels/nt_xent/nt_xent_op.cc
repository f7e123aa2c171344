// NT-Xent as TensorFlow ops: LowlevelSimclr>NtXent, NtXentGrad, and the ops NtXentRows and NtXentRowsGrad, with which a
// replica (a copy of the model on one of several devices) computes its own rows. Formula: nt_xent.h.
//
//     NtXent(z (2N, d), temperature ())
//         -> loss (2N,), normaliser (2N, 2), inverse_norm (2N,), top1 (2N,)
//     NtXentGrad(z, normaliser, inverse_norm, cotangent (2N,), temperature)
//         -> dz (2N, d), dtemperature ()
//     NtXentRows(z, temperature, first_pair (), pairs ())
//         -> loss, normaliser and top1 of the own rows; inverse_norm of all rows
//     NtXentRowsGrad(z, normaliser, inverse_norm, cotangent, temperature, first_pair, pairs)
//         -> dz of the own rows, dtemperature
//
// In the registration below, T is the type of z and dz, and S is the type of the sums: double if T is double, otherwise
// float.
#include <cmath>
#include <string>

#include "../glue/tf_context.h"
#include "../runtime/thread_pool.h"
#include "nt_xent.h"

namespace lowlevel_simclr {
namespace {

// ---- Shape functions

void forward_shapes(TF_ShapeInferenceContext* context, TF_Status* status) {
  Shape z(context), rows(context), normaliser(context),
      pair(context, TF_ShapeInferenceContextVectorFromSize(context, 2));
  z.read(0, 2, status);
  rows.become_axes(z, 0, 1, status);
  normaliser.become_axes(z, 0, 1, status);
  normaliser.append(pair, status);
  rows.write(0, status);
  normaliser.write(1, status);
  rows.write(2, status);
  rows.write(3, status);
}

void backward_shapes(TF_ShapeInferenceContext* context, TF_Status* status) {
  Shape z(context), scalar(context, TF_ShapeInferenceContextScalar(context));
  z.read(0, 2, status);
  z.write(0, status);
  scalar.write(1, status);
}

// The number of own rows is an input, so it is known only when the op runs. Python sets the shapes if it knows them
// earlier.
void unknown_shapes(TF_ShapeInferenceContext* context, TF_Status* status) {
  TF_ShapeInferenceContextSetUnknownShape(context, status);
}

// ---- Checks

bool data_type(TF_DataType from, DataType* to) {
  switch (from) {
    case TF_FLOAT:
      return *to = DataType::kFloat32, true;
    case TF_DOUBLE:
      return *to = DataType::kFloat64, true;
    case TF_BFLOAT16:
      return *to = DataType::kBfloat16, true;
    case TF_HALF:
      return *to = DataType::kFloat16, true;
    default:
      return false;
  }
}

TF_DataType sum_type(DataType type) { return type == DataType::kFloat64 ? TF_DOUBLE : TF_FLOAT; }

std::string shape_text(const Tensor& tensor) {
  std::string text = "(";
  for (int axis = 0; axis < tensor.rank(); ++axis)
    text += (axis ? ", " : "") + std::to_string(tensor.dim(axis));
  return text + ")";
}

void check_scalar(const Tensor& tensor, const char* name, Status& status) {
  if (status.ok() && tensor.size() != 1) {
    status.invalid(std::string(name) + " has shape " + shape_text(tensor) + ". It must be one number.");
  }
}

double read_temperature(const Tensor& tensor, Status& status) {
  check_scalar(tensor, "temperature", status);
  const double temperature = status.ok() ? tensor.scalar<double>() : 1.0;
  if (status.ok() && !(temperature > 0 && std::isfinite(temperature))) {
    status.invalid("temperature is " + std::to_string(temperature) +
                   ". It must be a positive finite number.");
  }
  return temperature;
}

NtXentShape read_shape(const Tensor& z, Status& status) {
  NtXentShape shape{};
  if (!status.ok()) return shape;
  const bool fits = z.rank() == 2 && z.dim(0) > 0 && z.dim(0) % 2 == 0 && z.dim(1) > 0;
  if (!fits || z.dim(0) > INT32_MAX) {
    status.invalid(
        "NT-Xent needs z of 2N rows and d columns, N >= 1 and d >= 1: all N first views, then all N "
        "second views. z has shape " +
        shape_text(z) + ".");
  } else if (!data_type(z.type(), &shape.type)) {
    status.invalid("z must be bfloat16, float16, float32 or float64.");
  } else {
    shape.pairs = shape.own_pairs = z.dim(0) / 2;
    shape.dim = z.dim(1);
  }
  return shape;
}

// Reads the own pairs of the rectangular forms from inputs `index` and `index` + 1.
void read_own_pairs(TF_OpKernelContext* context, int index, NtXentShape* shape, Status& status) {
  const Tensor first = input(context, index, status), pairs = input(context, index + 1, status);
  check_scalar(first, "first_pair", status);
  check_scalar(pairs, "pairs", status);
  if (!status.ok()) return;
  shape->first_pair = first.scalar<int64_t>();
  shape->own_pairs = pairs.scalar<int64_t>();
  const bool inside = shape->first_pair >= 0 && shape->own_pairs >= 1 && shape->own_pairs <= shape->pairs &&
                      shape->first_pair <= shape->pairs - shape->own_pairs;
  if (inside) return;
  status.invalid("first_pair=" + std::to_string(shape->first_pair) + " and pairs=" +
                 std::to_string(shape->own_pairs) + " do not lie within the " + std::to_string(shape->pairs) +
                 " pairs of z. Use first_pair >= 0, pairs >= 1 and first_pair + pairs <= N.");
}

void check_rows(const Tensor& tensor, const char* name, const NtXentShape& shape, int rank, Status& status) {
  if (!status.ok()) return;
  const int64_t rows = 2 * shape.pairs;
  const bool fits = tensor.rank() == rank && tensor.dim(0) == rows && (rank == 1 || tensor.dim(1) == 2);
  if (fits && tensor.type() == sum_type(shape.type)) return;
  status.invalid(std::string(name) + " has shape " + shape_text(tensor) +
                 ". It must have one entry for each of the " + std::to_string(rows) +
                 " rows of z, in the type of the sums.");
}

// ---- Kernels

template <bool kRows>
void forward(TF_OpKernelContext* context, Status& status) {
  const Tensor z = input(context, 0, status), tau = input(context, 1, status);
  NtXentShape shape = read_shape(z, status);
  const double temperature = read_temperature(tau, status);
  if (kRows) read_own_pairs(context, 2, &shape, status);
  if (!status.ok()) return;
  const int64_t rows[] = {2 * shape.pairs}, own[] = {2 * shape.own_pairs},
                own_by_two[] = {2 * shape.own_pairs, 2};
  const TF_DataType sum = sum_type(shape.type);
  const Tensor loss = output(context, 0, sum, own, status),
               normaliser = output(context, 1, sum, own_by_two, status);
  const Tensor inverse_norm = output(context, 2, sum, rows, status),
               top1 = output(context, 3, TF_BOOL, own, status);
  const ParallelFor parallel = shared_thread_pool();
  const Tensor workspace = temporary(context, nt_xent_workspace_bytes(parallel, shape), status);
  if (!status.ok()) return;
  nt_xent_forward(parallel, shape, z.data(), temperature, workspace.data(), loss.data(), normaliser.data(),
                  inverse_norm.data(), static_cast<bool*>(top1.data()));
}

template <bool kRows>
void backward(TF_OpKernelContext* context, Status& status) {
  const Tensor z = input(context, 0, status), normaliser = input(context, 1, status);
  const Tensor inverse_norm = input(context, 2, status), cotangent = input(context, 3, status);
  NtXentShape shape = read_shape(z, status);
  const double temperature = read_temperature(input(context, 4, status), status);
  if (kRows) read_own_pairs(context, 5, &shape, status);
  check_rows(normaliser, "normaliser", shape, 2, status);
  check_rows(inverse_norm, "inverse_norm", shape, 1, status);
  check_rows(cotangent, "cotangent", shape, 1, status);
  if (!status.ok()) return;
  const int64_t dims[] = {2 * shape.own_pairs, shape.dim};
  const Tensor dz = output(context, 0, z.type(), dims, status);
  const Tensor dtemperature = scalar_output(context, 1, TF_DOUBLE, status);
  const ParallelFor parallel = shared_thread_pool();
  const Tensor workspace = temporary(context, nt_xent_workspace_bytes(parallel, shape), status);
  if (!status.ok()) return;
  nt_xent_backward(parallel, shape, z.data(), normaliser.data(), inverse_norm.data(), cotangent.data(),
                   temperature, workspace.data(), dz.data(), static_cast<double*>(dtemperature.data()));
}

// ---- Registration

constexpr const char* kT = "T: {bfloat16, half, float, double}";
constexpr const char* kS = "S: {float, double}";

const bool registered = [] {
  register_op({"LowlevelSimclr>NtXent",
               {kT, kS},
               {"z: T", "temperature: double"},
               {"loss: S", "normaliser: S", "inverse_norm: S", "top1: bool"},
               forward_shapes});
  register_op({"LowlevelSimclr>NtXentGrad",
               {kT, kS},
               {"z: T", "normaliser: S", "inverse_norm: S", "cotangent: S", "temperature: double"},
               {"dz: T", "dtemperature: double"},
               backward_shapes});
  register_op({"LowlevelSimclr>NtXentRows",
               {kT, kS},
               {"z: T", "temperature: double", "first_pair: int64", "pairs: int64"},
               {"loss: S", "normaliser: S", "inverse_norm: S", "top1: bool"},
               unknown_shapes});
  register_op({"LowlevelSimclr>NtXentRowsGrad",
               {kT, kS},
               {"z: T", "normaliser: S", "inverse_norm: S", "cotangent: S", "temperature: double",
                "first_pair: int64", "pairs: int64"},
               {"dz: T", "dtemperature: double"},
               unknown_shapes});
  register_cpu_kernel<forward<false>>("LowlevelSimclr>NtXent");
  register_cpu_kernel<backward<false>>("LowlevelSimclr>NtXentGrad");
  register_cpu_kernel<forward<true>>("LowlevelSimclr>NtXentRows");
  register_cpu_kernel<backward<true>>("LowlevelSimclr>NtXentRowsGrad");
  return true;
}();

}  // namespace
}  // namespace lowlevel_simclr
