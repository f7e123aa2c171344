// Functions that all our handlers for XLA's foreign function interface (FFI) use, on the host and on CUDA. They make
// errors, memory for one call, and bindings. A binding lists the types of a handler's arguments and results.
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

// Turns the result of a CUDA launcher into an ffi::Error. `why` is the reason of a failure, or null after success.
inline ffi::Error outcome(const std::string& op, const char* why) {
  if (why == nullptr) return ffi::Error::Success();
  return ffi::Error(ffi::ErrorCode::kInternal, op + " on CUDA: " + why);
}

// Returns device memory for one call. XLA frees it after the work that the call has put on the stream. The pointer is
// null for 0 bytes. The result is nullopt if the device has no memory left. XLA guarantees an alignment of only 16
// bytes. This is enough, because the kernels load and copy 16 bytes at most at a time.
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
