// What LARS's XLA FFI handlers on the host and on CUDA share: their arrays, and the checks of a call's shapes.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "../xla_ffi.h"

namespace lowlevel_simclr {
namespace {

using Variable = ffi::Buffer<ffi::F32>;    // of any rank
using Scalars = ffi::Buffer<ffi::F32, 1>;  // learning_rate, momentum, weight_decay, trust_coefficient
using Result = ffi::Result<Variable>;

bool same_shape(const Variable& one, const Variable& other) {
  const auto dims = one.dimensions(), others = other.dimensions();
  return std::equal(dims.begin(), dims.end(), others.begin(), others.end());
}

// What is wrong with the shapes of a call.
ffi::Error check_shapes(const Variable& weight, const Variable& gradient, const Variable& velocity,
                        const Scalars& scalars, const Variable& new_weight, const Variable& new_velocity) {
  const char* wrong = nullptr;
  if (scalars.element_count() != 4) {
    wrong = "the scalars must be learning_rate, momentum, weight_decay and trust_coefficient.";
  }
  for (const Variable* other : {&gradient, &velocity, &new_weight, &new_velocity}) {
    if (!same_shape(weight, *other)) {
      wrong = "weight, gradient and velocity must have one shape: give all three for the same variable.";
    }
  }
  return wrong == nullptr ? ffi::Error::Success() : invalid(wrong);
}

// What a call takes and gives, behind what the platform adds: weight, gradient, velocity, scalars -> both results.
template <typename Binding>
auto with_arrays(Binding&& binding) {
  return gives<Variable, Variable>(takes<Variable, Variable, Variable, Scalars>(std::move(binding)));
}

bool adapts(const Variable& weight) { return weight.dimensions().size() > 1; }

// One variable of a call with many: weight, gradient, velocity -> new_weight, new_velocity.
struct Update {
  Variable weight, gradient, velocity, new_weight, new_velocity;
};

// Every variable of a call, its shapes checked.
ffi::ErrorOr<std::vector<Update>> updates(const Scalars& scalars, const ffi::RemainingArgs& arguments,
                                          const ffi::RemainingRets& results) {
  const size_t count = arguments.size() / 3;
  if (arguments.size() != 3 * count || results.size() != 2 * count)
    return ffi::Unexpected(invalid("give three arrays a variable, and take two."));
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
    const Update& last = found.back();
    if (ffi::Error error = check_shapes(last.weight, last.gradient, last.velocity, scalars, last.new_weight,
                                        last.new_velocity);
        error.failure())
      return ffi::Unexpected(error);
  }
  return found;
}

}  // namespace
}  // namespace lowlevel_simclr
