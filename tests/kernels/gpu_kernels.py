"""Tests the CUDA kernels on a GPU, without TensorFlow: python tests/kernels/gpu_kernels.py [--sanitize].

The kernels of an op are started by a C function, its launcher. The program compiles all launchers of kernels/ for this
GPU into one library, and calls them through ctypes. It compares their results with the NumPy reference. Each call is
made twice, and both must give the same bits. The calls use a stream that is not the default one, and guard bytes around
every array show whether a kernel writes outside it. With --sanitize, the small cases run again under memcheck,
racecheck and synccheck, the checkers of NVIDIA's compute-sanitizer. `make test-kernels-gpu` does all of this.

The program needs a GPU, nvcc, NumPy, and PyTorch or CuPy. The exit code is 0 if all checks pass, 1 if one fails, and 2
if there is no GPU.
"""

from __future__ import annotations

import argparse
import ctypes
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.support import (
    device_arrays,  # noqa: E402
    lars_launchers,  # noqa: E402
    nt_xent_launchers,  # noqa: E402
    view_launchers,  # noqa: E402
)

TOOLS = ("memcheck", "racecheck", "synccheck")


def checks(library: Any, memory: device_arrays.Memory, small: bool) -> Iterator[tuple[str, Callable[[], Any]]]:
    """Yield the name of each check, and the function that runs the check."""
    losses, views, updates = nt_xent_launchers, view_launchers, lars_launchers
    for case in losses.small_cases() if small else losses.large_cases():
        yield f"nt_xent {case}", lambda case=case: losses.check_case(library, memory, case)
    for case in views.small_cases() if small else views.large_cases():
        yield f"make_views {case}", lambda case=case: views.check_views(library, memory, case)
    yield "make_views faults", lambda: views.check_faulty_views(library, memory)
    yield "padding", lambda: views.check_padding(library, memory)
    yield "draw_view_params", lambda: views.check_draws(library, memory, 150 if small else 20000)
    for case in updates.small_cases() if small else updates.large_cases():
        yield f"lars_update {case}", lambda case=case: updates.check_case(library, memory, case)
    yield "lars_update of many variables", lambda: updates.check_all(library, memory, updates.together())


def compiled(target: Path) -> Path:
    """Compile the launchers for this machine's GPU. Return the path of the library."""
    nvcc = shutil.which("nvcc") or "/usr/local/cuda/bin/nvcc"
    flags = ["-O3", "-std=c++17", "-lineinfo", "-arch=native", "-shared", "-Xcompiler", "-fPIC"]
    device_arrays.build([nvcc, *flags], device_arrays.sources(), target)
    return target


def loaded(launchers: Path) -> Any:
    """Load the library and declare the types of the launchers' arguments."""
    library = ctypes.CDLL(str(launchers.resolve()))
    return lars_launchers.declared(view_launchers.declared(nt_xent_launchers.declared(library)))


def run(launchers: Path, small: bool) -> int:
    """Run all checks. Return how many of them fail."""
    memory, library, failed = device_arrays.gpu_memory(), loaded(launchers), 0
    print(f"device: {memory.name}", flush=True)
    for name, check in checks(library, memory, small):
        started = time.perf_counter()
        try:
            check()
            outcome = "holds"
        except AssertionError as error:
            outcome, failed = f"FAILS: {error}", failed + 1
        print(f"{name}: {outcome} ({time.perf_counter() - started:.2f} s)", flush=True)
    print(f"{failed} fail")
    return failed


def sanitize(launchers: Path) -> int:
    """Run the small cases under each tool of compute-sanitizer. Return how many tools report a problem."""
    program = shutil.which("compute-sanitizer") or "/usr/local/cuda/bin/compute-sanitizer"
    failed = 0
    for tool in TOOLS:
        print(f"== compute-sanitizer {tool}", flush=True)
        command = [program, "--tool", tool, "--error-exitcode", "3", sys.executable, __file__, "--small"]
        failed += subprocess.run([*command, "--launchers", str(launchers)]).returncode != 0
    return failed


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the checks that the arguments ask for, and return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--small", action="store_true", help="only the small cases of test_cuda.py")
    parser.add_argument("--sanitize", action="store_true", help="run the small cases under compute-sanitizer as well")
    parser.add_argument("--launchers", type=Path, metavar="FILE", help="use this library of compiled launchers")
    chosen = parser.parse_args(arguments)
    try:
        device_arrays.gpu_memory()
    except RuntimeError as error:
        print(error)
        return 2
    with tempfile.TemporaryDirectory() as folder:
        launchers = chosen.launchers or compiled(Path(folder) / "launchers.so")
        failed = run(launchers, chosen.small)
        failed += sanitize(launchers) if chosen.sanitize else 0
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
