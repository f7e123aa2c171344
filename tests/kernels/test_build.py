"""The built library: what it needs and exports, and how setup.py fails."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from lowlevel_simclr.ops import _library

ROOT = Path(__file__).parents[2]
NEWEST_GLIBC = (2, 31)


def objdump(option: str) -> str:
    if shutil.which("objdump") is None:
        pytest.skip("objdump (binutils) is not installed")
    return subprocess.run(["objdump", option, str(_library.PATH)], check=True, capture_output=True, text=True).stdout


def undefined_symbols() -> list[str]:
    return [line.split()[-1] for line in objdump("-T").splitlines() if "*UND*" in line]


def test_no_symbol_needs_a_newer_glibc() -> None:
    versions = {tuple(map(int, found.split("."))) for found in re.findall(r"GLIBC_([0-9.]+)", objdump("-T"))}
    assert versions and max(versions) <= NEWEST_GLIBC


def test_no_symbol_binds_to_one_tensorflow_or_one_runtime() -> None:
    lines = [line for line in objdump("-T").splitlines() if "*UND*" in line and line.split()[-1].startswith("_Z")]
    weak = [line.split()[-1] for line in lines if line.split()[1] == "w"]
    assert weak == ["_ZN3xla3ffi12GetXlaFfiApiEv"]  # found at run time, and null where TensorFlow lacks it
    assert len(lines) == len(weak), f"C++ symbols from outside: {lines}"
    assert "GLIBCXX" not in objdump("-T")
    assert any(name.startswith("TF_") for name in undefined_symbols())


def test_only_our_own_names_are_exported() -> None:
    exported = [line.split()[-1] for line in objdump("-T").splitlines() if "\t" in line and "*UND*" not in line]
    assert exported and all(name.startswith("lowlevel_simclr_") for name in exported)


def test_it_needs_tensorflow_and_glibc_only() -> None:
    needed = re.findall(r"NEEDED\s+(\S+)", objdump("-p"))
    allowed = r"libtensorflow_(framework|cc)\.so\.2|lib(c|m|pthread)\.so\.\d|ld-linux-x86-64\.so\.2"
    assert all(re.fullmatch(allowed, name) for name in needed), needed


@pytest.mark.parametrize("missing", ["compiler", "tensorflow"])
def test_setup_fails_with_a_sentence(missing: str, tmp_path: Path) -> None:
    environment = dict(os.environ, CXX="no-such-compiler" if missing == "compiler" else "true")
    program = [
        sys.executable,
        "setup.py",
        "-q",
        "build_ext",
        "--build-lib",
        str(tmp_path),
        "--build-temp",
        str(tmp_path),
    ]
    if missing == "tensorflow":  # an interpreter that finds setuptools but not TensorFlow
        hide = "import sys, runpy; sys.modules['tensorflow'] = None; sys.argv = sys.argv[1:]; "
        program[1:2] = ["-c", hide + "runpy.run_path('setup.py', run_name='__main__')", "setup.py"]
        pytest.importorskip("setuptools")
    done = subprocess.run(program, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode != 0
    wanted = (
        "The C\\+\\+ compiler .* does not run.*Install g\\+\\+"
        if missing == "compiler"
        else "TensorFlow is not installed"
    )
    assert re.search(wanted, done.stdout + done.stderr, re.DOTALL)
    assert not list(tmp_path.rglob("*.so"))


@pytest.mark.slow
def test_the_wheel_serves_every_python_and_brings_the_library(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "pip", "wheel", ".", "--no-build-isolation", "--no-deps", "-w", str(tmp_path)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    assert wheel.name == "lowlevel_simclr-0.1.0-py3-none-linux_x86_64.whl"
    names = zipfile.ZipFile(wheel).namelist()
    assert {"lowlevel_simclr/_native.so", "lowlevel_simclr/_native.json", "lowlevel_simclr/check.py"} <= set(names)


BETWEEN = "2.18.1"  # a version of TensorFlow between the two that CI tests


@pytest.mark.slow
def test_the_same_library_serves_a_tensorflow_between_the_two_ends(tmp_path: Path) -> None:
    if sys.version_info >= (3, 13):
        pytest.skip(f"TensorFlow {BETWEEN} is not made for Python {sys.version_info[0]}.{sys.version_info[1]}")
    subprocess.run([sys.executable, "-m", "venv", str(tmp_path / "venv")], check=True)
    python = str(tmp_path / "venv" / "bin" / "python")
    install = [python, "-m", "pip", "install", "--quiet", f"tensorflow=={BETWEEN}"]
    installed = subprocess.run(install, capture_output=True, text=True)
    if installed.returncode != 0:
        pytest.skip(f"TensorFlow {BETWEEN} cannot be installed here: {installed.stderr[-300:]}")
    check = subprocess.run(
        [python, "-m", "lowlevel_simclr.check"], cwd=ROOT, capture_output=True, text=True, timeout=600
    )
    assert check.returncode == 0, check.stdout[-2000:] + check.stderr[-2000:]
    assert BETWEEN in check.stdout and "comparisons passed." in check.stdout


@pytest.mark.parametrize(
    ("changed", "wanted"),
    [
        ({"LOWLEVEL_SIMCLR_CUDA": "yes"}, "LOWLEVEL_SIMCLR_CUDA is 'yes'. Set it to 1 or 0"),
        ({"CUDACXX": "no-such-nvcc"}, "'no-such-nvcc' does not run.*LOWLEVEL_SIMCLR_CUDA=0"),
    ],
)
def test_setup_says_what_is_wrong_with_cuda(changed: dict[str, str], wanted: str, tmp_path: Path) -> None:
    if importlib.util.find_spec("setuptools") is None:
        pytest.skip("setuptools is not installed")
    environment = {**os.environ, "LOWLEVEL_SIMCLR_CUDA": "", **changed}
    folders = ["--build-lib", str(tmp_path), "--build-temp", str(tmp_path)]
    command = [sys.executable, "setup.py", "-q", "build_ext", *folders]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode != 0
    assert re.search(wanted, done.stdout + done.stderr, re.DOTALL)
    assert not list(tmp_path.rglob("*.so"))
