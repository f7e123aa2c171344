"""Runs the benches and tests that need a GPU, the most useful first: python -m bench.gpu_session --out FOLDER.

Each part of the session is a command that writes its own result below FOLDER. After each part the program writes the
exit codes and the times of all parts so far into FOLDER/session.json. If it is started again with the same folder, it
runs only the parts that have not yet ended with exit code 0. `--minutes` sets the time for all parts together. The
program skips a part if its expected time is longer than what is left of this time.

With `--dry` the program runs a small substitute of every part on a CPU: tiny models and few steps. This shows that the
commands of all parts still exist.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from bench import hardware, harness

PYTHON = sys.executable
STEP = ["-m", "bench.step.bench_step_program", "--xla", "on", "--processes", "1"]
TINY = ["--encoder", "resnet20", "--stem", "cifar", "--image-size", "16", "--batch-size", "8"]
ONE_TURN = ["--turns", "1", "--steps-per-turn", "1"]


class Part(NamedTuple):
    """One part of the session.

    Attributes:
        name: the name of the part, and of the folder for its result.
        why: the question that its result answers.
        seconds: the expected time of the part on a GPU, in seconds.
        command: the arguments of Python on a GPU. OUT stands for the folder of the part.
        dry: the arguments of Python for the small substitute on a CPU.
    """

    name: str
    why: str
    seconds: float
    command: list[str]
    dry: list[str]


def list_parts(data_dir: str) -> list[Part]:
    """Return the parts, the most useful first.

    Args:
        data_dir: the folder with the archive of CIFAR-10.
    """
    *first, wide = list_step_parts()
    *proofs, launchers = list_proofs()
    long = make_accuracy_part(data_dir), make_budget_part(data_dir)
    return [*first, long[0], *proofs, *list_op_parts(), long[1], wide, launchers]


def list_step_parts() -> list[Part]:
    """Return the parts that compare the speed of a whole step with that of the encoder, for three encoders."""
    resnet18 = ["--encoder", "resnet18", "--stem", "cifar", "--image-size", "32", "--batch-size", "512"]
    resnet50 = ["--encoder", "resnet50", "--stem", "imagenet", "--image-size", "224", "--batch-size", "256"]
    wide = ["--encoder", "resnet50", "--stem", "cifar", "--image-size", "32", "--batch-size", "512"]
    return [
        Part(
            "step_resnet18",
            "With the loop over steps compiled by XLA, does the whole step reach 0.97 of the speed (pairs/s) of the "
            "encoder alone? ResNet-18 with the first layers for small images (CIFAR stem), batch 512.",
            100,
            [*STEP, *resnet18, "--turns", "5", "--steps-per-turn", "64", "--out", "OUT/step.json"],
            [*STEP, *TINY, *ONE_TURN, "--out", "OUT/step.json"],
        ),
        Part(
            "step_resnet50",
            "The same question for ResNet-50 with the first layers for large images (ImageNet stem), 224 pixels, "
            "batch 256.",
            140,
            [*STEP, *resnet50, "--turns", "5", "--steps-per-turn", "32", "--out", "OUT/step.json"],
            [*STEP, *TINY, *ONE_TURN, "--out", "OUT/step.json"],
        ),
        Part(
            "step_resnet50_cifar",
            "The question of `step_resnet18` for ResNet-50 with the CIFAR stem, batch 512.",
            120,
            [*STEP, *wide, "--turns", "4", "--steps-per-turn", "32", "--out", "OUT/step.json"],
            [*STEP, *TINY, *ONE_TURN, "--out", "OUT/step.json"],
        ),
    ]


def make_accuracy_part(data_dir: str) -> Part:
    """Return the part that trains on CIFAR-10 and measures the accuracy. `data_dir` has the archive of CIFAR-10."""
    small_run = ["--dataset", "shapes", "--steps", "4", *TINY, "--xla", "on"]
    recipe = f"--data-dir {data_dir} --batch-size 512 --epochs 100 --knn-every 0"
    return Part(
        "accuracy",
        "After 100 epochs of the preset cifar10-resnet18 at batch 512, how accurate are two classifiers on the "
        "encoder's output: 20 nearest neighbours (20-NN) and a linear one (linear probe)?",
        300,
        ["-m", "bench.learning.accuracy", "cifar10-resnet18", "--seeds", "0", "--runs", "OUT/runs"]
        + ["--json", "OUT/accuracy.json", "--flags", recipe],
        ["-m", "lowlevel_simclr.train", "--out", "OUT/run", *small_run],
    )


def make_budget_part(data_dir: str) -> Part:
    """Return the part that trains on CIFAR-10 for four minutes. `data_dir` has the archive of CIFAR-10."""
    return Part(
        "budget",
        "Which accuracy do 20-NN and the linear probe reach with --budget 4m, and does the run end in time?",
        330,
        ["-m", "lowlevel_simclr.train", "--dataset", "cifar10", "--data-dir", data_dir, "--budget", "4m"]
        + ["--out", "OUT/run"],
        ["-m", "lowlevel_simclr.train", "--dataset", "shapes", "--budget", "5m", "--pairs-per-second", "0.4", *TINY]
        + ["--out", "OUT/run", "--preview"],
    )


def list_proofs() -> list[Part]:
    """Return the parts that check correctness: the tests, and comparisons with the NumPy reference."""
    tests = ["tests/ops", "tests/optim", "tests/model", "tests/training/test_program.py"]
    return [
        Part(
            "tests",
            "Do the tests of the ops, the optimizers, the models and the compiled training program pass on the GPU?",
            120,
            ["-m", "pytest", "-q", "-x", "--maxfail=20", "-p", "no:cacheprovider", *tests],
            ["-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/training/test_calendar.py"],
        ),
        Part(
            "check",
            "Does every op agree with the NumPy reference on this device?",
            40,
            ["-m", "lowlevel_simclr.check", "--verbose"],
            ["-m", "lowlevel_simclr.check"],
        ),
        Part(
            "launchers",
            "Does every CUDA launcher (the C function that starts an op's kernels), called without TensorFlow, agree "
            "with the NumPy reference? Do NVIDIA's checkers memcheck, racecheck and synccheck report no errors?",
            120,
            ["tests/kernels/gpu_kernels.py", "--small", "--sanitize"],
            ["tests/kernels/gpu_kernels.py", "--help"],
        ),
    ]


def list_op_parts() -> list[Part]:
    """Return the parts that time a single native op and the same computation in stock TensorFlow ops under XLA."""
    return [
        Part(
            "nt_xent",
            "How fast is the native loss NT-Xent compared with its formula in stock TensorFlow ops under XLA?",
            50,
            ["-m", "bench.ops.bench_nt_xent", "--pairs", "256", "4096", "--dtypes", "bfloat16", "float32"]
            + ["--seconds", "2", "--out", "OUT/nt_xent.json"],
            ["-m", "bench.ops.bench_nt_xent", "--pairs", "8", "--dtypes", "float32", "--seconds", "0.1"]
            + ["--out", "OUT/nt_xent.json"],
        ),
        Part(
            "views",
            "How fast does the native op make views compared with stock TensorFlow ops under XLA?",
            40,
            [
                "-m",
                "bench.ops.bench_make_views",
                "--sizes",
                "32",
                "224",
                "--images",
                "512",
                "--seconds",
                "2",
                "--no-map",
            ]
            + ["--out", "OUT/make_views.json"],
            ["-m", "bench.ops.bench_make_views", "--sizes", "32", "--images", "4", "--seconds", "0.1", "--no-map"]
            + ["--out", "OUT/make_views.json"],
        ),
    ]


def run_part(part: Part, folder: Path, dry: bool, limit: float) -> dict[str, object]:
    """Run one part, and return its exit code and its time. The output of the part goes to FOLDER/NAME/output.txt.

    Args:
        part: the part.
        folder: the folder of the session.
        dry: whether to run the small CPU substitute instead of the part.
        limit: the time limit in seconds. A part that reaches it is killed, and its exit code is then 124.
    """
    own = folder / part.name
    own.mkdir(parents=True, exist_ok=True)
    arguments = [each.replace("OUT", str(own)) for each in (part.dry if dry else part.command)]
    started = time.monotonic()
    with open(own / "output.txt", "w", encoding="utf-8") as output:
        try:
            code = subprocess.run(
                [PYTHON, *arguments], stdout=output, stderr=subprocess.STDOUT, timeout=limit
            ).returncode
        except subprocess.TimeoutExpired:
            code = 124
    return {"name": part.name, "why": part.why, "exit_code": code, "seconds": round(time.monotonic() - started, 1)}


def run_session(parts: Sequence[Part], folder: Path, seconds: float, dry: bool) -> list[dict[str, object]]:
    """Run the parts that have not yet ended with exit code 0, and write session.json after each of them.

    Args:
        parts: the parts, in order.
        folder: the folder of the session.
        seconds: the time for all parts of this call. A part whose expected time is longer than the time left is
            skipped.
        dry: see `run_part`.

    Returns:
        The exit code and the time of every part that has run, in this call or in an earlier one.
    """
    file, until = folder / "session.json", time.monotonic() + seconds
    ended = {each["name"]: each for each in json.loads(file.read_text())["parts"]} if file.exists() else {}
    for part in parts:
        left = until - time.monotonic()
        if ended.get(part.name, {}).get("exit_code") == 0 or (part.seconds > left and not dry):
            continue
        print(f"{part.name}: {part.why}", flush=True)
        ended[part.name] = run_part(part, folder, dry, left)
        print(f"  exit code {ended[part.name]['exit_code']} after {ended[part.name]['seconds']} s", flush=True)
        record = {
            "benchmark": "gpu_session",
            "device": hardware.name_results_folder(),
            "date": time.strftime("%Y-%m-%d"),
            "dry": dry,
            "parts": [ended[each.name] for each in parts if each.name in ended],
        }
        harness.write_result(file, record)
    return [ended[each.name] for each in parts if each.name in ended]


def format_list(parts: Sequence[Part]) -> str:
    """Return the parts as a table in Markdown, for docs/gpu.md."""
    lines = ["| part | expected seconds | question |", "|---|---|---|"]
    return "\n".join([*lines, *(f"| `{part.name}` | {part.seconds:.0f} | {part.why} |" for part in parts)])


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the session. Return 0 if every part has ended with exit code 0, and 1 otherwise."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="the folder for the results")
    parser.add_argument("--minutes", type=float, default=13.0, help="the time for all parts of this call")
    parser.add_argument("--data-dir", default="data", help="the folder with the archive of CIFAR-10")
    parser.add_argument("--dry", action="store_true", help="run small substitutes of all parts on a CPU")
    chosen = parser.parse_args(arguments)
    chosen.out.mkdir(parents=True, exist_ok=True)
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    parts = list_parts(chosen.data_dir)
    ended = run_session(parts, chosen.out, 60 * chosen.minutes, chosen.dry)
    return 0 if len(ended) == len(parts) and all(each["exit_code"] == 0 for each in ended) else 1


if __name__ == "__main__":
    sys.exit(main())
