"""Makes the permissions of files apply to the user root too, for tests that root may run."""

from __future__ import annotations

import contextlib
import ctypes
import os
from collections.abc import Iterator

import pytest

_VERSION = 0x20080522  # _LINUX_CAPABILITY_VERSION_3
_IGNORE_PERMISSIONS = (1 << 1) | (1 << 2)  # CAP_DAC_OVERRIDE and CAP_DAC_READ_SEARCH
_EFFECTIVE = 0  # the index in the kernel's array at which the effective capabilities 0 to 31 are stored


@contextlib.contextmanager
def obey_permissions() -> Iterator[None]:
    """Make the permissions of files apply to this thread and to threads that it starts, even if the user is root."""
    if os.geteuid() != 0:
        yield
        return
    libc = ctypes.CDLL(None, use_errno=True)
    header, before = (ctypes.c_uint32 * 2)(_VERSION, 0), (ctypes.c_uint32 * 6)()
    if libc.capget(header, before):
        pytest.skip("the system call capget, which reads the rights of root, fails on this machine")
    without = (ctypes.c_uint32 * 6)(*before)
    without[_EFFECTIVE] &= ~_IGNORE_PERMISSIONS
    if libc.capset(header, without):
        pytest.skip("on this machine, root cannot give up its rights")
    try:
        yield
    finally:
        libc.capset(header, before)
