"""Tests that the first line of a program's output comes from the program itself, and not from TensorFlow's log.

Also tests the message about a GPU that TensorFlow does not use.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.other_process import ROOT

HIDDEN = ("TF_CPP_MIN_LOG_LEVEL", "CUDA_VISIBLE_DEVICES")


def run_program(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a program in a new process. Remove environment variables that hide TensorFlow's messages or the GPUs."""
    variables = {name: value for name, value in os.environ.items() if name not in HIDDEN}
    command = [sys.executable, "-m", f"lowlevel_simclr.{arguments[0]}", *arguments[1:]]
    return subprocess.run(
        command, cwd=ROOT, env={**variables, **environment}, capture_output=True, text=True, timeout=600
    )


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (("train", "--dataset", "folder:/none"), "error: The folder /none does not exist."),
        pytest.param(("evaluate", "/none"), "error: /none", marks=pytest.mark.slow),
        pytest.param(("embed", "/none", "/none", "--out", "/none/h.npz"), "error: /none", marks=pytest.mark.slow),
    ],
)
def test_an_error_is_the_only_line(arguments: tuple[str, ...], error: str) -> None:
    done = run_program(*arguments)
    assert done.returncode == 1 and done.stdout == ""
    assert done.stderr.startswith(error) and done.stderr.count("\n") == 1, done.stderr


def test_a_run_prints_its_own_line_first(tmp_path: Path) -> None:
    done = run_program("train", "--preview", "--out", str(tmp_path / "run"))
    assert done.returncode == 0 and done.stderr == ""
    assert done.stdout.startswith("Drew the views of ")


@pytest.mark.slow
def test_check_prints_nothing_of_tensorflow() -> None:
    done = run_program("check")
    assert done.returncode == 0 and done.stderr == ""
    assert done.stdout.startswith("TensorFlow ") and done.stdout.endswith(" comparisons passed.\n")


def test_a_gpu_that_tensorflow_does_not_see_is_told(tmp_path: Path) -> None:
    """Imitate a machine with a GPU by the driver's program nvidia-smi. The run must say why the GPU is not used."""
    if any(Path("/dev").glob("nvidia[0-9]*")):
        pytest.skip("this machine has a GPU")
    (tmp_path / "nvidia-smi").touch(0o755)
    done = run_program("evaluate", "/none", PATH=f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    warning, error = done.stderr.splitlines()
    assert warning.startswith("warning: This machine has an NVIDIA GPU, but TensorFlow sees none")
    assert "pip install 'tensorflow[and-cuda]'" in warning and error.startswith("error: /none")


def test_importing_the_package_hides_nothing() -> None:
    program = (
        "import os, lowlevel_simclr as ls; ls.nt_xent; os.write(2, b'I0000 00:00:1 1 file.cc:1] mine\\n'); "
        "print(os.environ.get('TF_CPP_MIN_LOG_LEVEL'))"
    )
    variables = {name: value for name, value in os.environ.items() if name not in HIDDEN}
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, env=variables, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0 and done.stdout == "None\n" and "file.cc:1] mine\n" in done.stderr
