// XLA FFI (foreign function interface): errors, memory for one call and bindings. All our handlers use this file, on
// the host and on CUDA.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <utility>

#include "../runtime/host_memory.h"
#include "ffi_runtime.h"
#include "xla/ffi/api/ffi.h"

namespace lowlevel_simclr {

namespace ffi = xla::ffi;

inline ffi::Error invalid(const std::string& message) {
  return ffi::Error(ffi::ErrorCode::kInvalidArgument, message);
}

inline ffi::Error no_memory(const std::string& what) {
  return ffi::Error(ffi::ErrorCode::kResourceExhausted, "no memory for " + what + ".");
}

// Turns the result of a CUDA launcher into an ffi::Error. `why` is null after success, and otherwise the reason of the
// failure.
inline ffi::Error outcome(const std::string& op, const char* why) {
  if (why == nullptr) return ffi::Error::Success();
  return ffi::Error(ffi::ErrorCode::kInternal, op + " on CUDA: " + why);
}

// Returns device memory for one call. It is freed in the stream's order. The pointer is null for 0 bytes. The result is
// nullopt if the device has no memory left. XLA promises an alignment of 16 bytes and no more. The kernels' loads and
// copies of 16 bytes need exactly that.
inline std::optional<void*> device_memory(ffi::ScratchAllocator& scratch, int64_t bytes) {
  if (bytes <= 0) return nullptr;
  return scratch.Allocate(static_cast<size_t>(bytes), 16);
}

// Adds arguments of these types to a binding.
template <typename First, typename... Rest, typename Binding>
auto takes(Binding&& binding) {
  if constexpr (sizeof...(Rest) == 0)
    return std::move(binding).template Arg<First>();
  else
    return takes<Rest...>(std::move(binding).template Arg<First>());
}

// Adds results of these types to a binding.
template <typename First, typename... Rest, typename Binding>
auto gives(Binding&& binding) {
  if constexpr (sizeof...(Rest) == 0)
    return std::move(binding).template Ret<First>();
  else
    return gives<Rest...>(std::move(binding).template Ret<First>());
}

}  // namespace lowlevel_simclr
