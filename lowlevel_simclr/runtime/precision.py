"""The precision that layers compute in, and which one this device computes fast."""

from __future__ import annotations

import tensorflow as tf

from lowlevel_simclr.runtime import cpu

# float64 is no choice of a user: identities that float32 networks blur within a few steps are proven in it.
POLICIES = {"float32": "float32", "bfloat16": "mixed_bfloat16", "float16": "mixed_float16", "float64": "float64"}
BFLOAT16_UNITS = {"avx512_bf16", "amx_bf16"}  # a processor multiplies bfloat16 where it has one of them


def set_precision(precision: str) -> None:
    """What layers made from now on compute in; their variables are float32 whatever it is (float64 for float64).

    Raises:
        ValueError: there is no such precision.
    """
    if precision not in POLICIES:
        raise ValueError(f"there is no precision '{precision}': give one of {', '.join(POLICIES)}")
    tf.keras.mixed_precision.set_global_policy(POLICIES[precision])


def choose_fast_precision() -> str:
    """What this device does fastest: bfloat16 or float16 where its units for it are the faster ones, else float32.

    Of several GPUs the oldest decides. A processor is asked through /proc/cpuinfo; where there is none: float32.
    """
    capability = _find_gpu_capability()
    if capability is not None:
        return "bfloat16" if has_bfloat16() else "float16" if capability >= (7, 0) else "float32"
    words = cpu.read_cpuinfo_words()
    # From Sapphire Rapids on (AVX512-FP16 tells them) AMX does Intel's bfloat16, and AVX-512's own does half the
    # products a second of float32. A virtual machine may hide AMX: float32 trains 1.3 to 1.6 times as fast there.
    slow = {"GenuineIntel", "avx512_fp16"} <= words and "amx_bf16" not in words
    return "bfloat16" if has_bfloat16() and not slow else "float32"


def has_bfloat16() -> bool:
    """Whether this device multiplies bfloat16 at all, be it slower than float32."""
    capability = _find_gpu_capability()
    return bool(cpu.read_cpuinfo_words() & BFLOAT16_UNITS) if capability is None else capability >= (8, 0)


def _find_gpu_capability() -> tuple[int, int] | None:
    """CUDA's compute capability of the oldest GPU, (0, 0) where it tells none; None without a GPU."""
    gpus = tf.config.list_physical_devices("GPU")
    details = [tf.config.experimental.get_device_details(gpu) for gpu in gpus]
    return min((found.get("compute_capability", (0, 0)) for found in details), default=None)
