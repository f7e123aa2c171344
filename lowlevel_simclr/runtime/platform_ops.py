"""Decides whether a platform uses this package's own ops (the native library) or only TensorFlow's (stock).

Only this module decides what `--ops auto` means. It does not load the library, so `--ops stock` works even if loading
the library would end the program.
"""

from __future__ import annotations

import platform
import sys
from pathlib import Path

LIBRARY = Path(__file__).resolve().parent.parent / "_native.so"
_NAMES = {"linux": "Linux", "darwin": "macOS", "win32": "Windows"}


def expects_library() -> bool:
    """Return whether this platform should have the native library. If so, a missing or broken library is an error.

    Linux on x86-64 has the library, because every wheel for this platform contains it. Linux on another processor, such
    as arm64, has the library after a build on that machine. macOS and Windows do not have it.
    """
    return sys.platform == "linux" and (platform.machine() == "x86_64" or LIBRARY.exists())


def choose_available_ops(ops: str) -> str:
    """Return the ops that a setting stands for on this platform.

    Args:
        ops: "auto", "native" or "stock".

    Returns:
        "native" or "stock". "auto" becomes "native" if `expects_library` returns True, and "stock" otherwise.

    Examples:
        >>> choose_available_ops("stock")
        'stock'
    """
    if ops != "auto":
        return ops
    return "native" if expects_library() else "stock"


def describe_platform() -> str:
    """Return the platform in words, such as "Linux on x86_64" or "macOS on arm64"."""
    return f"{_NAMES.get(sys.platform, sys.platform)} on {platform.machine()}"
