"""Trains a preset for its first steps and stores the losses: python -m bench.learning.first_steps PRESET --steps 50.

A preset is a named set of training settings. Use this program for presets whose whole training would take a day. The
program starts the whole training, so that the first steps have the learning rates that they have there. After these
steps it ends the training with the signal SIGTERM. If the run folder already has enough steps, the program does not
train but reads the metrics of these steps. It stores the result in bench/results/<device>/first_steps_PRESET.json, and
`bench.report.tables` writes the result into docs/accuracy.md.
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

from bench import hardware, harness
from bench.learning.run_memory import read_peak_memory
from lowlevel_simclr.run import results
from lowlevel_simclr.training.loss import compute_chance_loss


def train_until(command: Sequence[str], folder: Path, steps: int) -> None:
    """Run the training command until the metrics in the run folder have `steps` steps, then end the command.

    Raises:
        SystemExit: if the command ended by itself before that step.
    """
    process = subprocess.Popen(command)
    while True:
        # First ask whether the process has ended, then read the rows. In the other order, the process could write its
        # last rows after the reading and end before the question, and these rows would be missed.
        ended = process.poll() is not None
        if len(results.read_metrics(folder)) >= steps:
            break
        if ended:
            raise SystemExit(f"first_steps: Training ended with exit code {process.returncode} before step {steps}.")
        time.sleep(1)
    process.send_signal(signal.SIGTERM)
    process.wait()


def summarize_run(folder: Path, steps: int, at_once: int) -> dict[str, Any]:
    """Return a summary of a run. Each group of `at_once` steps has its mean loss and mean top-1 accuracy."""
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
        "peak_memory_bytes": read_peak_memory(environment),
        "precision": environment["precision"],
        "tensorflow": environment["tensorflow"],
        "commit": environment["git"],
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """Train for the first steps, or read them if they exist. Store the result in one file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("preset", help="the name of the preset to train")
    parser.add_argument("--steps", type=int, default=50, help="number of steps to train")
    parser.add_argument("--at-once", type=int, default=10, help="number of steps that each line of the table averages")
    parser.add_argument(
        "--runs", type=Path, default=Path("runs"), help="the folder that holds the run folder PRESET-first-steps"
    )
    parser.add_argument("--flags", default="", help="further flags of the train command, in one string")
    parser.add_argument("--json", type=Path, help="the file to store the result in")
    chosen = parser.parse_args(arguments)
    folder = chosen.runs / f"{chosen.preset}-first-steps"
    if len(results.read_metrics(folder)) < chosen.steps:
        command = [sys.executable, "-m", "lowlevel_simclr.train", "--preset", chosen.preset, "--out", str(folder)]
        command += [
            "--steps-per-call",
            "1",
            *shlex.split(chosen.flags),
        ]  # training then writes the metrics after every step
        train_until(command, folder, chosen.steps)
    path = chosen.json or harness.choose_result_path(f"first_steps_{chosen.preset}.json")
    path.parent.mkdir(parents=True, exist_ok=True)
    said = f"python -m bench.learning.first_steps {chosen.preset} --steps {chosen.steps}"
    said += f" --flags {shlex.quote(chosen.flags)}" if chosen.flags else ""
    stored = {"benchmark": "first_steps", "command": said, "device": hardware.name_results_folder()}
    path.write_text(json.dumps({**stored, **summarize_run(folder, chosen.steps, chosen.at_once)}, indent=2) + "\n")
    print(path)


if __name__ == "__main__":
    main()
