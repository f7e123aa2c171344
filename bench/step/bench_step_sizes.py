"""Times the training step at many sizes: python -m bench.step.bench_step_sizes [--batch-sizes 64 256 --json FILE].

A problem is one encoder with one batch size and one precision. Each problem is measured in a process of its own, which
times three programs in turns. In the code, each of these programs is called a form:

    native ops      the training job of job.py
    stock ops       the same job with --ops stock: views, loss and LARS in TensorFlow's own ops
    encoder alone   only the encoder, forward and backward on synthetic views

In a turn each program is timed once. The number of its steps is `--images-per-turn` divided by the batch size, but at
least one. The bench stores the result after each process. All times are in seconds per step.
"""

from __future__ import annotations

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import argparse
import dataclasses
import itertools
import json
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import tensorflow as tf

from bench import harness
from bench.step import processes
from bench.step.job import Job, JobChoices, configure_job, make_encoder_call
from bench.step.turns import Steps, repeat_call, summarize_turns, take_turns
from lowlevel_simclr.config import choices
from lowlevel_simclr.runtime.precision import choose_fast_precision

FORMS = ("native ops", "stock ops", "encoder alone")
OUT_OF_MEMORY = "out of memory"


def make_forms(chosen: argparse.Namespace, problem: dict[str, Any]) -> dict[str, Steps]:
    """Return, for each of the three programs (forms), the function that runs its steps on one problem."""
    choices = JobChoices(
        encoder=problem["encoder"],
        stem=chosen.stem,
        image_size=chosen.image_size,
        batch_size=problem["N"],
        precision=problem["precision"],
    )
    native, stock = (Job(configure_job(choices._replace(ops=ops))) for ops in ("native", "stock"))
    return dict(zip(FORMS, (native.run, stock.run, repeat_call(make_encoder_call(native)))))


def time_forms(chosen: argparse.Namespace, problem: dict[str, Any]) -> list[harness.Row]:
    """Time the three programs (forms) on one problem in this process. Return one row for each of them."""
    tf.config.experimental.enable_op_determinism()  # training enables it by default
    turn = max(1, chosen.images_per_turn // problem["N"])
    times = take_turns(make_forms(chosen, problem), chosen.turns, turn, settle=1)
    rows = []
    for name, each in times.items():
        found = summarize_turns(each, turn, problem["N"])
        rows.append(
            harness.Row(
                problem,
                name,
                repeats=len(each["wall"]),
                minimum=found["minimum_seconds"],
                median=found["median_seconds"],
                p10=found["p10_seconds"],
                p90=found["p90_seconds"],
                processor=found["processor_seconds"],
                extra={"pairs_per_second": found["pairs_per_second"]},
            )
        )
    return rows


def time_in_own_process(arguments: Sequence[str], problem: dict[str, Any]) -> list[harness.Row]:
    """Time the three programs on one problem in a separate process.

    If the process runs out of memory, the rows have the note "out of memory" and no times.

    Raises:
        SystemExit: if the process failed for another reason.
    """
    done = processes.run_module("bench.step.bench_step_sizes", *arguments, "--only", json.dumps(problem))
    if done.returncode == 0:
        return [harness.Row(**row) for row in json.loads(done.stdout.splitlines()[-1])]
    if done.returncode == -signal.SIGKILL or "ResourceExhaustedError" in done.stderr:
        return [harness.Row(problem, name, note=OUT_OF_MEMORY) for name in FORMS]
    raise SystemExit(f"bench_step_sizes: The process that measured {problem} failed: {done.stderr[-2000:]}")


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of the command-line flags."""
    made = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    made.add_argument("--encoders", nargs="+", default=["resnet50", "resnet18"], choices=choices.ENCODERS)
    made.add_argument("--batch-sizes", nargs="+", type=int, default=[64, 128, 256, 512, 1024], metavar="N")
    made.add_argument(
        "--precisions", nargs="+", help="precisions (default: float32, and the fastest one of this device)"
    )
    made.add_argument("--stem", default="imagenet", choices=choices.STEMS)
    made.add_argument("--image-size", type=int, default=32, metavar="S")
    made.add_argument("--turns", type=int, default=5, help="how often each of the three programs is timed")
    made.add_argument("--images-per-turn", type=int, default=512, help="images that each program trains on in a turn")
    made.add_argument("--json", type=Path, help="the file to store the result in")
    made.add_argument("--only", type=json.loads, help=argparse.SUPPRESS)
    return made


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, store and print the result; return the exit code."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    chosen = make_parser().parse_args(given)
    if chosen.only:
        print(json.dumps([dataclasses.asdict(row) for row in time_forms(chosen, chosen.only)]))
        return 0
    precisions = chosen.precisions or list(dict.fromkeys(["float32", choose_fast_precision()]))
    rows: list[harness.Row] = []
    for name, count, precision in itertools.product(chosen.encoders, chosen.batch_sizes, precisions):
        rows += time_in_own_process(given, {"encoder": name, "N": count, "precision": precision})
        if chosen.json:
            config = {"stem": chosen.stem, "image_size": chosen.image_size}
            harness.store_rows(chosen.json, rows, {"tensorflow": tf.__version__}, benchmark="step_sizes", config=config)
        print(harness.format_rows(rows[-len(FORMS) :]), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
