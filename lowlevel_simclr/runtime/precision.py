"""Sets the precision in which layers compute, and finds the precision that is fastest on this device."""

from __future__ import annotations

import tensorflow as tf

from lowlevel_simclr.runtime import cpu

# Users cannot choose float64. Tests use it to show that two computations are equal. In float32, rounding would hide
# this within a few steps.
POLICIES = {"float32": "float32", "bfloat16": "mixed_bfloat16", "float16": "mixed_float16", "float64": "float64"}
BFLOAT16_UNITS = {"avx512_bf16", "amx_bf16"}  # CPU flags; a processor with one of them can multiply bfloat16


def set_precision(precision: str) -> None:
    """Set the precision of all layers that are created after this call.

    Variables are float64 for the precision float64, and float32 for all others.

    Raises:
        ValueError: if the precision is unknown.
    """
    if precision not in POLICIES:
        raise ValueError(f"There is no precision '{precision}'. Use one of {', '.join(POLICIES)}.")
    tf.keras.mixed_precision.set_global_policy(POLICIES[precision])


def choose_fast_precision() -> str:
    """Return the precision that is fastest on this device.

    It is bfloat16 or float16 if the device has faster units for it, and float32 otherwise. With several GPUs, the
    oldest one decides. Without a GPU, the flags in /proc/cpuinfo decide. Without that file the answer is float32.
    """
    capability = _find_gpu_capability()
    if capability is not None:
        return "bfloat16" if has_bfloat16() else "float16" if capability >= (7, 0) else "float32"
    words = cpu.read_cpuinfo_words()
    # Intel's processors from Sapphire Rapids on have the flag avx512_fp16. They multiply bfloat16 fast with AMX (matrix
    # instructions), which a virtual machine may hide. With AVX-512 alone, bfloat16 reaches only half the rate of
    # float32 (162 and 319 GFLOP/s on Golden Cove, matrix product of bench_step), and float32 trains 1.3 to 1.6 times as
    # fast as bfloat16.
    slow = {"GenuineIntel", "avx512_fp16"} <= words and "amx_bf16" not in words
    return "bfloat16" if has_bfloat16() and not slow else "float32"


def has_bfloat16() -> bool:
    """Return whether this device can multiply bfloat16, even if it is slower than float32."""
    capability = _find_gpu_capability()
    return bool(cpu.read_cpuinfo_words() & BFLOAT16_UNITS) if capability is None else capability >= (8, 0)


def _find_gpu_capability() -> tuple[int, int] | None:
    """Return the compute capability (CUDA) of the oldest GPU, or None without a GPU.

    A GPU that does not report its capability counts as (0, 0).
    """
    gpus = tf.config.list_physical_devices("GPU")
    details = [tf.config.experimental.get_device_details(gpu) for gpu in gpus]
    return min((found.get("compute_capability", (0, 0)) for found in details), default=None)
