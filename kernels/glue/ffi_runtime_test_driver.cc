// Tests ffi_runtime_xla.cc with an imitation of XLA. The imitation can have any version. This program is not part of
// the library.
//
// The imitation behaves as XLA's sources do. Up to version 0.1, it accepts only a handler that reports the version of
// the imitation. Later versions also accept a handler that reports an older version. The imitation gives our code
// memory of exactly the size that its release uses, and checks that the bytes after this memory do not change.
//
//     ffi_runtime_test_driver ENTRY MAJOR MINOR TABLE_SIZE
//
// ENTRY is c, cpp or none, by which functions the imitation exports (see below), or refuse (like c, but it refuses the
// registration). The driver prints one line for each thing that a test checks.
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>

#include "ffi_layout.h"
#include "ffi_runtime.h"

extern "C" const char* lowlevel_simclr_xla_refusal();

namespace {

using namespace lowlevel_simclr;

std::string entry;
XLA_FFI_Api api = {};
XLA_FFI_Handler* registered = nullptr;
constexpr unsigned char kGuard = 0xA5;

// Memory for one release: the `size` bytes that this release uses, then guard bytes that must not change.
struct Guarded {
  explicit Guarded(size_t size) : size(size) { std::memset(bytes, kGuard, sizeof bytes); }
  bool is_whole() const {
    for (size_t i = size; i < sizeof bytes; ++i)
      if (bytes[i] != kGuard) return false;
    return true;
  }
  size_t size;
  alignas(16) unsigned char bytes[128];
};

XLA_FFI_Error* refuse_or_register(XLA_FFI_Handler_Register_Args* args) {
  std::printf("register %.*s for %.*s, %zu bytes\n", static_cast<int>(args->name.len), args->name.ptr,
              static_cast<int>(args->platform.len), args->platform.ptr, args->struct_size);
  // A newer XLA reads two things after the fields of this header: a record handler and the traits.
  const char* behind = reinterpret_cast<char*>(&args->bundle) + 4 * sizeof(void*);
  const char zero[24] = {};
  std::printf("behind the handlers %s\n", std::memcmp(behind, zero, sizeof zero) == 0 ? "zero" : "rubbish");
  registered = args->bundle.execute;
  static char error;
  return entry == "refuse" ? reinterpret_cast<XLA_FFI_Error*>(&error) : nullptr;
}

// Version 0.4 writes the error's code after the message.
void tell_message(FfiErrorMessage* args) {
  std::printf("message asked with %zu bytes\n", args->struct_size);
  args->message = "this handler is too new";
  if (args->struct_size > offsetof(FfiErrorMessage, message) + sizeof(char*))
    std::memset(reinterpret_cast<char*>(args) + args->struct_size - 4, 0x33, 4);
}

void destroy(XLA_FFI_Error_Destroy_Args*) { std::puts("error destroyed"); }

XLA_FFI_Error* handle(XLA_FFI_CallFrame* frame) {
  std::printf("called with %s, ctx %p\n", frame->api == &api ? "XLA's table" : "our table",
              reinterpret_cast<void*>(frame->ctx));
  return nullptr;
}

void ask_for_metadata(size_t metadata_size) {
  Guarded memory(metadata_size);
  auto* metadata = reinterpret_cast<XLA_FFI_Metadata*>(memory.bytes);
  metadata->struct_size = 36;
  XLA_FFI_Metadata_Extension asked = {};
  asked.extension_base.struct_size = sizeof asked;
  asked.extension_base.type = XLA_FFI_Extension_Metadata;
  asked.metadata = metadata;
  XLA_FFI_CallFrame frame = {};
  frame.struct_size = XLA_FFI_CallFrame_STRUCT_SIZE;
  frame.extension_start = &asked.extension_base;
  registered(&frame);
  std::printf("answers %d.%d, traits %u, memory behind %s\n", metadata->api_version.major_version,
              metadata->api_version.minor_version, metadata->traits,
              memory.is_whole() ? "whole" : "overwritten");
}

void call() {
  XLA_FFI_CallFrame frame = {};
  frame.struct_size = XLA_FFI_CallFrame_STRUCT_SIZE;
  frame.api = &api;
  frame.ctx = reinterpret_cast<decltype(frame.ctx)>(0x77);
  registered(&frame);
}

constexpr XLA_FFI_Handler* kHandle = handle;

}  // namespace

// The functions that TensorFlow exports. A build of this driver has one of them, both or none.
#ifdef LOWLEVEL_SIMCLR_ENTRY_C
extern "C" const XLA_FFI_Api* XLA_FFI_GetApi() {
  std::puts("entry XLA_FFI_GetApi");
  return &api;
}
#endif
#ifdef LOWLEVEL_SIMCLR_ENTRY_CPP
namespace xla::ffi {
const XLA_FFI_Api* GetXlaFfiApi() {
  std::puts("entry GetXlaFfiApi");
  return &api;
}
}  // namespace xla::ffi
#endif

int main(int count, char** given) {
  if (count != 5) return 2;
  entry = given[1];
  api.struct_size = static_cast<size_t>(std::atol(given[4]));
  api.api_version = {XLA_FFI_Api_Version_STRUCT_SIZE, nullptr, std::atoi(given[2]), std::atoi(given[3])};
  api.XLA_FFI_Handler_Register = refuse_or_register;
  api.LOWLEVEL_SIMCLR_FFI_ERROR_MESSAGE = tell_message;
  api.XLA_FFI_Error_Destroy = destroy;
  const bool done = lowlevel_simclr::register_targets("Host", {target<kHandle>("some_op")});
  std::printf("registered %s\nrefusal %s\n", done ? "yes" : "no", lowlevel_simclr_xla_refusal());
  if (!done) return 0;
  ask_for_metadata(api.api_version.minor_version >= 2 ? 48 : 40);
  call();
  return 0;
}
