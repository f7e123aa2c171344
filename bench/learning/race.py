"""Compares what programs learn in equal time: python -m bench.learning.race --data-dir DIR --minutes 10 --seeds 3.

The programs (contestants) train on CIFAR-10 on this machine, one after another. Each has the same wall time, counted
from the start of its process. A recipe is a set of training settings. The contestants are:

- this package with `--budget` (our recipe);
- SimCLR with the PyTorch package lightly, in four forms: with the recipe of lightly's example or with our recipe, each
  in float32 and in bfloat16;
- a plain TensorFlow program with our recipe.

With --steps, the contestants with our recipe train for this number of steps instead, and this package trains with views
of one size. This shows how much each program learns in the same number of steps.

After a contestant has trained, this package trains two classifiers on h, the output of the contestant's encoder: 20
nearest neighbours (20-NN) and a linear one (linear probe). Their accuracies on the test split are the result. They are
not used to choose any setting. After each training, the results of all contestants so far are stored in one file,
bench/results/<device>/race_<minutes>m.json. If a result is stored already, this training is not repeated. torch and
lightly are installed in an environment of their own, which this program builds (`--environment`).

The programs for lightly and plain TensorFlow get a request in JSON. Its keys are recipe (with the keys as_shipped,
encoder, stem, image_size, evaluation_size, batch_size, learning_rate, temperature, smallest_crop and
projection_widths), precision, workers, threads, seed, began, seconds, steps, images and out. With the key measure, the
program only measures its speed.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from bench import hardware, harness
from bench.report import markers
from lowlevel_simclr.config import recipes

REQUIREMENTS = Path(__file__).with_name("requirements-torch.txt")
TORCH_PROGRAM = Path(__file__).parents[1] / "baselines" / "torch_race.py"
MEASURED = 15.0  # how long one measurement of the speed takes, in seconds
# The settings that --budget chooses and that the other programs also need under the same name.
SHARED = ("encoder", "stem", "image_size", "evaluation_size", "learning_rate", "temperature")
OURS: dict[str, Any] = {
    "as_shipped": False,
    **{name: recipes.ON_CPU[name] for name in SHARED},
    "smallest_crop": recipes.ON_CPU["crop_area"][0],
    "batch_size": 256,
    "projection_widths": [256, 128],
}
AS_SHIPPED: dict[str, Any] = {
    "as_shipped": True,
    "encoder": "resnet18",
    "stem": "imagenet",
    "image_size": 32,
    "evaluation_size": 32,
    "batch_size": 256,
    "learning_rate": 0.06,
    "temperature": 0.5,
    "projection_widths": [512, 128],
}


class Contestant(NamedTuple):
    """A program and its training settings (recipe)."""

    name: str
    program: str  # "ours", "lightly" or "plain"
    recipe: dict[str, Any]
    precision: str = "float32"


class Race(NamedTuple):
    """The settings that all runs of a race share.

    Attributes:
        data_dir: the folder with the files of CIFAR-10.
        folder: the folder for images, representations and runs.
        seconds: the time of a run.
        steps: the number of steps of a run, or None if a run ends after `seconds`.
        python: the Python of the environment with torch and lightly.
    """

    data_dir: str
    folder: Path
    seconds: float
    steps: int | None
    python: Path


def list_contestants(steps: int | None) -> list[Contestant]:
    """Return the contestants. If `steps` is a number, return only the contestants with our recipe."""
    lightly = [
        Contestant(f"lightly, {name}, {precision}", "lightly", recipe, precision)
        for name, recipe in (("as shipped", AS_SHIPPED), ("our encoder and view size", OURS))
        for precision in ("float32", "bfloat16")
    ]
    every = [Contestant("ours", "ours", OURS), *lightly, Contestant("plain TensorFlow", "plain", OURS)]
    return [each for each in every if steps is None or not each.recipe["as_shipped"]]


def build_environment(folder: Path) -> Path:
    """Return the Python of the environment with torch and lightly. Build the environment if it does not exist."""
    python = folder / "bin" / "python"
    if not python.exists():
        if uv := shutil.which("uv"):
            subprocess.run([uv, "venv", str(folder)], check=True)
            subprocess.run([uv, "pip", "install", "--python", str(python), "-r", str(REQUIREMENTS)], check=True)
        else:
            subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
            subprocess.run([str(python), "-m", "pip", "install", "-r", str(REQUIREMENTS)], check=True)
    return python


def write_images(race: Race) -> Path:
    """Write CIFAR-10 for lightly and plain TensorFlow as one NumPy file, unless the file exists. Return its path."""
    path = race.folder / "images.npz"
    if not path.exists():
        from lowlevel_simclr.data import catalog

        images = catalog.load_dataset("cifar10", race.data_dir)
        path.parent.mkdir(parents=True, exist_ok=True)
        splits = {"train": images.train, "test": images.test}
        arrays = {f"{name}_{kind}": getattr(split, kind) for name, split in splits.items() for kind in split._fields}
        np.savez(path, **arrays)
    return path


def run_ours(race: Race, seed: int) -> dict[str, Any]:
    """Train with this package's train command, and return the results."""
    length = f"{race.steps}-steps" if race.steps else f"{race.seconds:g}s"
    out = race.folder / f"ours-{length}-seed{seed}"
    command = [sys.executable, "-m", "lowlevel_simclr.train", "--dataset", "cifar10", "--data-dir", race.data_dir]
    if race.steps:
        per_epoch = 50_000 // OURS["batch_size"]
        command += ["--steps", str(race.steps), "--warmup-epochs", str(0.1 * race.steps / per_epoch)]
        command += ["--crop-area", str(OURS["smallest_crop"]), "1", "--knn-every", "0"]
        flags = (*SHARED, "batch_size")
        command += [word for name in flags for word in ("--" + name.replace("_", "-"), str(OURS[name]))]
        command += ["--projection-widths", *map(str, OURS["projection_widths"])]
    else:
        command += ["--budget", f"{race.seconds:g}s", "--knn-every", "0"]
    subprocess.run([*command, "--seed", str(seed), "--out", str(out)], check=True)
    evaluation, config = (json.loads((out / name).read_text()) for name in ("evaluation.json", "config.json"))
    config["data"]["data_dir"] = None  # a path of this machine, which a stored result must not have
    rows = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    decided = out / "budget.json"
    last = json.loads(decided.read_text())["segments"][-1] if decided.exists() else None
    spent = last["elapsed"] + last["seconds_per_step"] * (last["last"] - last["first"]) if last else None
    return {
        "steps": rows[-1]["step"],
        "seconds": spent,
        "pairs": rows[-1]["step"] * config["train"]["batch_size"],
        "precision": config["train"]["precision"],
        "config": config,
        "knn": evaluation["knn"]["20"],
        "linear": evaluation["linear"],
    }


def run_other(race: Race, contestant: Contestant, seed: int, workers: int) -> dict[str, Any]:
    """Train with lightly or plain TensorFlow, and evaluate its representations h here. Return the results."""
    out = race.folder / "h.npz"
    request = _make_request(race, contestant, seed, workers) | {"out": str(out)}
    found = _run_program(race, contestant, request)
    found["pairs"] = found["steps"] * contestant.recipe["batch_size"]
    return {**found, "workers": workers, **measure_h(out, race.folder / "images.npz")}


def _make_request(race: Race, contestant: Contestant, seed: int, workers: int) -> dict[str, Any]:
    return {
        "recipe": contestant.recipe,
        "precision": contestant.precision,
        "workers": workers,
        "threads": os.cpu_count(),
        "seed": seed,
        "seconds": race.seconds,
        "steps": race.steps,
        "images": str(write_images(race)),
    }


def _run_program(race: Race, contestant: Contestant, request: dict[str, Any]) -> dict[str, Any]:
    """Run the program of a contestant, and return the JSON in the last line of its output."""
    if contestant.program == "lightly":
        command = [str(race.python), str(TORCH_PROGRAM)]
    else:
        command = [sys.executable, "-m", "bench.baselines.plain_race"]
    text = json.dumps(request | {"began": time.time()})
    done = subprocess.run([*command, text], stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def measure_h(h: Path, images: Path) -> dict[str, Any]:
    """Return the accuracies of 20-NN and of the linear probe for the representations in the file `h`."""
    from lowlevel_simclr.evaluation.knn import classify_by_neighbours
    from lowlevel_simclr.evaluation.linear_probe import fit_linear_probe

    found, labels = np.load(h), np.load(images)
    parts = found["train_h"], labels["train_labels"], found["test_h"], labels["test_labels"]
    return {
        "knn": classify_by_neighbours(*parts, [20])["20"],
        "linear": fit_linear_probe(*parts).accuracy,
    }


def find_best_workers(race: Race, contestant: Contestant, stored: dict[str, Any]) -> int:
    """Return the number of worker processes with which a contestant is fastest. Each speed is measured only once."""
    if contestant.program != "lightly":
        return 0
    speeds = stored["speeds"].setdefault(contestant.name, {})
    cores = os.cpu_count() or 1
    for workers in (0, cores, 2 * cores):
        if str(workers) not in speeds:
            request = _make_request(race, contestant, 0, workers) | {"measure": MEASURED, "seconds": 3600.0}
            speeds[str(workers)] = _run_program(race, contestant, request | {"steps": None})["pairs_per_second"]
    return int(max(speeds, key=lambda workers: speeds[workers]))


def run_all(race: Race, seeds: Sequence[int], path: Path, only: Sequence[str] = ()) -> dict[str, Any]:
    """Run every contestant with every seed that is not stored yet. Return all results."""
    stored: dict[str, Any] = {"benchmark": "race", "device": hardware.name_results_folder(), "speeds": {}, "runs": []}
    if path.exists():
        stored = json.loads(path.read_text())
    for seed in seeds:
        for contestant in list_contestants(race.steps):
            if any((row["name"], row["seed"]) == (contestant.name, seed) for row in stored["runs"]):
                continue
            if only and contestant.program not in only:
                continue
            if contestant.program == "ours":
                result = run_ours(race, seed)
            else:
                result = run_other(race, contestant, seed, find_best_workers(race, contestant, stored))
            row = {"name": contestant.name, "seed": seed, "precision": contestant.precision, **result}
            stored["runs"].append({**row, "time": time.strftime("%Y-%m-%dT%H:%M:%S%z")})
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(stored, indent=2) + "\n")
            print(f"{contestant.name}, seed {seed}: 20-NN {row['knn']:.3f}, linear {row['linear']:.3f}", flush=True)
    return stored


def format_summary(stored: dict[str, Any]) -> str:
    """Return one line of text for each contestant, with the medians over its seeds."""
    lines = []
    for name in dict.fromkeys(row["name"] for row in stored["runs"]):
        rows = [row for row in stored["runs"] if row["name"] == name]
        knn, linear, steps = (statistics.median(row[key] for row in rows) for key in ("knn", "linear", "steps"))
        lines.append(f"{name:<46}{len(rows)} seeds  {steps:>8.0f} steps  20-NN {knn:.1%}  linear {linear:.1%}")
    return "\n".join(lines)


def format_table(stored: dict[str, Any]) -> str:
    """Return the table of a page: the median of each contestant over its seeds, and the device."""
    lines = [
        "| program | seeds | steps | pairs | 20-NN | lowest and highest | linear probe |",
        "|---|---|---|---|---|---|---|",
    ]
    for name in dict.fromkeys(row["name"] for row in stored["runs"]):
        rows = [row for row in stored["runs"] if row["name"] == name]
        knn, linear, steps, pairs = (
            statistics.median(row[key] for row in rows) for key in ("knn", "linear", "steps", "pairs")
        )
        found = [row["knn"] for row in rows]
        spread = f"{min(found):.1%} to {max(found):.1%}"
        lines.append(f"| {name} | {len(rows)} | {steps:,.0f} | {pairs:,.0f} | {knn:.1%} | {spread} | {linear:.1%} |")
    days = sorted({row["time"][:10] for row in stored["runs"]})
    return "\n".join([*lines, "", f"{stored['device']}, {' to '.join(dict.fromkeys((days[0], days[-1])))}."])


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the race, print the medians, and write the table into the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data-dir", required=True, help="the folder with the files of CIFAR-10")
    parser.add_argument("--minutes", type=float, default=10, help="wall time of a run")
    parser.add_argument("--steps", type=int, help="the number of steps of a run, in place of a time")
    parser.add_argument("--seeds", type=int, default=3, help="number of runs of each contestant, with seeds from 0")
    parser.add_argument("--only", nargs="+", choices=("ours", "lightly", "plain"), default=(), help="these programs")
    parser.add_argument("--folder", type=Path, default=Path("runs/race"), help="the folder for the runs")
    parser.add_argument("--environment", type=Path, default=Path("runs/race/torch"), help="the environment with torch")
    parser.add_argument("--json", type=Path, help="the file to store the results in")
    parser.add_argument("--page", type=Path, help="a page with the markers of the table, bench:race_<length>")
    chosen = parser.parse_args(arguments)
    length = f"{chosen.steps}_steps" if chosen.steps else f"{chosen.minutes:g}m"
    path = chosen.json or harness.choose_result_path(f"race_{length}.json")
    needs_torch = not chosen.only or "lightly" in chosen.only
    python = build_environment(chosen.environment) if needs_torch else Path(sys.executable)
    race = Race(chosen.data_dir, chosen.folder, 60 * chosen.minutes, chosen.steps, python)
    stored = run_all(race, range(chosen.seeds), path, chosen.only)
    print(format_summary(stored))
    if chosen.page:
        markers.write_between(chosen.page, f"bench:race_{length}", format_table(stored))


if __name__ == "__main__":
    main()
