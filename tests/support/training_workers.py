"""Starts several processes that train one network together (workers), as a user would, and reads their results."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from lowlevel_simclr.run import checkpoint
from tests.support.worker_processes import ROOT, make_cluster

TRAIN = """
import sys
from lowlevel_simclr import train
from lowlevel_simclr.data import catalog
catalog.SHAPES_TRAIN, catalog.SHAPES_TEST = 60, 40
sys.exit(train.main(sys.argv[1:]))
"""
SMALL = ["--image-size", "8", "--batch-size", "16", "--projection-widths", "16", "8", "--steps-per-call", "2"]
SMALL += ["--warmup-epochs", "0", "--knn-every", "0", "--precision", "float32"]


def start_worker(
    out: Path, environment: dict[str, str], flags: Sequence[str], prefix: Sequence[str] = (), program: str = ""
) -> subprocess.Popen[str]:
    """Start one worker.

    Args:
        out: the run folder.
        environment: variables to set or replace in the environment of this process.
        flags: flags of the training command.
        prefix: words to put before the training command, such as "ip netns exec NAME".
        program: Python code that the worker runs before it trains.
    """
    return subprocess.Popen(
        [*prefix, sys.executable, "-c", program + TRAIN, *SMALL, "--out", str(out), *flags],
        cwd=ROOT,
        env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def start_workers(
    out: Path, *flags: str, of_second: Sequence[str] = (), count: int = 2, program: str = ""
) -> list[subprocess.Popen[str]]:
    """Start several workers. Each gets the addresses of all workers in TF_CONFIG.

    Args:
        out: the run folder.
        *flags: flags of every worker.
        of_second: additional flags of worker 1.
        count: the number of workers.
        program: Python code that each worker runs before it trains.
    """
    return [
        start_worker(out, environment, [*flags, *(of_second if rank == 1 else ())], program=program)
        for rank, environment in enumerate(make_cluster(count))
    ]


def wait_for_steps(out: Path, processes: Sequence[subprocess.Popen[str]], count: int) -> None:
    """Wait until a run has recorded `count` steps. If a worker ends earlier, kill all workers and raise an error."""
    deadline = time.monotonic() + 300
    while time.monotonic() < deadline and all(process.poll() is None for process in processes):
        rows = out / "metrics.jsonl"
        if rows.exists() and rows.read_bytes().count(b"\n") >= count:
            return
        time.sleep(0.1)
    for process in processes:
        process.kill()
    raise AssertionError("\n".join(process.communicate()[0][-2000:] for process in processes))


def read_final_state(out: Path) -> dict[str, np.ndarray]:
    """Return the arrays of the newest checkpoint."""
    saved = checkpoint.load_latest(out / "checkpoints")
    assert saved is not None
    return saved.arrays


def read_losses(out: Path) -> np.ndarray:
    """Return the loss of each step, (steps,) float64."""
    return np.array([json.loads(line)["loss"] for line in (out / "metrics.jsonl").read_text().splitlines()])
