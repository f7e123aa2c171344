// Code for both handlers of LARS, on the host and on CUDA: the arrays of a call, and the checks of their shapes. A
// handler is a function that XLA calls through its foreign function interface (FFI). A call gets one array with the
// four scalars, and then weight, gradient and velocity of each variable. It returns new_weight and new_velocity of each
// variable.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "../glue/xla_ffi.h"

namespace lowlevel_simclr {
namespace {

using Variable = ffi::Buffer<ffi::F32>;    // an array of any rank
using Scalars = ffi::Buffer<ffi::F32, 1>;  // learning_rate, momentum, weight_decay, trust_coefficient
using Result = ffi::Result<Variable>;

bool same_shape(const Variable& one, const Variable& other) {
  const auto dims = one.dimensions(), others = other.dimensions();
  return std::equal(dims.begin(), dims.end(), others.begin(), others.end());
}

// One variable of a call.
struct Update {
  Variable weight, gradient, velocity, new_weight, new_velocity;

  int64_t count() const { return static_cast<int64_t>(weight.element_count()); }
  bool adapts() const { return weight.dimensions().size() > 1; }

  bool has_one_shape() const {
    return same_shape(weight, gradient) && same_shape(weight, velocity) && same_shape(weight, new_weight) &&
           same_shape(weight, new_velocity);
  }
};

// Returns every variable of a call, or an error that says what is wrong with the call.
ffi::ErrorOr<std::vector<Update>> updates(const Scalars& scalars, const ffi::RemainingArgs& arguments,
                                          const ffi::RemainingRets& results) {
  if (scalars.element_count() != 4)
    return ffi::Unexpected(
        invalid("the scalars must be learning_rate, momentum, weight_decay and trust_coefficient."));
  const size_t count = arguments.size() / 3;
  if (arguments.size() != 3 * count || results.size() != 2 * count)
    return ffi::Unexpected(invalid("a call needs three arrays and two results for each variable."));
  std::vector<Update> found;
  for (size_t i = 0; i < count; ++i) {
    const ffi::ErrorOr<Variable> weight = arguments.get<Variable>(3 * i),
                                 gradient = arguments.get<Variable>(3 * i + 1),
                                 velocity = arguments.get<Variable>(3 * i + 2);
    ffi::ErrorOr<Result> new_weight = results.get<Variable>(2 * i),
                         new_velocity = results.get<Variable>(2 * i + 1);
    if (weight.has_error() || gradient.has_error() || velocity.has_error() || new_weight.has_error() ||
        new_velocity.has_error())
      return ffi::Unexpected(invalid("weights, gradients and velocities must be float32."));
    found.push_back({*weight, *gradient, *velocity, **new_weight, **new_velocity});
    if (!found.back().has_one_shape())
      return ffi::Unexpected(invalid(
          "weight, gradient and velocity must have the same shape. Pass all three for the same variable."));
  }
  return found;
}

}  // namespace
}  // namespace lowlevel_simclr
