"""Proves that the present source code trains to exactly the same bits as an older commit.

    python -m tests.programs.compare_with_commit REVISION [COMMAND ...]

A tree is the source code at one commit: the present one or the older one. For each command of `COMMANDS`, each tree
trains 40 steps. The program compares three things: loss, contrastive accuracy (top-1) and learning rate in every row of
metrics.jsonl; every array of the last checkpoint; and evaluation.json. Then the present tree resumes the older tree's
run from its checkpoint of step 20, and the program compares the resumed run with the older one in the same way.

It also compares the outputs h of the two trained encoders, as `encoder.keras` and `embed` compute them. They may differ
by up to `CLOSE`, because the two trees may export an encoder in different layers.

The program writes the older tree into a temporary folder and builds its native library in this folder. Both trees use
the Python environment in which the program runs.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

ROOT = Path(__file__).parents[2]
STEPS, HALF = 40, 20
CLOSE = 16 * 2.0**-23  # a few rounding errors of float32, relative to the largest entry of h
FOLDER = "{pictures}"
PRESET = ["--preset", "cifar10-resnet20"]
COMMANDS: dict[str, list[str]] = {
    "default": [],
    "lars": ["--optimizer", "lars", "--precision", "float32"],
    "micro-batch": ["--batch-size", "128", "--micro-batch", "64"],
    "two devices": ["--devices", "cpu:2"],
    "stock": ["--ops", "stock"],
    # By now, the default settings for a folder depend on its images. Older commits used the settings of this preset.
    "folder": [*PRESET, "--dataset", f"folder:{FOLDER}", "--batch-size", "32"],
    "streamed": [*PRESET, "--dataset", f"folder:{FOLDER}", "--batch-size", "32", "--memory-limit", "0"],
}


class Difference(AssertionError):
    """A difference between two runs that should be equal."""


def check_out(revision: str, folder: Path) -> Path:
    """Check a commit out into a new subfolder of `folder`, build its native library, and return the subfolder."""
    tree = folder / "tree"
    subprocess.run(["git", "clone", "--quiet", str(ROOT), str(tree)], check=True)
    subprocess.run(["git", "-C", str(tree), "checkout", "--quiet", revision], check=True)
    environment = {**os.environ, "LOWLEVEL_SIMCLR_CUDA": "0"}
    command = [sys.executable, "setup.py", "--quiet", "build_ext", "--inplace"]
    subprocess.run(command, cwd=tree, env=environment, check=True, capture_output=True)
    return tree


def draw_pictures(folder: Path) -> Path:
    """Write 60 small pictures of several sizes for each of three classes. Every call writes the same pictures."""
    random = np.random.default_rng(0)
    for name in "abc":
        (folder / name).mkdir(parents=True)
        for place in range(60):
            height, width = random.integers(24, 60, 2)
            coarse = Image.fromarray(random.integers(0, 255, (4, 4, 3), np.uint8))
            coarse.resize((int(width), int(height)), Image.Resampling.BICUBIC).save(folder / name / f"{place}.png")
    return folder


def run_program(tree: Path, program: str, *arguments: str) -> None:
    """Run a program of one of the two trees, and wait until it ends.

    Raises:
        Difference: if the program fails.
    """
    environment = {**os.environ, "PYTHONPATH": str(tree), "TF_CPP_MIN_LOG_LEVEL": "3"}
    command = [sys.executable, "-m", f"lowlevel_simclr.{program}", *arguments]
    done = subprocess.run(command, cwd=tree, env=environment, capture_output=True, text=True)
    if done.returncode:
        raise Difference(f"{program} {' '.join(arguments)} failed in {tree}:\n{done.stderr[-2000:]}")


def train(tree: Path, out: Path, flags: Sequence[str]) -> None:
    """Train 40 steps in a folder. If the folder has a run, resume it."""
    fixed = ["--steps", str(STEPS), "--checkpoint-every", str(HALF), "--out", str(out)]
    run_program(tree, "train", *fixed, *flags)


def read_rows(run: Path) -> list[dict[str, Any]]:
    """Return step, loss, contrastive accuracy (top-1) and learning rate of every row of metrics.jsonl.

    All other entries are left out. The speed is never the same in two runs, and a newer commit may measure more than an
    older one, and at other steps.
    """
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{name: row[name] for name in ("step", "loss", "top1", "learning_rate")} for row in rows]


def compare_runs(older: Path, newer: Path) -> int:
    """Compare two runs, and return how many arrays were compared.

    Raises:
        Difference: if anything differs.
    """
    rows = read_rows(older), read_rows(newer)
    if rows[0] != rows[1] or len(rows[0]) != STEPS:
        first = next((place for place, pair in enumerate(zip(*rows)) if pair[0] != pair[1]), min(map(len, rows)))
        raise Difference(f"{newer}: row {first} of metrics.jsonl differs from {older}")
    name = f"step-{STEPS:08d}.npz"
    saved = [np.load(run / "checkpoints" / name) for run in (older, newer)]
    names = [sorted(set(each.files) - {"__meta__"}) for each in saved]
    if names[0] != names[1]:
        raise Difference(f"{newer}: the checkpoint has other arrays than that of {older}")
    unlike = [each for each in names[0] if saved[0][each].tobytes() != saved[1][each].tobytes()]
    if unlike:
        raise Difference(f"{newer}: {len(unlike)} arrays differ from {older}, first {unlike[0]}")
    meta = [json.loads(str(each["__meta__"]))["meta"] for each in saved]
    if meta[0] != meta[1]:
        raise Difference(f"{newer}: the checkpoint says {meta[1]}, that of {older} {meta[0]}")
    evaluation = [json.loads((run / "evaluation.json").read_text()) for run in (older, newer)]
    if evaluation[0] != evaluation[1]:
        raise Difference(f"{newer}: evaluation.json is {evaluation[1]}, that of {older} {evaluation[0]}")
    return len(names[0])


def resume(tree: Path, older: Path, out: Path, flags: Sequence[str]) -> None:
    """Copy an older run, remove from the copy what was written after step 20, and resume the copy."""
    shutil.copytree(older, out)
    (out / "checkpoints" / f"step-{STEPS:08d}.npz").unlink()
    for name in ("evaluation.json", "encoder.keras"):
        (out / name).unlink()
    train(tree, out, flags)


def compare_outputs(trees: Sequence[Path], runs: Sequence[Path], pictures: Path, folder: Path) -> list[float]:
    """Compare the outputs h of an older and a newer run.

    Returns:
        Two numbers, for `embed` and for encoder.keras: the largest difference, divided by the largest entry of h.

    Raises:
        Difference: if one of the two numbers is above `CLOSE`.
    """
    import tensorflow as tf

    rows = []
    for tree, run in zip(trees, runs):
        out = folder / f"{len(rows)}.npz"
        run_program(tree, "embed", str(run), str(pictures), "--out", str(out))
        rows.append(np.load(out)["h"])
    images = np.random.default_rng(1).integers(0, 256, (8, 40, 30, 3)).astype(np.float32)
    models = [tf.keras.models.load_model(run / "encoder.keras", compile=False) for run in runs]
    found = [model.predict(images, verbose=0) for model in models]
    largest = [float(np.abs(pair[0] - pair[1]).max() / np.abs(pair[0]).max()) for pair in (rows, found)]
    if max(largest) > CLOSE:
        raise Difference(f"h of embed and of encoder.keras differ by {largest}")
    return largest


def compare_with_commit(revision: str, names: Sequence[str] = tuple(COMMANDS)) -> None:
    """Train every command in both trees, compare the runs, and print what was compared.

    Raises:
        Difference: if any two runs differ.
    """
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        older, pictures = check_out(revision, folder), draw_pictures(folder / "pictures")
        for name in names:
            flags = [flag.replace(FOLDER, str(pictures)) for flag in COMMANDS[name]]
            runs = [folder / f"{name}-{which}" for which in ("older", "newer", "resumed")]
            train(older, runs[0], flags)
            train(ROOT, runs[1], flags)
            arrays = compare_runs(runs[0], runs[1])
            resume(ROOT, runs[0], runs[2], flags)
            compare_runs(runs[0], runs[2])
            print(
                f"{name}: {STEPS} rows, {arrays} arrays and evaluation.json are the same, also when resumed", flush=True
            )
            if name == "default":
                largest = compare_outputs((older, ROOT), runs[:2], pictures, folder)
                print(f"{name}: h of embed and of encoder.keras differ by {largest}", flush=True)


if __name__ == "__main__":
    compare_with_commit(sys.argv[1], sys.argv[2:] or tuple(COMMANDS))
