"""Tests that the kernels' test drivers compile with g++, and that the kernels compile with clang.

A test driver is a C++ program that calls a kernel with random arguments, without Python and TensorFlow. The fuzzer
libFuzzer needs clang.
"""

from __future__ import annotations

import platform
import shutil
import subprocess
from pathlib import Path

import pytest

KERNELS = Path(__file__).parents[2] / "kernels"
TILES = sorted(KERNELS.rglob("*_tiles.cc"))
DRIVERS = sorted(path for path in KERNELS.rglob("*_test_driver.cc") if path.parent.name != "glue")


@pytest.mark.skipif(shutil.which("g++") is None, reason="g++ is not installed")
@pytest.mark.parametrize("define", ["-DPLAIN", "-DLOWLEVEL_SIMCLR_FUZZER"])
@pytest.mark.parametrize("driver", DRIVERS, ids=lambda path: path.stem)
def test_a_driver_compiles(driver: Path, define: str) -> None:
    """Compile a driver without writing a file. This fails, for example, if only the kernel has a new argument."""
    command = ["g++", "-std=c++17", "-Wall", "-Wextra", "-Wno-psabi", "-fsyntax-only", define, str(driver)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.skipif(shutil.which("clang++") is None, reason="clang++ is not installed")
@pytest.mark.parametrize("tiles", TILES, ids=lambda path: path.stem)
def test_clang_compiles_a_kernel(tiles: Path) -> None:
    """Compile a kernel with clang, without writing a file. This fails if the kernel uses functions of GCC only."""
    chosen = ["avx2", "-mavx2", "-mfma"] if platform.machine() == "x86_64" else ["baseline"]
    command = ["clang++", "-std=c++17", "-Wall", "-Wextra", "-Wno-psabi", "-fsyntax-only", *chosen[1:]]
    done = subprocess.run([*command, f"-DLOWLEVEL_SIMCLR_ISA={chosen[0]}", str(tiles)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
