// What LARS's XLA FFI handlers on the host and on CUDA share: their arrays, and the checks of a call's shapes.
#pragma once

#include <algorithm>
#include <cstdint>

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

}  // namespace
}  // namespace lowlevel_simclr
