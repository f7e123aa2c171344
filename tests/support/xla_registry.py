"""Asks the loaded XLA which functions it can call for other libraries (registered handlers), for tests."""

from __future__ import annotations

import ctypes
from pathlib import Path

import tensorflow as tf

ENTRIES = ("XLA_FFI_GetApi", "_ZN3xla3ffi12GetXlaFfiApiEv")  # each TensorFlow exports one of these two functions
# Positions of fields in XLA's structs, in bytes. They are equal in every release (kernels/glue/ffi_layout.h).
REGISTER, MESSAGE, MINOR = 72, 56, 16 + 20
EXTENSION_OF_FRAME, METADATA_OF_EXTENSION, MINOR_OF_METADATA = 8, 24, 8 + 20
HANDLER = ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_void_p)


class RegisterArgs(ctypes.Structure):
    """The C struct with the arguments of a registration, with room for fields that newer releases add."""

    _fields_ = [
        ("struct_size", ctypes.c_size_t),
        ("extension", ctypes.c_void_p),
        ("name", ctypes.c_char_p),
        ("name_length", ctypes.c_size_t),
        ("platform", ctypes.c_char_p),
        ("platform_length", ctypes.c_size_t),
        ("instantiate", ctypes.c_void_p),
        ("prepare", ctypes.c_void_p),
        ("initialize", ctypes.c_void_p),
        ("execute", ctypes.c_void_p),
        ("room", ctypes.c_byte * 32),
    ]


class MessageArgs(ctypes.Structure):
    """The C struct with the arguments for reading an error's message, with room for fields that newer releases add."""

    _fields_ = [
        ("struct_size", ctypes.c_size_t),
        ("extension", ctypes.c_void_p),
        ("error", ctypes.c_void_p),
        ("message", ctypes.c_char_p),
        ("room", ctypes.c_byte * 32),
    ]


def find_table() -> int:
    """Return the address of XLA's table of functions."""
    for name in ("libtensorflow_framework.so.2", "libtensorflow_cc.so.2"):
        library = ctypes.CDLL(str(Path(tf.sysconfig.get_lib()) / name))
        for entry in ENTRIES:
            if hasattr(library, entry):
                function = getattr(library, entry)
                function.restype = ctypes.c_void_p
                return int(function())
    raise AssertionError("this TensorFlow exports no entry to XLA's FFI")


def call(place: int, arguments: ctypes.Structure) -> int | None:
    """Call the function at this position in XLA's table. Return its result: an address, or None."""
    address = ctypes.c_void_p.from_address(find_table() + place).value
    assert address is not None
    return HANDLER(address)(ctypes.addressof(arguments))


@HANDLER
def answer_metadata(frame: int) -> None:
    """Answer XLA's question for the version of a handler, with XLA's own version.

    XLA calls a handler with this question when it is registered.
    """
    extension = ctypes.c_void_p.from_address(frame + EXTENSION_OF_FRAME).value or 0
    metadata = ctypes.c_void_p.from_address(extension + METADATA_OF_EXTENSION).value or 0
    minor = ctypes.c_int.from_address(find_table() + MINOR).value
    ctypes.c_int.from_address(metadata + MINOR_OF_METADATA - 4).value = 0
    ctypes.c_int.from_address(metadata + MINOR_OF_METADATA).value = minor


def register_another(name: str, platform: str) -> str:
    """Try to register a new handler. Return XLA's error message, or "" if XLA accepts the handler.

    XLA refuses a name that another handler has already.

    Args:
        name: the name of the new handler.
        platform: "Host" or "CUDA".
    """
    given = (name.encode(), platform.encode())
    arguments = RegisterArgs(92, None, given[0], len(given[0]), given[1], len(given[1]))
    arguments.execute = ctypes.cast(answer_metadata, ctypes.c_void_p).value
    error = call(REGISTER, arguments)
    if error is None:
        return ""
    asked = MessageArgs(36, None, error)
    call(MESSAGE, asked)
    return (asked.message or b"").decode()
