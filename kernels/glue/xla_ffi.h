// What every XLA FFI handler here needs, on the host and on CUDA: errors, memory of a call, registration.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <optional>
#include <string>
#include <utility>

#include "../runtime/host_memory.h"
#include "xla/ffi/api/ffi.h"

// Absent from TensorFlow 2.15; then there is nobody to register with.
extern "C" __attribute__((weak)) const XLA_FFI_Api* XLA_FFI_GetApi();

namespace lowlevel_simclr {

namespace ffi = xla::ffi;

inline ffi::Error invalid(const std::string& message) {
  return ffi::Error(ffi::ErrorCode::kInvalidArgument, message);
}

// `what` is what there is no memory for.
inline ffi::Error no_memory(const std::string& what) {
  return ffi::Error(ffi::ErrorCode::kResourceExhausted, "no memory for " + what + ".");
}

// What a launcher of CUDA kernels said: nothing, or why it failed.
inline ffi::Error outcome(const std::string& op, const char* why) {
  if (why == nullptr) return ffi::Error::Success();
  return ffi::Error(ffi::ErrorCode::kInternal, op + " on CUDA: " + why);
}

// The device's memory for one call, freed in the stream's order; null for 0 bytes, and nothing where there is none left.
// XLA refuses to promise more than 16 bytes of alignment, which every 16-byte load and copy of the kernels needs.
inline std::optional<void*> device_memory(ffi::ScratchAllocator& scratch, int64_t bytes) {
  if (bytes <= 0) return nullptr;
  return scratch.Allocate(static_cast<size_t>(bytes), 16);
}

// A binding with arguments of these types behind those that it has.
template <typename First, typename... Rest, typename Binding>
auto takes(Binding&& binding) {
  if constexpr (sizeof...(Rest) == 0)
    return std::move(binding).template Arg<First>();
  else
    return takes<Rest...>(std::move(binding).template Arg<First>());
}

// The same with results.
template <typename First, typename... Rest, typename Binding>
auto gives(Binding&& binding) {
  if constexpr (sizeof...(Rest) == 0)
    return std::move(binding).template Ret<First>();
  else
    return gives<Rest...>(std::move(binding).template Ret<First>());
}

// A handler by the name that a call gives.
struct Target {
  const char* name;
  XLA_FFI_Handler* handler;
};

// Makes handlers known to XLA for a platform, "Host" or "CUDA"; false where TensorFlow has no FFI.
inline bool register_targets(const char* platform, std::initializer_list<Target> targets) {
  if (XLA_FFI_GetApi == nullptr) return false;
  for (const Target& target : targets)
    ffi::Ffi::RegisterStaticHandler(XLA_FFI_GetApi(), target.name, platform, target.handler);
  return true;
}

}  // namespace lowlevel_simclr
