"""Trains a preset for its first steps and stores how they went: python -m bench.learning.first_steps PRESET --steps 50.

For what would take a day to the end: it shows that it trains. The schedule is that of the whole run, which is ended as
a user would end it (SIGTERM) once the steps are there. A run that has them is read, not made again. Results go to
bench/results/<device>/first_steps_PRESET.json; `bench.report.tables` writes them into the README.
"""

from __future__ import annotations

import argparse
import json
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bench import harness
from bench.learning import accuracy
from lowlevel_simclr.run import results
from lowlevel_simclr.training.loss import compute_chance_loss


def train(command: Sequence[str], folder: Path, steps: int) -> None:
    """Runs the command until its folder has so many steps, and ends it.

    Raises:
        SystemExit: it ended by itself, too early.
    """
    process = subprocess.Popen(command)
    while True:
        ended = process.poll() is not None  # before the look at its rows: it may write the last of them and end
        if len(results.read_metrics(folder)) >= steps:
            break
        if ended:
            raise SystemExit(f"first_steps: training ended with code {process.returncode} before step {steps}")
        time.sleep(1)
    process.send_signal(signal.SIGTERM)
    process.wait()


def told(folder: Path, steps: int, at_once: int) -> dict[str, Any]:
    """Means of loss and top-1 over every `at_once` steps, and what one step took."""
    rows = results.read_metrics(folder)[:steps]
    config, environment = (json.loads((folder / name).read_text()) for name in ("config.json", "environment.json"))
    batch_size = config["train"]["batch_size"]
    spans = [rows[first : first + at_once] for first in range(0, len(rows), at_once)]
    return {
        "spans": [
            {
                "steps": [span[0]["step"], span[-1]["step"]],
                **{name: float(np.mean([row[name] for row in span])) for name in ("loss", "top1")},
            }
            for span in spans
        ],
        "chance": compute_chance_loss(batch_size, config["loss"]["loss_reduction"]),
        "batch_size": batch_size,
        "stem": config["model"]["stem"],
        "encoder": config["model"]["encoder"],
        "seconds_per_step": batch_size / float(np.median([row["pairs_per_second"] for row in rows])),
        "peak_memory_bytes": accuracy.peak_memory(environment),
        "precision": environment["precision"],
        "tensorflow": environment["tensorflow"],
        "commit": environment["git"],
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """Train or read, store one file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("preset")
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--at-once", type=int, default=10, help="steps of one line of the table")
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="where the run folder is, PRESET-first-steps")
    parser.add_argument("--flags", default="", help="further flags of train, in one string")
    parser.add_argument("--json", type=Path)
    chosen = parser.parse_args(arguments)
    folder = chosen.runs / f"{chosen.preset}-first-steps"
    if len(results.read_metrics(folder)) < chosen.steps:
        command = [sys.executable, "-m", "lowlevel_simclr.train", "--preset", chosen.preset, "--out", str(folder)]
        command += ["--steps-per-call", "1", *shlex.split(chosen.flags)]  # each step is told as soon as it is made
        train(command, folder, chosen.steps)
    device = harness.device_name()
    path = chosen.json or harness.RESULTS / device / f"first_steps_{chosen.preset}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    said = f"python -m bench.learning.first_steps {chosen.preset} --steps {chosen.steps}"
    said += f" --flags {shlex.quote(chosen.flags)}" if chosen.flags else ""
    stored = {"benchmark": "first_steps", "command": said, "device": device}
    path.write_text(json.dumps({**stored, **told(folder, chosen.steps, chosen.at_once)}, indent=2) + "\n")
    print(path)


if __name__ == "__main__":
    main()
