"""Trains a preset with several seeds and stores the accuracies: python -m bench.learning.accuracy NAME --seeds 0 1.

A preset is a named set of training settings. If the training with a seed is finished already, the program reads its
results and does not train again. It stores the accuracies in bench/results/<device>/accuracy_PRESET.json, and
`bench.report.tables` writes them into docs/accuracy.md.
"""

from __future__ import annotations

import argparse
import datetime
import json
import shlex
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bench import hardware, harness, utilisation
from bench.learning.run_memory import read_peak_memory


def train_or_read(preset: str, seed: int, folder: Path, flags: Sequence[str]) -> dict[str, Any]:
    """Train with the train command, unless the folder already has a finished run. Return a summary of the run."""
    if not (folder / "evaluation.json").exists():
        command = [sys.executable, "-m", "lowlevel_simclr.train", "--preset", preset, "--seed", str(seed)]
        subprocess.run([*command, "--out", str(folder), *flags], check=True)
    evaluation = json.loads((folder / "evaluation.json").read_text())
    environment = json.loads((folder / "environment.json").read_text())
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    started = datetime.datetime.fromisoformat(environment["started"][:-2] + ":" + environment["started"][-2:])
    ended = max(path.stat().st_mtime for path in (folder / "plots").iterdir())
    return {
        "seed": seed,
        "steps": rows[-1]["step"],
        "seconds": round(ended - started.timestamp(), 1) if not environment["earlier"] else None,
        "pairs_per_second": float(np.median([row["pairs_per_second"] for row in rows])),
        "peak_memory_bytes": read_peak_memory(environment),
        "mfu": compute_run_utilisation(folder, rows, environment["precision"]),
        "precision": environment["precision"],
        "tensorflow": environment["tensorflow"],
        "commit": environment["git"],
        "curve": {row["step"]: row["knn"] for row in rows if "knn" in row},
        **{name: evaluation[name] for name in evaluation if name not in ("schema", "notes", "step")},
    }


def compute_run_utilisation(folder: Path, rows: Sequence[dict[str, Any]], precision: str) -> float | None:
    """Return the model FLOP utilisation (MFU) of a run at its median speed in pairs a second.

    If the peak rate of the device is not known, return None.
    """
    gpu = hardware.find_gpu_name()
    if utilisation.find_peak_rate(gpu, precision) is None:
        return None
    from lowlevel_simclr.model import encoder, projection  # imported here, because only a known GPU needs TensorFlow

    model = json.loads((folder / "config.json").read_text())["model"]
    f = encoder.build_encoder(model["encoder"], model["stem"], model["image_size"], 3)
    g = projection.build_projection_head(f.output_shape[-1], model["projection_widths"])
    rate = float(np.median([row["pairs_per_second"] for row in rows]))
    return utilisation.compute_share(rate, utilisation.count_pair_operations([f, g]), gpu, precision)


def main(arguments: Sequence[str] | None = None) -> None:
    """For every seed, train or read a finished run. Store the results of all runs in one file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("preset", help="the name of the preset to train")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="one run for each seed")
    parser.add_argument(
        "--runs", type=Path, default=Path("runs"), help="the folder that holds the run folders PRESET-seedN"
    )
    parser.add_argument("--flags", default="", help="further flags of the train command, in one string")
    parser.add_argument("--json", type=Path, help="the file to store the result in")
    chosen = parser.parse_args(arguments)
    flags = shlex.split(chosen.flags)
    rows = [
        train_or_read(chosen.preset, seed, chosen.runs / f"{chosen.preset}-seed{seed}", flags) for seed in chosen.seeds
    ]
    path = chosen.json or harness.choose_result_path(f"accuracy_{chosen.preset}.json")
    path.parent.mkdir(parents=True, exist_ok=True)
    command = f"python -m bench.learning.accuracy {chosen.preset} --seeds {' '.join(map(str, chosen.seeds))}"
    command += f" --flags {shlex.quote(chosen.flags)}" if chosen.flags else ""
    path.write_text(
        json.dumps({"command": command, "device": hardware.name_results_folder(), "runs": rows}, indent=2) + "\n"
    )
    print(path)


if __name__ == "__main__":
    main()
