"""Tests which releases of TensorFlow can call the native ops from XLA. Writes a table into docs/tensorflow-versions.md.

    python -m bench.report.tensorflow_versions tensorflow-cpu==2.18.1 tensorflow-cpu==2.20.0

For each release, the program creates a new virtual environment and runs three programs in it with the native library of
this checkout: `check`, thirty steps of training with --xla on, and Keras's fit with jit_compile=True and native ops. A
release "works" if all three succeed. A release "refuses" if its XLA cannot call the library and the programs say so:
the training and Keras's fit end with a message that gives the reason, and `check` passes without XLA. The exit code is
1 if a release neither works nor refuses.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from bench.report import markers

PAGE = markers.ROOT / "docs" / "tensorflow-versions.md"
NAME = "tensorflow_versions"
HEAD = [
    "| TensorFlow | `check` | 30 steps of training, `--xla on` | Keras `fit`, `jit_compile=True` | why it refuses |",
    "|---|---|---|---|---|",
]
WORKS, REFUSES, FAILS = "works", "refuses", "fails"
# What this package requires besides TensorFlow.
BESIDE = ["numpy", "matplotlib", "scikit-learn", "pillow", "tqdm", "tensorboard", "shtab"]
MINUTES = 20  # the time limit of each program

IMAGES = """
import sys
import numpy as np
from lowlevel_simclr.data.shapes import draw_shapes
images, labels = draw_shapes(240, seed=0)
np.savez(sys.argv[1], x_train=images[:200], y_train=labels[:200], x_test=images[200:], y_test=labels[200:])
"""
KERAS = """
import lowlevel_simclr as ls
import tensorflow as tf
from lowlevel_simclr.data.shapes import draw_shapes
data = tf.data.Dataset.from_tensor_slices(draw_shapes(64, seed=0)).batch(32, drop_remainder=True)
x = images = tf.keras.Input((32, 32, 3), batch_size=32, dtype="uint8")
x = ls.SimCLRViews(24, ops="native")(x)
x = tf.keras.layers.Conv2D(16, 3, strides=2, activation="relu")(x)
x = tf.keras.layers.Dense(16)(tf.keras.layers.GlobalAveragePooling2D()(x))
model = tf.keras.Model(images, x)
model.compile("adam", loss=ls.NTXent(0.2, ops="native"), jit_compile=True)
model.fit(data, epochs=2, verbose=0)
"""
VERSION = "import tensorflow as tf; print(tf.__version__)"
REFUSAL = re.compile(r"The native ops do not work under --xla on here\. (.*?) Use --ops stock")


class Proof(NamedTuple):
    """The results of the three programs on one release of TensorFlow.

    Attributes:
        release: the name and the version of the wheel, for example "tensorflow-cpu 2.21.0".
        check: for the program `check`, how many comparisons passed and whether XLA was included, or FAILS.
        step: WORKS, REFUSES or FAILS, for training with --xla on.
        keras: WORKS, REFUSES or FAILS, for Keras's fit.
        said: the reason why XLA cannot call the library, or "" if it can.
    """

    release: str
    check: str
    step: str
    keras: str
    said: str

    @property
    def is_right(self) -> bool:
        """Return whether `check` passes, and the two other programs both work or both refuse with a reason."""
        inside, outside = self.check.endswith("XLA included"), self.check.endswith("without XLA")
        works = inside and (self.step, self.keras, self.said) == (WORKS, WORKS, "")
        return works or (outside and (self.step, self.keras) == (REFUSES, REFUSES) and bool(self.said))

    @property
    def works(self) -> bool:
        """Return whether XLA can call the library."""
        return self.is_right and self.step == WORKS

    def format_row(self) -> str:
        """Return the table row of this release."""
        return f"| {' | '.join(self)} |"


def install(requirement: str, folder: Path, before_release: bool) -> Path:
    """Install a release of TensorFlow in a new virtual environment, and return the path of its Python interpreter.

    Args:
        requirement: what pip must install, for example "tensorflow-cpu==2.20.0".
        folder: the folder in which the environment is created.
        before_release: whether pip may install release candidates.

    Raises:
        subprocess.CalledProcessError: if pip fails.
    """
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    python = folder / "bin" / "python"
    flags = ["--pre"] if before_release else []
    subprocess.run([python, "-m", "pip", "install", "--quiet", *flags, requirement], check=True)
    subprocess.run([python, "-m", "pip", "install", "--quiet", *BESIDE], check=True)
    return python


def prove(requirement: str, python: Path, folder: Path) -> Proof:
    """Run the three programs on one release of TensorFlow, and return their results.

    Args:
        requirement: the name of the wheel, with or without a version.
        python: the path of a Python interpreter that has the release.
        folder: the folder for files that the programs write.
    """

    def run(*words: str | Path) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, "PYTHONPATH": str(markers.ROOT), "CUDA_VISIBLE_DEVICES": "-1"}
        environment["TF_CPP_MIN_LOG_LEVEL"] = "3"
        done = subprocess.run(
            [python, *words], cwd=markers.ROOT, env=environment, capture_output=True, text=True, timeout=60 * MINUTES
        )
        if done.returncode != 0:  # the output is printed here, because the table row does not show why a program failed
            print(f"{done.stdout[-2000:]}{done.stderr[-2000:]}", file=sys.stderr, flush=True)
        return done

    version = run("-c", VERSION).stdout.strip().replace("-rc", "rc")
    images = folder / "images.npz"
    run("-c", IMAGES, images)
    data, steps = ["--dataset", f"npz:{images}", "--image-size", "20"], ["--steps", "30", "--batch-size", "64"]
    check = run("-m", "lowlevel_simclr.check")
    step = run("-m", "lowlevel_simclr.train", *data, *steps, "--xla", "on", "--out", folder / "run")
    keras = run("-c", KERAS)
    return Proof(
        f"{re.split('[=<>]', requirement)[0]} {version}",
        describe_check(check.returncode, check.stdout),
        describe_program(step.returncode, step.stderr),
        describe_program(keras.returncode, keras.stderr),
        find_refusal(step.stderr),
    )


def describe_check(code: int, output: str) -> str:
    """Return a text that says how many comparisons of `check` passed and whether XLA was included, or FAILS.

    Args:
        code: the exit code of `check`.
        output: what `check` printed.
    """
    passed = re.search(r"All (\d+) comparisons passed", output)
    if code != 0 or passed is None:
        return FAILS
    inside = re.search(r"^inside XLA +checked too", output, re.MULTILINE)
    return f"{passed[1]} comparisons, {'XLA included' if inside else 'without XLA'}"


def describe_program(code: int, errors: str) -> str:
    """Return WORKS, REFUSES or FAILS for a program that needs XLA.

    Args:
        code: the exit code of the program.
        errors: what the program wrote to standard error.
    """
    if code == 0:
        return WORKS
    return REFUSES if find_refusal(errors) or "XLA cannot call the native ops" in errors else FAILS


def find_refusal(errors: str) -> str:
    """Return the reason why the program refused `--xla on`, or "" if it did not refuse."""
    found = REFUSAL.search(errors)
    return found[1] if found else ""


def write_row(proof: Proof, page: Path = PAGE) -> None:
    """Write the row of a release into the table on the page. It replaces an older row of the same release."""
    between = page.read_text(encoding="utf-8").split(f"<!-- {NAME} -->\n")[1].split(f"<!-- /{NAME} -->")[0]
    rows = {row.split(" | ")[0].removeprefix("| "): row for row in between.splitlines()[len(HEAD) :]}
    rows[proof.release] = proof.format_row()
    markers.write_between(page, NAME, "\n".join([*HEAD, *(rows[name] for name in sorted(rows, key=order_release))]))


def order_release(release: str) -> tuple[list[int], str]:
    """Return a sort key. It orders releases by version, and those with the same version by the name of the wheel."""
    wheel, version = release.split(" ")
    return [int(number) for number in re.findall(r"\d+", version)], wheel


def main(argv: Sequence[str] | None = None) -> int:
    """Test the releases on the command line. Return 0 if each of them works or refuses with a reason."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("requirements", nargs="+", metavar="REQUIREMENT")
    parser.add_argument("--pre", action="store_true", help="allow pip to install release candidates")
    parser.add_argument(
        "--python", type=Path, help="use this interpreter, which already has the release, and install nothing"
    )
    parser.add_argument("--no-table", action="store_true", help="do not write the row into the page")
    parser.add_argument("--must-work", action="store_true", help="count a release that refuses as a failure")
    given = parser.parse_args(argv)
    right = True
    for requirement in given.requirements:
        with tempfile.TemporaryDirectory() as made:
            python = given.python or install(requirement, Path(made) / "environment", given.pre)
            proof = prove(requirement, python, Path(made))
        print(proof.format_row(), flush=True)
        right &= proof.works if given.must_work else proof.is_right
        if not given.no_table:
            write_row(proof)
    return 0 if right else 1


if __name__ == "__main__":
    sys.exit(main())
