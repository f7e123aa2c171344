"""Tests building the native library (the C++ and CUDA ops) with setup.py, and which symbols it imports and exports."""

from __future__ import annotations

import os
import re
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from lowlevel_simclr.ops import _library

ROOT = Path(__file__).parents[2]
NEWEST_GLIBC = (2, 17)  # the glibc of manylinux2014, the oldest Linux on which the library must load


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
    assert weak == ["_ZN3xla3ffi12GetXlaFfiApiEv"]  # weak: the library loads even if TensorFlow lacks it
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


def run_setup(root: Path, folder: Path, **changed: str) -> subprocess.CompletedProcess[str]:
    """Run setup.py in `root`, so that it compiles the library. All files are written into `folder`."""
    pytest.importorskip("setuptools", "77", reason="setuptools 77 is missing (make installs it)")
    folders = ["--build-lib", str(folder), "--build-temp", str(folder)]
    command = [sys.executable, "setup.py", "-q", "build_ext", *folders]
    return subprocess.run(command, cwd=root, env={**os.environ, **changed}, capture_output=True, text=True)


def test_setup_says_that_the_compiler_does_not_run(tmp_path: Path) -> None:
    done = run_setup(ROOT, tmp_path, CXX="no-such-compiler")
    assert done.returncode != 0 and not list(tmp_path.rglob("*.so"))
    assert re.search(r"The C\+\+ compiler .* does not run.*Install g\+\+", done.stdout + done.stderr, re.DOTALL)


@pytest.mark.parametrize("missing", ["kernels", "kernels/make_views/make_views_op.cc"])
def test_setup_refuses_to_build_without_its_sources(missing: str, tmp_path: Path) -> None:
    """Test a build for which some source files of kernels are missing. setup.py must refuse it.

    Otherwise the build would succeed, and the library would fail at its first use.
    """
    root = tmp_path / "source"
    for name in ("kernels", "lowlevel_simclr"):
        shutil.copytree(ROOT / name, root / name, ignore=shutil.ignore_patterns("*.so", "__pycache__"))
    for name in ("setup.py", "build_backend.py", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, root)
    shutil.rmtree(root / missing, ignore_errors=True)
    (root / missing).unlink(missing_ok=True)
    done = run_setup(root, tmp_path / "made")
    assert done.returncode != 0 and not list((tmp_path / "made").rglob("*.so"))
    assert re.search(f"{missing}.* is missing, so the native library cannot be built. Build from a clone", done.stderr)


def make_compiler(folder: Path) -> str:
    """Write an imitation of a compiler, and return its path. It writes no files, so a build fails when it links."""
    compiler = folder / "c++"
    program = "#!/bin/sh\n[ $1 = -dumpmachine ] && echo x86_64-linux-gnu || echo fast c++ 1.0\n"
    compiler.write_text(program, encoding="utf-8")
    compiler.chmod(0o755)
    return str(compiler)


def check_lines(lines: list[str]) -> None:
    found = re.fullmatch(r"lowlevel_simclr: building _native.so from (\d+) files with fast c\+\+ 1.0", lines[0])
    assert found is not None, lines[0]
    assert lines[1:3] == ["  CPU: avx512, avx2, baseline", "  CUDA: no (LOWLEVEL_SIMCLR_CUDA is 0)"]
    assert re.fullmatch(r"  XLA: (yes|no \(TensorFlow .* has no headers of XLA's FFI.*\))", lines[3])
    assert [line.partition(":")[0] for line in lines[4:]] == [
        f"  compiled {number} of {found[1]}" for number in range(1, int(found[1]) + 1)
    ]


def test_a_build_says_first_what_it_builds_and_then_each_file(tmp_path: Path) -> None:
    done = run_setup(ROOT, tmp_path, CXX=make_compiler(tmp_path), LOWLEVEL_SIMCLR_CUDA="0")
    check_lines(done.stdout.splitlines())


@pytest.mark.parametrize("builder", ["_PYPROJECT_HOOKS_BUILD_BACKEND", "PEP517_BUILD_BACKEND", "NO_PIP"])
def test_the_terminal_shows_a_build_whose_output_pip_hides(builder: str, tmp_path: Path) -> None:
    pytest.importorskip("setuptools", "77", reason="setuptools 77 is missing (make installs it)")
    folders = f"--build-lib {tmp_path} --build-temp {tmp_path}"
    # The build runs as under pip: its output is hidden, and its standard input is a terminal.
    build = f"exec {sys.executable} setup.py -q build_ext {folders} >/dev/null 2>&1"
    program = f"import pty; pty.spawn(['sh', '-c', {build!r}])"  # makes the terminal, and prints its text
    changed = {"CXX": make_compiler(tmp_path), "LOWLEVEL_SIMCLR_CUDA": "0", builder: "setuptools.build_meta"}
    command = [sys.executable, "-c", program]
    done = subprocess.run(
        command, cwd=ROOT, env={**os.environ, **changed}, stdin=subprocess.DEVNULL, capture_output=True, text=True
    )
    if builder == "NO_PIP":
        assert done.stdout == ""
    else:
        check_lines([line.rstrip() for line in done.stdout.splitlines() if line])


BETWEEN = "2.18.1"  # a version of TensorFlow between the oldest and the newest one that CI tests


@pytest.mark.slow
def test_the_same_library_serves_a_tensorflow_between_the_two_ends(tmp_path: Path) -> None:
    if sys.version_info >= (3, 13):
        pytest.skip(f"TensorFlow {BETWEEN} is not made for Python {sys.version_info[0]}.{sys.version_info[1]}")
    subprocess.run([sys.executable, "-m", "venv", str(tmp_path / "venv")], check=True)
    python = str(tmp_path / "venv" / "bin" / "python")
    install = [python, "-m", "pip", "install", "--quiet", f"tensorflow=={BETWEEN}"]
    installed = subprocess.run(install, capture_output=True, text=True)
    if installed.returncode != 0:
        pytest.skip(f"TensorFlow {BETWEEN} cannot be installed on this machine: {installed.stderr[-300:]}")
    check = subprocess.run(
        [python, "-m", "lowlevel_simclr.check"], cwd=ROOT, capture_output=True, text=True, timeout=600
    )
    assert check.returncode == 0, check.stdout[-2000:] + check.stderr[-2000:]
    assert BETWEEN in check.stdout and "comparisons passed." in check.stdout


@pytest.mark.parametrize(
    ("changed", "wanted"),
    [
        ({"LOWLEVEL_SIMCLR_CUDA": "yes"}, "LOWLEVEL_SIMCLR_CUDA is 'yes'. Set it to 1, 0 or auto"),
        (
            {"LOWLEVEL_SIMCLR_CUDA": "1", "CUDACXX": "no-such-nvcc"},
            "'no-such-nvcc' does not run.*LOWLEVEL_SIMCLR_CUDA=0",
        ),
        ({"LOWLEVEL_SIMCLR_CUDA": "1", "PATH": "/bin", "CUDA_HOME": "", "CXX": "true"}, "=1 needs nvcc.*not found"),
    ],
)
def test_setup_says_what_is_wrong_with_cuda(changed: dict[str, str], wanted: str, tmp_path: Path) -> None:
    if "CXX" in changed and Path("/usr/local/cuda/bin/nvcc").exists():
        pytest.skip("nvcc is in /usr/local/cuda, where setup.py always finds it")
    done = run_setup(ROOT, tmp_path, **changed)
    assert done.returncode != 0 and not list(tmp_path.rglob("*.so"))
    assert re.search(wanted, done.stdout + done.stderr, re.DOTALL)


@pytest.mark.parametrize(
    ("wanted", "has_gpu", "has_nvcc", "reason"),
    [
        ("0", True, True, "LOWLEVEL_SIMCLR_CUDA is 0"),
        ("", False, True, "no NVIDIA GPU; LOWLEVEL_SIMCLR_CUDA=1 builds"),
        ("auto", True, False, "a GPU but no nvcc"),
        ("auto", True, True, None),
        ("1", False, True, None),
    ],
)
def test_cuda_kernels_are_built_where_asked_for_or_where_there_is_a_gpu(
    wanted: str, has_gpu: bool, has_nvcc: bool, reason: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("setuptools", "77", reason="setuptools 77 is missing (make installs it)")
    monkeypatch.setattr("setuptools.setup", lambda **given: None)
    monkeypatch.setenv("LOWLEVEL_SIMCLR_CUDA", wanted)
    build = runpy.run_path(str(ROOT / "setup.py"))
    names = build["choose_cuda"].__globals__
    names["has_gpu"] = lambda: has_gpu
    names["find_cuda_compiler"] = lambda: "nvcc" if has_nvcc else None
    chosen = build["choose_cuda"]()
    assert chosen.nvcc == (None if reason else "nvcc") and (reason or "") in chosen.reason
