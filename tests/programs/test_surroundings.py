"""Tests the programs on machines on which they cannot work, for example because there is too little memory.

Each program must end with an error message of one sentence. There is one exception: if only a picture cannot be drawn,
training must continue.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from lowlevel_simclr.runtime.keras import find_keras_generation
from tests.support.small_program import PROGRAM

ROOT = Path(__file__).parents[2]
PROGRAMS = {
    "train": ["--out", "run"],
    "evaluate": ["run"],
    "embed": ["run", "photos", "--out", "h.npz"],
    "check": [],
}
TINY = "--image-size 8 --batch-size 16 --projection-widths 16 8 --warmup-epochs 0 --knn-every 0 --steps 2 --xla off"


def run(folder: Path, program: str, flags: list[str], limit: str = "", **environment: str) -> tuple[int, str, str]:
    """Run a program on few images. Return its exit code, its standard output and its standard error.

    Args:
        folder: the working folder.
        program: the name of the program.
        flags: the arguments of the program.
        limit: a bash command that runs before the program.
        environment: variables to set.
    """
    variables = {**os.environ, "PYTHONPATH": str(ROOT), "TF_CPP_MIN_LOG_LEVEL": "3", **environment}
    command = f'{limit}\nexec "$@"'
    done = subprocess.run(
        ["bash", "-c", command, "bash", sys.executable, "-c", PROGRAM, program, *flags],
        cwd=folder,
        env=variables,
        capture_output=True,
        text=True,
        timeout=300,
    )
    return done.returncode, done.stdout, done.stderr


def check_sentence(ended: tuple[int, str, str], words: str) -> None:
    """Assert that a program ended with exit code 1 and printed only one line, an error message with these words."""
    code, out, error = ended
    assert code == 1 and out == "", (code, out, error)
    assert error.startswith("error: ") and error.count("\n") == 1 and words in error, error


@pytest.mark.skipif(find_keras_generation() == 2, reason="Keras 2 has one backend and ignores KERAS_BACKEND")
@pytest.mark.parametrize("backend", ["torch", "jax", "nonsense"])
@pytest.mark.parametrize("program", PROGRAMS)
def test_another_backend_of_keras_is_a_sentence(tmp_path: Path, program: str, backend: str) -> None:
    ended = run(tmp_path, program, PROGRAMS[program], KERAS_BACKEND=backend)
    check_sentence(ended, f"KERAS_BACKEND is '{backend}'")
    assert not list(tmp_path.iterdir())  # the program created no folder


@pytest.mark.parametrize("kibibytes", [300_000, 2_500_000])
@pytest.mark.parametrize("program", PROGRAMS)
def test_too_little_address_space_is_a_sentence(tmp_path: Path, program: str, kibibytes: int) -> None:
    ended = run(tmp_path, program, PROGRAMS[program], limit=f"ulimit -v {kibibytes}")
    check_sentence(ended, f"only {kibibytes} KiB of address space (ulimit -v)")


def test_a_tensorflow_that_cannot_be_loaded_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "tensorflow.py").write_text("raise ImportError('libtensorflow_cc.so.2: failed to map segment')\n")
    for program, flags in PROGRAMS.items():
        ended = run(tmp_path, program, flags, PYTHONPATH=f"{tmp_path}:{ROOT}")
        check_sentence(ended, "TensorFlow cannot be loaded (libtensorflow_cc.so.2: failed to map segment)")


@pytest.mark.parametrize(
    ("program", "flags"),
    [
        pytest.param("train", [*TINY.split(), "--out", "run"], marks=pytest.mark.slow),
        ("train", [*TINY.split(), "--out", "run", "--preview"]),
        pytest.param("check", [], marks=pytest.mark.slow),
    ],
)
def test_a_wrong_backend_of_matplotlib_changes_nothing(tmp_path: Path, program: str, flags: list[str]) -> None:
    code, _, error = run(tmp_path, program, flags, MPLBACKEND="nonsense")
    assert code == 0 and "warning" not in error and "Traceback" not in error, error
    assert program == "check" or (tmp_path / "run" / "plots" / "views.png").exists()


def test_a_broken_matplotlib_costs_the_pictures_and_not_the_run(tmp_path: Path) -> None:
    (tmp_path / "matplotlib.py").write_text("raise ImportError('libfreetype.so.6 is missing')\n")
    path = f"{tmp_path}:{ROOT}"
    code, out, error = run(tmp_path, "train", [*TINY.split(), "--out", "run"], PYTHONPATH=path)
    assert code == 0 and "Traceback" not in error, error
    for name in ("views", "learning", "embedding", "neighbours"):
        assert f"warning: run/plots/{name}.png could not be drawn (Matplotlib cannot be loaded (ImportError" in error
    assert (tmp_path / "run" / "evaluation.json").exists() and "trained encoder" in out
    code, _, error = run(tmp_path, "train", [*TINY.split(), "--out", "seen", "--preview"], PYTHONPATH=path)
    assert code == 1 and error.startswith("error: Matplotlib cannot be loaded") and error.count("\n") == 1, error
