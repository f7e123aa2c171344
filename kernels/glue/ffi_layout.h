// Every number of XLA's C interface that our handlers depend on: offsets of fields, sizes, and codes. FFI is XLA's
// foreign function interface. A handler is a function of ours that XLA calls through the FFI.
//
// The only header of XLA that this file includes is the C header. So it compiles with the headers of every TensorFlow
// from 2.18 on. The program bench.report.ffi_releases compiles it with the headers of each release and records the
// numbers in ffi_releases.h.
#pragma once

#include <cstddef>

#include "xla/ffi/api/c_api.h"

namespace lowlevel_simclr {

// Version 0.4 of the FFI (TensorFlow 2.22) renamed two types.
#if XLA_FFI_API_MINOR >= 4
using FfiExtension = XLA_FFI_InternalExtension;
using FfiErrorMessage = XLA_FFI_Error_GetDetails_Args;
#define LOWLEVEL_SIMCLR_FFI_ERROR_MESSAGE XLA_FFI_Error_GetDetails
#else
using FfiExtension = XLA_FFI_Extension_Base;
using FfiErrorMessage = XLA_FFI_Error_GetMessage_Args;
#define LOWLEVEL_SIMCLR_FFI_ERROR_MESSAGE XLA_FFI_Error_GetMessage
#endif

// These numbers must be the same in all releases, because one binary reads and writes these fields.
constexpr size_t kFfiLayout[] = {
    // the table of functions (XLA_FFI_Api)
    offsetof(XLA_FFI_Api, struct_size),
    offsetof(XLA_FFI_Api, api_version),
    offsetof(XLA_FFI_Api, XLA_FFI_Error_Create),
    offsetof(XLA_FFI_Api, LOWLEVEL_SIMCLR_FFI_ERROR_MESSAGE),
    offsetof(XLA_FFI_Api, XLA_FFI_Error_Destroy),
    offsetof(XLA_FFI_Api, XLA_FFI_Handler_Register),
    offsetof(XLA_FFI_Api, XLA_FFI_Stream_Get),
    offsetof(XLA_FFI_Api, XLA_FFI_DeviceMemory_Allocate),
    offsetof(XLA_FFI_Api, XLA_FFI_DeviceMemory_Free),
    offsetof(XLA_FFI_Api_Version, major_version),
    offsetof(XLA_FFI_Api_Version, minor_version),
    sizeof(XLA_FFI_Api_Version),
    // registration
    offsetof(XLA_FFI_Handler_Register_Args, extension_start),
    offsetof(XLA_FFI_Handler_Register_Args, name),
    offsetof(XLA_FFI_Handler_Register_Args, platform),
    offsetof(XLA_FFI_Handler_Register_Args, bundle),
    offsetof(XLA_FFI_Handler_Bundle, instantiate),
    offsetof(XLA_FFI_Handler_Bundle, prepare),
    offsetof(XLA_FFI_Handler_Bundle, initialize),
    offsetof(XLA_FFI_Handler_Bundle, execute),
    offsetof(XLA_FFI_ByteSpan, ptr),
    offsetof(XLA_FFI_ByteSpan, len),
    // the call in which XLA asks a handler for its metadata
    offsetof(FfiExtension, struct_size),
    offsetof(FfiExtension, type),
    offsetof(FfiExtension, next),
    offsetof(XLA_FFI_Metadata_Extension, metadata),
    offsetof(XLA_FFI_Metadata, struct_size),
    offsetof(XLA_FFI_Metadata, api_version),
    offsetof(XLA_FFI_Metadata, traits),
    XLA_FFI_Extension_Metadata,
    // a call of a handler
    XLA_FFI_CallFrame_STRUCT_SIZE,
    sizeof(XLA_FFI_CallFrame),
    offsetof(XLA_FFI_CallFrame, extension_start),
    offsetof(XLA_FFI_CallFrame, api),
    offsetof(XLA_FFI_CallFrame, ctx),
    offsetof(XLA_FFI_CallFrame, stage),
    offsetof(XLA_FFI_CallFrame, args),
    offsetof(XLA_FFI_CallFrame, rets),
    offsetof(XLA_FFI_CallFrame, attrs),
    offsetof(XLA_FFI_CallFrame, future),
    offsetof(XLA_FFI_Args, size),
    offsetof(XLA_FFI_Args, types),
    offsetof(XLA_FFI_Args, args),
    offsetof(XLA_FFI_Rets, size),
    offsetof(XLA_FFI_Rets, types),
    offsetof(XLA_FFI_Rets, rets),
    offsetof(XLA_FFI_Attrs, size),
    XLA_FFI_ExecutionStage_EXECUTE,
    XLA_FFI_ArgType_BUFFER,
    XLA_FFI_RetType_BUFFER,
    // an array
    offsetof(XLA_FFI_Buffer, dtype),
    offsetof(XLA_FFI_Buffer, data),
    offsetof(XLA_FFI_Buffer, rank),
    offsetof(XLA_FFI_Buffer, dims),
    sizeof(XLA_FFI_DataType),
    XLA_FFI_DataType_PRED,
    XLA_FFI_DataType_S32,
    XLA_FFI_DataType_S64,
    XLA_FFI_DataType_U8,
    XLA_FFI_DataType_U16,
    XLA_FFI_DataType_F16,
    XLA_FFI_DataType_BF16,
    XLA_FFI_DataType_F32,
    XLA_FFI_DataType_F64,
    // the stream, and memory on the device
    XLA_FFI_Stream_Get_Args_STRUCT_SIZE,
    offsetof(XLA_FFI_Stream_Get_Args, ctx),
    offsetof(XLA_FFI_Stream_Get_Args, stream),
    XLA_FFI_DeviceMemory_Allocate_Args_STRUCT_SIZE,
    offsetof(XLA_FFI_DeviceMemory_Allocate_Args, ctx),
    offsetof(XLA_FFI_DeviceMemory_Allocate_Args, size),
    offsetof(XLA_FFI_DeviceMemory_Allocate_Args, alignment),
    offsetof(XLA_FFI_DeviceMemory_Allocate_Args, data),
    XLA_FFI_DeviceMemory_Free_Args_STRUCT_SIZE,
    offsetof(XLA_FFI_DeviceMemory_Free_Args, ctx),
    offsetof(XLA_FFI_DeviceMemory_Free_Args, size),
    offsetof(XLA_FFI_DeviceMemory_Free_Args, data),
    // errors
    XLA_FFI_Error_Create_Args_STRUCT_SIZE,
    offsetof(XLA_FFI_Error_Create_Args, message),
    offsetof(XLA_FFI_Error_Create_Args, errc),
    offsetof(FfiErrorMessage, error),
    offsetof(FfiErrorMessage, message),
    XLA_FFI_Error_Destroy_Args_STRUCT_SIZE,
    offsetof(XLA_FFI_Error_Destroy_Args, error),
    XLA_FFI_Error_Code_INVALID_ARGUMENT,
    XLA_FFI_Error_Code_RESOURCE_EXHAUSTED,
    XLA_FFI_Error_Code_INTERNAL,
};
constexpr size_t kFfiLayoutCount = sizeof kFfiLayout / sizeof *kFfiLayout;

// XLA's FFI in one release of TensorFlow. `layout` is the same in all releases. The fields before it may differ.
struct FfiRelease {
  const char* tensorflow;
  int major, minor;           // the version of the interface
  size_t api_size;            // the size of the table of functions, as the table itself gives it
  size_t register_args_size;  // size of the arguments of registration
  size_t message_args_size;   // size of the arguments that read an error's message
  size_t metadata_size;       // size in memory of the metadata of a handler, in bytes
  size_t layout[kFfiLayoutCount];
};

constexpr size_t kFfiRegisterArgsSize = XLA_FFI_Handler_Register_Args_STRUCT_SIZE;
#if XLA_FFI_API_MINOR >= 4
constexpr size_t kFfiMessageArgsSize = XLA_FFI_Error_GetDetails_Args_STRUCT_SIZE;
#else
constexpr size_t kFfiMessageArgsSize = XLA_FFI_Error_GetMessage_Args_STRUCT_SIZE;
#endif

}  // namespace lowlevel_simclr
