"""Proves that a wheel of this package works without a compiler and without this repository, for each installed Python.

    python -m tests.installing.verify_wheel dist/lowlevel_simclr-*.whl
    python -m tests.installing.verify_wheel dist/lowlevel_simclr-*.whl --python python3.14

The program looks for Python 3.10 and later versions. For each, it makes a new virtual environment in a temporary
folder, installs the wheel in it as a user would, and runs `train --steps 20`, `evaluate`, `embed` and `check`. PATH has
only the programs of the environment, so no compiler is found. The environment is deleted before the next one is made.
The exit code is 1 if the wheel fails with one of the Pythons, or if none is found. The program uses only the standard
library, so any of these Pythons can run it.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

PYTHONS = ("3.10", "3.11", "3.12", "3.13", "3.14")
FROM_RELEASE_CANDIDATE = ("3.14",)  # for these Pythons, only a release candidate of TensorFlow has a wheel
COMPILERS = ("cc", "c++", "gcc", "g++", "clang", "clang++", "nvcc")
MINUTES = 30  # the time limit for each command, in minutes
IMAGES = """
import pathlib
import numpy as np
from PIL import Image
pathlib.Path("images").mkdir()
for number in range(8):
    pixels = np.random.default_rng(number).integers(0, 256, (40, 50, 3), np.uint8)
    Image.fromarray(pixels).save(f"images/{number}.png")
"""
PLACE = "import lowlevel_simclr; print(lowlevel_simclr.__file__)"
ROWS = """
import numpy as np
with np.load("h.npz") as arrays:
    print(len(arrays["paths"]))
"""


class Failure(Exception):
    """Raised if a command fails, or if its output or files are not as expected."""


def find_python(version: str) -> Path | None:
    """Return the path of a Python of this version that can make virtual environments, or None."""
    named = shutil.which(f"python{version}")
    pyenv = sorted(Path.home().glob(f".pyenv/versions/{version}.*/bin/python"))
    for path in [*([Path(named)] if named else []), *reversed(pyenv)]:
        code = f"import sys, ensurepip, venv; sys.exit('%d.%d' % sys.version_info[:2] != {version!r})"
        if subprocess.run([path, "-c", code], capture_output=True).returncode == 0:
            return path
    return None


def run(command: Sequence[str | Path], folder: Path, path: Path) -> str:
    """Run a command in a folder outside this repository, and return its output.

    Args:
        command: the program and its arguments.
        folder: the working folder.
        path: the only folder in PATH.

    Raises:
        Failure: if the command fails.
    """
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "LOWLEVEL_"))}
    environment.update(PATH=str(path), HOME=str(folder), TF_CPP_MIN_LOG_LEVEL="3", CUDA_VISIBLE_DEVICES="-1")
    done = subprocess.run(
        list(map(str, command)), cwd=folder, env=environment, capture_output=True, text=True, timeout=60 * MINUTES
    )
    if done.returncode != 0:
        raise Failure(f"{' '.join(map(str, command))}\n{done.stdout[-2000:]}{done.stderr[-4000:]}")
    return done.stdout


def install(python: Path, requirements: Sequence[str | Path], folder: Path) -> Path:
    """Install packages in a new virtual environment that has no compiler. Return the environment's folder bin."""
    subprocess.run([python, "-m", "venv", folder / "environment"], check=True)
    programs = folder / "environment" / "bin"
    found = [name for name in COMPILERS if shutil.which(name, path=str(programs))]
    if found:
        raise Failure(f"There is a compiler in {programs}: {found}")
    # No package may be built from source, because that would need a compiler.
    pip = [programs / "python", "-m", "pip", "install", "--quiet", "--only-binary", ":all:"]
    run([*pip, *requirements], folder, programs)
    return programs


def expect(said: str, wanted: str) -> None:
    """Raise Failure if the output of a program does not contain the expected text."""
    if wanted not in said:
        raise Failure(f"{wanted!r} is missing from:\n{said[-4000:]}")


def prove(programs: Path, folder: Path) -> str:
    """Run the programs of an installed wheel, and return a sentence that names them.

    Args:
        programs: the folder bin of the environment. It has the program lowlevel-simclr.
        folder: an empty folder outside this repository.

    Raises:
        Failure: if a program fails, or if its output or files are not as expected.
    """
    python, ours = programs / "python", programs / "lowlevel-simclr"
    expect(run([python, "-c", PLACE], folder, programs), str(programs.parent))
    run([python, "-c", IMAGES], folder, programs)
    run([ours, "train", "--steps", "20", "--out", "run"], folder, programs)
    if not (folder / "run" / "encoder.keras").is_file():
        raise Failure("train wrote no encoder.keras")
    expect(run([ours, "evaluate", "run", "--protocol", "knn"], folder, programs), "trained encoder")
    run([ours, "embed", "run", "images", "--out", "h.npz"], folder, programs)
    expect(run([python, "-c", ROWS], folder, programs), "8")
    said = run([ours, "check"], folder, programs)
    expect(said, "comparisons passed.")
    tensorflow = next(line.split()[-1] for line in said.splitlines() if line.startswith("TensorFlow "))
    return f"TensorFlow {tensorflow}: train, evaluate and embed work; check: {said.splitlines()[-1]}"


def verify(python: Path, requirements: Sequence[str | Path]) -> str:
    """Install the requirements, which include the wheel, with one Python. Run the wheel's programs.

    The environment is deleted afterwards.

    Returns:
        A sentence that names the programs that ran.
    """
    with tempfile.TemporaryDirectory(prefix="lowlevel_simclr-wheel-") as made:
        folder = Path(made).resolve()
        (folder / "work").mkdir()
        return prove(install(python, requirements, folder), folder / "work")


def choose_requirements(version: str, wheel: Path, given: Sequence[str], constraints: Path | None) -> list[str | Path]:
    """Return the arguments for pip: the wheel, the given requirements, and the constraints file.

    If there is only a release candidate of TensorFlow for this version of Python, and no requirement is given, return
    the wheel and this release candidate.
    """
    beside = ["--constraint", constraints] if constraints else []
    if version in FROM_RELEASE_CANDIDATE and not given:
        return [wheel, "--pre", "tensorflow>=2.22.0rc0"]
    return [wheel, *given, *beside]


def main(argv: Sequence[str] | None = None) -> int:
    """Verify one wheel, and return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("wheel", type=Path, help="the wheel to install")
    parser.add_argument("--python", action="append", default=[], help="a Python to use; default: all that are found")
    parser.add_argument("--requirement", action="append", default=[], help="a further package for pip to install")
    parser.add_argument("--constraint", type=Path, help="a constraints file for pip")
    chosen = parser.parse_args(argv)
    pythons: dict[str, Path | None] = {version: find_python(version) for version in PYTHONS}
    if chosen.python:
        pythons = {name: Path(shutil.which(name) or name) for name in chosen.python}
    failed = 0
    for name, python in pythons.items():
        if python is None:
            print(f"Python {name}: not on this machine, not verified", flush=True)
            continue
        started = time.perf_counter()
        constraint = chosen.constraint.resolve() if chosen.constraint else None
        try:
            said = verify(python, choose_requirements(name, chosen.wheel.resolve(), chosen.requirement, constraint))
        except (Failure, subprocess.SubprocessError) as error:
            failed += 1
            said = f"FAILS: {error}"
        print(f"Python {name}: {said} ({time.perf_counter() - started:.0f} s)", flush=True)
    return 1 if failed or not any(pythons.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
