"""Finds the name of the device that a bench runs on, and restricts the cores that the bench may use."""

from __future__ import annotations

import functools
import os
import platform
import shutil
import subprocess
from pathlib import Path


@functools.cache
def find_gpu_name() -> str | None:
    """Return the name of the first GPU, as the NVIDIA driver reports it.

    Returns:
        The name, or None if there is no GPU or CUDA_VISIBLE_DEVICES hides all of them.
    """
    program = shutil.which("nvidia-smi")
    if program is None or os.environ.get("CUDA_VISIBLE_DEVICES") in ("", "-1"):
        return None
    command = [program, "--query-gpu=name", "--format=csv,noheader"]
    done = subprocess.run(command, capture_output=True, text=True)
    return done.stdout.splitlines()[0].strip() if done.returncode == 0 and done.stdout.strip() else None


def name_results_folder() -> str:
    """Return the name of the folder for the results of this device.

    With a GPU, it is the name of the GPU. Otherwise it is the name of the processor and the number of cores that this
    process may use. The name of the processor includes its family and its model number, because on virtual machines,
    processors of several generations have the same name.
    """
    gpu = find_gpu_name()
    if gpu is not None:
        return "-".join(gpu.split()).replace("/", "-")
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    facts = {name.strip(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    if "model name" not in facts:
        return platform.machine()
    name = f"{facts['model name']} family {facts.get('cpu family', '?')} model {facts.get('model', '?')}"
    return "-".join(name.split()).replace("/", "-") + f"-{len(os.sched_getaffinity(0))}-cores"


def name_training_device() -> str:
    """Return the name of the GPU that TensorFlow trains on. Without a GPU, return `name_results_folder()`."""
    import tensorflow as tf  # imported here, because the other functions need no TensorFlow

    gpus = tf.config.list_physical_devices("GPU")
    if gpus:
        return str(tf.config.experimental.get_device_details(gpus[0]).get("device_name", "GPU"))
    return name_results_folder()


def keep_to_cores(count: int | None) -> None:
    """Restrict this process to the first `count` of its cores. None or 0 changes nothing.

    Call this before TensorFlow creates its threads.
    """
    if count:
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:count])
