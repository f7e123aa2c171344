"""Describes the environment of a run: versions, machine, command line and memory."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shlex
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from lowlevel_simclr.runtime.cpu import count_usable_cores

CPU_FLAGS = frozenset("avx avx2 fma f16c avx512f avx512_bf16 amx_tile amx_bf16 asimd sve bf16".split())
ENVIRONMENT_VARIABLES = ("CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS", "XLA_FLAGS")  # and all that begin with TF_


def describe_environment() -> dict[str, Any]:
    """Return versions, machine and command line of this process, for environment.json. Unknown values are None."""
    import tensorflow as tf  # imported here, so that reading a run folder needs no TensorFlow

    return {
        "started": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "command": shlex.join(sys.orig_argv),
        "lowlevel_simclr": _find_version("lowlevel_simclr"),
        "git": _find_git_commit(Path(__file__)),
        "python": platform.python_version(),
        "tensorflow": tf.__version__,
        "keras": _find_version("keras"),
        "numpy": _find_version("numpy"),
        "platform": platform.platform(),
        "cpu": _describe_cpu(Path("/proc/cpuinfo")),
        "gpus": [
            tf.config.experimental.get_device_details(gpu).get("device_name", gpu.name)
            for gpu in tf.config.list_physical_devices("GPU")
        ],
        "variables": {name: os.environ[name] for name in sorted(os.environ) if _is_recorded(name)},
    }


def measure_peak_memory() -> dict[str, int | None]:
    """Return the largest amount of memory that this process has held so far, in bytes.

    Returns:
        "host": resident memory. "gpu": memory of TensorFlow's allocator, on the GPU that held the most, or None without
        a GPU.
    """
    import tensorflow as tf  # imported here, so that reading a run folder needs no TensorFlow

    gpus = [f"GPU:{place}" for place in range(len(tf.config.list_logical_devices("GPU")))]
    return {
        "host": measure_peak_resident(),
        "gpu": max((int(tf.config.experimental.get_memory_info(gpu)["peak"]) for gpu in gpus), default=None),
    }


def measure_peak_resident(status: Path = Path("/proc/self/status")) -> int | None:
    """Return the peak resident memory of this process, in bytes, or None on Windows.

    Linux reports it in `status` as VmHWM. On macOS it is `ru_maxrss`, which starts at the size of the parent process.
    """
    for line in status.read_text(encoding="utf-8").splitlines() if status.exists() else ():
        if line.startswith("VmHWM:"):
            return 1024 * int(line.split()[1])
    if sys.platform == "win32":
        return None
    import resource  # here, because Windows does not have it

    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def _is_recorded(variable: str) -> bool:
    return variable in ENVIRONMENT_VARIABLES or variable.startswith("TF_")


def _find_version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _ask_git(folder: Path, *arguments: str) -> str | None:
    """Return git's answer in a folder, or None if there is no git, no repository or no answer."""
    try:
        answer = subprocess.run(
            ["git", "-C", str(folder), *arguments], capture_output=True, text=True, timeout=10, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return answer.stdout.strip()


def _find_git_commit(file: Path) -> str | None:
    """Return the commit of the repository that tracks `file`. It ends in "+changes" if tracked files were changed."""
    # An installed copy may lie inside another repository that does not track it.
    if _ask_git(file.parent, "ls-files", "--error-unmatch", file.name) is None:
        return None
    commit = _ask_git(file.parent, "rev-parse", "HEAD")
    changed = _ask_git(file.parent, "status", "--porcelain", "--untracked-files=no")
    return f"{commit}+changes" if commit and changed else commit


def _describe_cpu(cpuinfo: Path) -> dict[str, Any]:
    """Return the model, the number of usable cores and the relevant instruction sets, as Linux lists them."""
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    facts = {name.strip(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    present = facts.get("flags", facts.get("Features", "")).split()
    return {
        "model": facts.get("model name") or platform.machine(),
        "cores": count_usable_cores(),
        "flags": sorted(CPU_FLAGS.intersection(present)),
    }
