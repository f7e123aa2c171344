// The connection to the XLA of the loaded TensorFlow. See ffi_runtime.h.
#include <algorithm>
#include <cstring>
#include <iterator>
#include <string>

#include "../runtime/exported.h"
#include "ffi_releases.h"
#include "ffi_runtime.h"

// The two functions that return XLA's table of functions. From 2.20 on, the package tensorflow exports the first one.
// The package tensorflow-cpu, and tensorflow before 2.20, export only the second one. If TensorFlow does not export a
// function, its address is null.
extern "C" __attribute__((weak)) const XLA_FFI_Api* XLA_FFI_GetApi();
namespace xla::ffi {
__attribute__((weak)) const XLA_FFI_Api* GetXlaFfiApi();
}

namespace lowlevel_simclr {
namespace {

constexpr const FfiRelease& kOldest = *std::begin(kFfiReleases);
constexpr const FfiRelease& kNewest = *(std::end(kFfiReleases) - 1);

constexpr bool has_our_layout(const FfiRelease& release) {
  for (size_t i = 0; i < kFfiLayoutCount; ++i)
    if (release.layout[i] != kFfiLayout[i]) return false;
  return release.major == XLA_FFI_API_MAJOR;
}

constexpr bool all_have_our_layout() {
  for (const FfiRelease& release : kFfiReleases)
    if (!has_our_layout(release)) return false;
  return true;
}

static_assert(
    all_have_our_layout(),
    "The structures of XLA's FFI in these headers differ from those of a release in ffi_releases.h, so one "
    "binary cannot serve both. Build with the headers of TensorFlow 2.21.");

// ---- The release that is loaded

struct Runtime {
  const XLA_FFI_Api* api = nullptr;      // null if XLA cannot be reached
  const FfiRelease* release = &kNewest;  // the newest known release that is not newer than the loaded one
  XLA_FFI_Api for_handlers = {};         // the table that handlers get instead of `api`
  std::string refusal;                   // why XLA cannot call the library; empty if it can
};

const XLA_FFI_Api* find_api() {
  if (XLA_FFI_GetApi != nullptr) return XLA_FFI_GetApi();
  if (xla::ffi::GetXlaFfiApi != nullptr) return xla::ffi::GetXlaFfiApi();
  return nullptr;
}

std::string write_version(int major, int minor) {
  return std::to_string(major) + "." + std::to_string(minor);
}

// Returns why the library cannot work with this XLA, or an empty string.
std::string find_refusal(const XLA_FFI_Api* api) {
  if (api == nullptr) return "This TensorFlow exports no entry to XLA's FFI.";
  // Before 0.1 the table was shorter and had no version, and the numbers for the stages of a call's execution were
  // different.
  if (api->struct_size < kOldest.api_size)
    return "The XLA FFI of this TensorFlow is older than version " +
           write_version(kOldest.major, kOldest.minor) + ", the oldest one that the library knows.";
  if (api->api_version.major_version != kNewest.major || api->api_version.minor_version < kOldest.minor)
    return "The XLA FFI of this TensorFlow has version " +
           write_version(api->api_version.major_version, api->api_version.minor_version) +
           ". The library knows versions " + write_version(kOldest.major, kOldest.minor) + " to " +
           write_version(kNewest.major, kNewest.minor) + ".";
  return "";
}

const FfiRelease* find_release(int minor_version) {
  const FfiRelease* found = &kOldest;
  for (const FfiRelease& release : kFfiReleases)
    if (release.minor <= minor_version) found = &release;
  return found;
}

const Runtime& runtime();

// Reads an error's message. The arguments must have the size that the loaded release expects, because version 0.4
// writes one field more than the struct has in the headers of 0.2.
void read_message(FfiErrorMessage* asked) {
  alignas(FfiErrorMessage) char room[2 * sizeof(FfiErrorMessage)] = {};
  auto* args = reinterpret_cast<FfiErrorMessage*>(room);
  args->struct_size = runtime().release->message_args_size;
  args->error = asked->error;
  runtime().api->LOWLEVEL_SIMCLR_FFI_ERROR_MESSAGE(args);
  asked->message = args->message;
}

// Returns a table that holds only the functions that our handlers call. All others stay null, because a call of one of
// them would not be safe in every release.
XLA_FFI_Api make_table(const XLA_FFI_Api& api) {
  XLA_FFI_Api table = {};
  table.struct_size = XLA_FFI_Api_STRUCT_SIZE;
  table.api_version = {XLA_FFI_Api_Version_STRUCT_SIZE, nullptr, XLA_FFI_API_MAJOR, XLA_FFI_API_MINOR};
  table.XLA_FFI_Error_Create = api.XLA_FFI_Error_Create;
  table.LOWLEVEL_SIMCLR_FFI_ERROR_MESSAGE = read_message;
  table.XLA_FFI_Error_Destroy = api.XLA_FFI_Error_Destroy;
  table.XLA_FFI_Stream_Get = api.XLA_FFI_Stream_Get;
  table.XLA_FFI_DeviceMemory_Allocate = api.XLA_FFI_DeviceMemory_Allocate;
  table.XLA_FFI_DeviceMemory_Free = api.XLA_FFI_DeviceMemory_Free;
  return table;
}

Runtime find_runtime() {
  Runtime found;
  const XLA_FFI_Api* api = find_api();
  found.refusal = find_refusal(api);
  if (!found.refusal.empty()) return found;
  found.api = api;
  found.release = find_release(api->api_version.minor_version);
  found.for_handlers = make_table(*api);
  return found;
}

// The files register their handlers while the library loads, in no fixed order. So this object is made when it is first
// used.
Runtime& mutable_runtime() {
  static Runtime found = find_runtime();
  return found;
}

const Runtime& runtime() { return mutable_runtime(); }

// ---- Registration

// Returns the message of an error and destroys the error. Returns an empty string if there is no error.
std::string take_message(XLA_FFI_Error* error) {
  if (error == nullptr) return "";
  FfiErrorMessage asked = {};
  asked.error = error;
  read_message(&asked);
  const std::string message = asked.message;
  XLA_FFI_Error_Destroy_Args args = {XLA_FFI_Error_Destroy_Args_STRUCT_SIZE, nullptr, error};
  runtime().api->XLA_FFI_Error_Destroy(&args);
  return message;
}

// Registers a target. Returns XLA's error message, or an empty string. Version 0.4 reads one handler more than 0.2, and
// after it the traits. We have neither, so that memory is zero.
std::string register_target(const char* platform, const Target& target) {
  alignas(XLA_FFI_Handler_Register_Args) char room[2 * sizeof(XLA_FFI_Handler_Register_Args)] = {};
  auto* args = reinterpret_cast<XLA_FFI_Handler_Register_Args*>(room);
  args->struct_size = runtime().release->register_args_size;
  args->name = {target.name, std::strlen(target.name)};
  args->platform = {platform, std::strlen(platform)};
  args->bundle.execute = target.handler;
  const std::string message = take_message(runtime().api->XLA_FFI_Handler_Register(args));
  if (message.empty()) return "";
  return "XLA refuses " + std::string(target.name) + " for the platform " + platform + ": " + message;
}

// ---- Calls

bool asks_for_metadata(const XLA_FFI_CallFrame& frame) {
  return frame.extension_start != nullptr && frame.extension_start->type == XLA_FFI_Extension_Metadata;
}

// Reports the version of the XLA that asks, because up to 0.1 XLA requires an equal version. If XLA is newer than all
// versions that we know, this reports the newest one that we know, and XLA decides whether that is enough. The traits,
// and the fields that 0.2 added after them, stay zero, which means "none".
void answer(XLA_FFI_Metadata* metadata) {
  const FfiRelease& release = *runtime().release;
  const int minor = std::min(runtime().api->api_version.minor_version, kNewest.minor);
  const size_t start = offsetof(XLA_FFI_Metadata, api_version);
  std::memset(reinterpret_cast<char*>(metadata) + start, 0, release.metadata_size - start);
  metadata->api_version = {XLA_FFI_Api_Version_STRUCT_SIZE, nullptr, release.major, minor};
}

}  // namespace

bool register_targets(const char* platform, std::initializer_list<Target> targets) {
  Runtime& found = mutable_runtime();
  for (const Target& target : targets)
    if (found.api != nullptr && found.refusal.empty()) found.refusal = register_target(platform, target);
  return found.refusal.empty();
}

XLA_FFI_Error* run_for_any_release(XLA_FFI_Handler* handler, XLA_FFI_CallFrame* frame) {
  if (asks_for_metadata(*frame)) {
    answer(reinterpret_cast<XLA_FFI_Metadata_Extension*>(frame->extension_start)->metadata);
    return nullptr;
  }
  XLA_FFI_CallFrame ours = *frame;
  ours.api = &runtime().for_handlers;
  return handler(&ours);
}

}  // namespace lowlevel_simclr

// Returns in one sentence why XLA cannot call the library, or "" if it can.
LOWLEVEL_SIMCLR_EXPORT const char* lowlevel_simclr_xla_refusal() {
  return lowlevel_simclr::runtime().refusal.c_str();
}
