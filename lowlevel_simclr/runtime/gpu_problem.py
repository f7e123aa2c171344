"""Finds out why TensorFlow uses no GPU although the machine has one, and explains it in a few sentences."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

DEVICES = Path("/dev")
WAIT = 120  # seconds that another process may take to import TensorFlow
LIBRARIES = "Install the CUDA libraries with: pip install 'tensorflow[and-cuda]'."
# Each entry has some parts of TensorFlow's messages about a missing GPU, and the text that explains these messages to
# the user. If several entries match, the first one is used.
REASONS = (
    (
        ("driver version is insufficient", "CUDA_ERROR_INSUFFICIENT_DRIVER", "CUDA_ERROR_COMPAT_NOT_SUPPORTED"),
        "The NVIDIA driver is too old for this TensorFlow. Update the driver.",
    ),
    (
        ("does not match DSO version", "CUDA_ERROR_SYSTEM_DRIVER_MISMATCH", "version mismatch"),
        "The NVIDIA driver was updated and its parts have different versions. Restart the machine.",
    ),
    (
        ("Cannot dlopen some GPU libraries", "Could not load dynamic library", "Could not find cuda drivers"),
        f"TensorFlow does not find the CUDA libraries. {LIBRARIES}",
    ),
    (
        ("CUDA_ERROR_NO_DEVICE", "no CUDA-capable device is detected"),
        "The NVIDIA driver offers no GPU to this process. Check nvidia-smi and CUDA_VISIBLE_DEVICES.",
    ),
    (
        ("Ignoring visible gpu device",),
        "TensorFlow does not use the GPU, because the GPU is too old or has too few multiprocessors.",
    ),
    (
        ("failed call to cuInit", "kernel driver does not appear to be running"),
        "The NVIDIA driver does not start. Check that nvidia-smi works.",
    ),
)


def has_nvidia_gpu() -> bool:
    """Return whether this machine seems to have an NVIDIA GPU that this process may use.

    The signs are a device file or the driver's program nvidia-smi. An empty or negative CUDA_VISIBLE_DEVICES hides all
    GPUs on purpose.
    """
    hidden = os.environ.get("CUDA_VISIBLE_DEVICES", "0").strip() in ("", "-1")
    return not hidden and (any(DEVICES.glob("nvidia[0-9]*")) or shutil.which("nvidia-smi") is not None)


def explain(lines: str, built_with_cuda: bool = True) -> str:
    """Return a few sentences that say that TensorFlow sees no GPU, why that is, and what to do.

    Args:
        lines: what TensorFlow wrote while it looked for GPUs, at TF_CPP_MIN_LOG_LEVEL=0.
        built_with_cuda: whether this TensorFlow can use a GPU at all.

    Example:
        >>> explain("Cannot dlopen some GPU libraries.").partition(". ")[0]
        'This machine has an NVIDIA GPU, but TensorFlow sees none, so the CPU is used'
    """
    begin = "This machine has an NVIDIA GPU, but TensorFlow sees none, so the CPU is used."
    if not built_with_cuda:
        return f"{begin} This TensorFlow was built without CUDA. {LIBRARIES}"
    for signs, reason in REASONS:
        if any(sign in lines for sign in signs):
            return f"{begin} {reason}"
    said = [line.partition("] ")[2] for line in lines.splitlines() if line.startswith("E")]
    reason = f"TensorFlow says: {said[-1][:200].rstrip('.')}." if said else "TensorFlow gives no reason."
    return f"{begin} {reason} Check that nvidia-smi works. {LIBRARIES}"


def ask_for_reason() -> str:
    """Start another process that looks for GPUs without hiding messages, and return TensorFlow's messages from it.

    TensorFlow reads TF_CPP_MIN_LOG_LEVEL only once, and in this process its value already hides the messages.
    """
    program = "import tensorflow as tf; tf.config.list_physical_devices('GPU')"
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "0"}
    try:
        done = subprocess.run(
            [sys.executable, "-c", program], env=environment, capture_output=True, text=True, timeout=WAIT
        )
    except subprocess.TimeoutExpired:
        return ""
    return done.stderr
