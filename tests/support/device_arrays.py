"""Arrays for tests of CUDA kernels: in main memory if the CPU emulates the kernels, or in the memory of a GPU.

The C function that starts the CUDA kernels of an op (its launcher) gets pointers to such arrays. Before and after each
array are guard bytes with a known value. If a kernel writes outside its array, `Buffer.read` finds that guard bytes
have changed. The module needs only NumPy, and on a GPU also PyTorch or CuPy.
"""

from __future__ import annotations

import ctypes
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

KERNELS = Path(__file__).parents[2] / "kernels"
GUARD, GUARD_BYTE, FRESH_BYTE = 256, 0xA5, 0xFF  # floats of bytes 0xFF are NaN, so a result that was not written is NaN


class Memory:
    """Main memory, for kernels that the CPU emulates. The two subclasses use the memory of a GPU."""

    name = "emulated on the host"
    stream = None

    def upload(self, raw: NDArray[np.uint8]) -> Any:
        """Copy bytes into memory that kernels can reach, at an address divisible by 256. Return the copy."""
        room = np.empty(len(raw) + 256, np.uint8)
        start = -room.ctypes.data % 256
        room[start : start + len(raw)] = raw
        return room[start : start + len(raw)]

    def address(self, held: Any) -> int:
        return held.ctypes.data

    def download(self, held: Any) -> NDArray[np.uint8]:
        return held.copy()


class TorchMemory(Memory):
    """The memory of a GPU, reached through PyTorch. Kernels run on a CUDA stream that is not the default one."""

    def __init__(self) -> None:
        import torch

        self.torch = torch
        self.queue = torch.cuda.Stream()
        self.stream = self.queue.cuda_stream
        self.name = torch.cuda.get_device_name()

    def upload(self, raw: NDArray[np.uint8]) -> Any:
        held = self.torch.from_numpy(raw.copy()).cuda()
        self.torch.cuda.synchronize()
        return held

    def address(self, held: Any) -> int:
        return held.data_ptr()

    def download(self, held: Any) -> NDArray[np.uint8]:
        self.queue.synchronize()
        return held.cpu().numpy()


class CupyMemory(Memory):
    """The memory of a GPU, reached through CuPy. Kernels run on a CUDA stream that is not the default one."""

    def __init__(self) -> None:
        import cupy

        self.cupy = cupy
        self.queue = cupy.cuda.Stream(non_blocking=True)
        self.stream = self.queue.ptr
        self.name = cupy.cuda.runtime.getDeviceProperties(0)["name"].decode()

    def upload(self, raw: NDArray[np.uint8]) -> Any:
        held = self.cupy.asarray(raw)
        self.cupy.cuda.runtime.deviceSynchronize()
        return held

    def address(self, held: Any) -> int:
        return held.data.ptr

    def download(self, held: Any) -> NDArray[np.uint8]:
        self.queue.synchronize()
        return self.cupy.asnumpy(held)


def gpu_memory() -> Memory:
    """Return the memory of the first GPU, reached through PyTorch, or through CuPy if PyTorch does not work.

    Raises:
        RuntimeError: if neither package can reach a GPU.
    """
    reasons = []
    for kind in (TorchMemory, CupyMemory):
        try:
            return kind()
        except Exception as error:  # noqa: BLE001, each library has its own error for "no GPU"
            reasons.append(f"{kind.__name__}: {error}")
    raise RuntimeError(f"No GPU can be reached ({'; '.join(reasons)}). Install a CUDA driver, and PyTorch or CuPy.")


class Buffer:
    """An array between guard bytes. `content` is its content, or its size in bytes; then each byte is FRESH_BYTE."""

    def __init__(self, memory: Memory, content: NDArray[Any] | int) -> None:
        fresh = isinstance(content, int)
        inner = (
            np.full(content, FRESH_BYTE, np.uint8) if fresh else np.ascontiguousarray(content).reshape(-1).view("u1")
        )
        self.memory, self.size = memory, len(inner)
        self.behind = -len(inner) % 256  # padding behind the guard bytes, which directly follow the array
        guard = np.full(GUARD, GUARD_BYTE, np.uint8)
        self.held = memory.upload(np.concatenate([guard, inner, guard, np.zeros(self.behind, np.uint8)]))
        self.pointer = ctypes.c_void_p(memory.address(self.held) + GUARD)

    def read(self, dtype: Any, shape: tuple[int, ...]) -> NDArray[Any]:
        """Return the content of the buffer.

        Raises:
            AssertionError: if a guard byte has changed.
        """
        raw = self.memory.download(self.held)
        assert np.all(raw[:GUARD] == GUARD_BYTE), "a kernel wrote before the beginning of an array"
        assert np.all(raw[GUARD + self.size : 2 * GUARD + self.size] == GUARD_BYTE), "a kernel wrote behind an array"
        return raw[GUARD : GUARD + self.size].copy().view(dtype).reshape(shape)


def to_bfloat16(x: NDArray[Any]) -> NDArray[np.uint16]:
    """Return the bits of the nearest bfloat16 number. If two are equally near, take the one whose last bit is 0."""
    bits = np.asarray(x, np.float32).view(np.uint32).astype(np.uint64)
    return ((bits + 0x7FFF + (bits >> 16 & 1)) >> 16).astype(np.uint16)


def from_bfloat16(bits: NDArray[np.uint16]) -> NDArray[np.float32]:
    """Return bfloat16 numbers as float32, from their bits. This rounds nothing."""
    return (bits.astype(np.uint32) << 16).view(np.float32)


def build(command: list[str], sources: list[Path], target: Path) -> ctypes.CDLL:
    """Compile the sources of the launchers into a shared library, and load it.

    Raises:
        RuntimeError: if the compiler fails. The message has the compiler's output.
    """
    done = subprocess.run([*command, *map(str, sources), "-o", str(target)], capture_output=True, text=True)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(command)} failed:\n{done.stdout}{done.stderr}")
    return ctypes.CDLL(str(target))


def sources() -> list[Path]:
    """Return the path of every CUDA source of the project."""
    return sorted(KERNELS.rglob("*.cu"))


def emulated(folder: Path) -> ctypes.CDLL:
    """Return a library of the CUDA kernels and their launchers, compiled for the CPU.

    Each CUDA thread becomes a fibre, a thread that the program itself schedules (kernels/cuda/cuda_on_host.h).
    """
    flags = ["-O2", "-std=c++17", "-fPIC", "-shared", "-w", "-fno-strict-aliasing", "-ffp-contract=off", "-x", "c++"]
    flags += ["-DLOWLEVEL_SIMCLR_BLOCKS_WANTED=4"]  # few blocks, so even a small problem uses all loops
    return build(["g++", *flags], sources(), folder / "emulated.so")
