"""Searches the settings with the best accuracy in a given time: python -m bench.learning.search --data-dir DIR.

Each trial changes one part (ingredient) of the base settings, and trains for the same processor time (`trial.py`). The
accuracy of a trial is that of a 20-nearest-neighbour classifier (20-NN) on 5,000 held-out images of CIFAR-10's train
split. The test split is never used. After each trial, its result is stored in bench/results/<device>/search.json. A
stored trial is not run again. At the end the program writes bench/learning/SEARCH.md. With --table it only writes this
page.
"""

from __future__ import annotations

import argparse
import json
import os
import queue
import subprocess
import sys
import threading
from collections.abc import Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

from bench import hardware, harness

TABLE = Path(__file__).with_name("SEARCH.md")
# The base settings of each round of the search. A round begins with what was better in the rounds before it.
BASE: dict[str, Any] = {
    "image_size": 20,
    "batch_size": 256,
    "learning_rate": 4e-3,
    "temperature": 0.2,
    "crop_area": (0.08, 1.0),
}
SECOND = {**BASE, "image_size": 16}
THIRD = {**SECOND, "temperature": 0.1, "crop_area": (0.2, 1.0)}
# The encoder of the second and the third round is resnet8x4: three stages of one block, width 64. The first layer has
# stride 2.
WIDE = ((1, 1, 1), 64, "half")


Network = tuple[tuple[int, ...], int, str]


class Trial(NamedTuple):
    """One trial.

    Attributes:
        ingredient: the part of the settings that this trial changes.
        value: the new value of this part, in words.
        settings: all settings.
        network: the number of blocks in each stage of the encoder, its width, and its stem. None means those of
            ResNet-20.
    """

    ingredient: str
    value: str
    settings: dict[str, Any]
    network: Network | None = None

    @property
    def name(self) -> str:
        """The name under which the result is stored."""
        return f"{self.ingredient}: {self.value}"


def list_trials() -> list[Trial]:
    """Return all trials."""
    rounds: list[tuple[str, dict[str, Any], Network | None, list[Change]]] = [
        ("", BASE, None, _list_first_round()),
        ("second round, ", SECOND, WIDE, _list_second_round()),
        ("third round, ", THIRD, WIDE, _list_third_round()),
    ]
    return [
        Trial(title + ingredient, value, {**base, **settings}, network or usual)
        for title, base, usual, changes in rounds
        for ingredient, value, settings, network in changes
    ]


# What a trial changes: the ingredient, its value in words, the settings and the network (None: the usual one).
Change = tuple[str, str, dict[str, Any], Network | None]


def _list_first_round() -> list[Change]:
    """Return changes of the preset for small photographs, with the encoder resnet20."""
    return [
        ("base", "resnet20, 20 pixels, batch 256, AdamW 4e-3, tau 0.2, crop 0.08", {}, None),
        ("crop area", "0.2", {"crop_area": (0.2, 1.0)}, None),
        ("network", "3 x 1 block, width 32", {}, ((1, 1, 1), 32, "cifar")),
        ("network", "3 x 1 block, width 64, stride 2, 16 pixels", {"image_size": 16}, ((1, 1, 1), 64, "half")),
        ("network", "4 x 1 block, width 64, stride 2, 16 pixels", {"image_size": 16}, ((1, 1, 1, 1), 64, "half")),
        ("network", "3 x 1 block, width 64, stride 2, 24 pixels", {"image_size": 24}, ((1, 1, 1), 64, "half")),
        ("network", "4 x 1 block, width 32", {}, ((1, 1, 1, 1), 32, "cifar")),
        ("network", "3 x 2 blocks, width 64, stride 2, 16 pixels", {"image_size": 16}, ((2, 2, 2), 64, "half")),
        ("network", "3 x 1 block, width 64", {}, ((1, 1, 1), 64, "cifar")),
        ("view sizes", "16", {"image_size": 16}, None),
        ("view sizes", "16 20 24", _grow("16:0.4", "20:0.3", "24:0.3"), None),
    ]


def _list_second_round() -> list[Change]:
    """Return changes of the best network of the first round."""
    return [
        ("crop area", "0.2", {"crop_area": (0.2, 1.0)}, None),
        ("temperature", "0.1", {"temperature": 0.1}, None),
        ("network", "width 96", {}, ((1, 1, 1), 96, "half")),
        ("network", "width 48", {}, ((1, 1, 1), 48, "half")),
        ("optimizer", "AdamW 8e-3", {"learning_rate": 8e-3}, None),
        ("optimizer", "AdamW 2e-3", {"learning_rate": 2e-3}, None),
        ("batch", "128, AdamW 3e-3", {"batch_size": 128, "learning_rate": 3e-3}, None),
        ("batch", "512, AdamW 6e-3", {"batch_size": 512, "learning_rate": 6e-3}, None),
        ("projection head", "BatchNorm in the hidden layer", {"projection_batch_norm": "hidden"}, None),
        ("projection head", "512 128", {"projection_widths": (512, 128)}, None),
        ("optimizer", "LARS 1.0", {"optimizer": "lars", "learning_rate": 1.0}, None),
        ("optimizer", "SGD 0.3", {"optimizer": "sgd", "learning_rate": 0.3}, None),
        ("network", "1, 1, 2 blocks", {}, ((1, 1, 2), 64, "half")),
        ("view sizes", "20", {"image_size": 20}, None),
        ("view sizes", "12 16", _grow("12:0.4", "16:0.6"), None),
        ("colours", "strength 0.5, grey 0.1", {"grey_probability": 0.1}, None),
    ]


def _list_third_round() -> list[Change]:
    """Return changes of what the second round combines: temperature 0.1 and crops from 0.2."""
    return [
        ("base", "tau 0.1, crop 0.2", {}, None),
        ("view sizes", "16 20", _grow("16:0.6", "20:0.4"), None),
        ("network", "width 48", {}, ((1, 1, 1), 48, "half")),
        ("view sizes", "20", {"image_size": 20}, None),
        ("network", "width 96", {}, ((1, 1, 1), 96, "half")),
    ]


def _grow(*sizes: str) -> dict[str, Any]:
    return {"image_sizes": sizes, "image_size": int(sizes[-1].partition(":")[0])}


def run_trial(
    trial: Trial, seconds: float, data_dir: str, seed: int, cores: Collection[int] | None = None
) -> dict[str, Any]:
    """Run a trial in a process of its own, on the given cores or on all, and return its result."""
    request: dict[str, Any] = {"settings": trial.settings}
    request |= {"seconds": seconds, "data_dir": data_dir, "seed": seed}
    if trial.network:
        request["network"] = trial.network
    if cores:
        request["cores"] = sorted(cores)
    command = [sys.executable, "-m", "bench.learning.trial", json.dumps(request)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def run_trials(
    trials: Sequence[tuple[Trial, int]], seconds: float, data_dir: str, path: Path, at_once: int
) -> dict[str, Any]:
    """Run the trials with their seeds that are not stored yet. Store each result, and return all.

    Args:
        trials: pairs of a trial and a seed.
        seconds: the processor time of the steps of a trial.
        data_dir: the folder with the files of CIFAR-10.
        path: the file with the results.
        at_once: number of trials that run at the same time. With more than one, each trial has one core for itself.
    """
    stored, lock = read_stored(path), threading.Lock()
    free: queue.Queue[int] = queue.Queue()
    for core in list_cores()[:at_once]:
        free.put(core)

    def work(trial: Trial, seed: int) -> None:
        core = free.get()
        try:
            result = run_trial(trial, seconds, data_dir, seed, [core] if at_once > 1 else None)
        finally:
            free.put(core)
        with lock:
            stored["trials"].append({"name": trial.name, "seconds": seconds, "seed": seed, **result})
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(stored, indent=2) + "\n")
            print(trial.name, f"{result['knn']:.3f}", flush=True)

    with ThreadPoolExecutor(at_once) as pool:
        missing = [each for each in trials if not is_stored(stored, each[0], seconds, each[1])]
        for done in [pool.submit(work, *each) for each in missing]:
            done.result()
    return stored


def list_cores() -> list[int]:
    """Return the numbers of the cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def read_stored(path: Path) -> dict[str, Any]:
    """Return the stored results, or a record without results if nothing is stored."""
    if path.exists():
        return json.loads(path.read_text())
    return {"benchmark": "search", "device": hardware.name_results_folder(), "trials": []}


def is_stored(stored: dict[str, Any], trial: Trial, seconds: float, seed: int) -> bool:
    """Return whether a result of this trial with this time and seed is stored."""
    wanted = trial.name, seconds, seed
    return any((row["name"], row["seconds"], row["seed"]) == wanted for row in stored["trials"])


def format_table(stored: dict[str, Any]) -> str:
    """Return the page SEARCH.md: one table for each processor time."""
    lines = [
        "# Search for the best settings in a given time",
        "",
        "`python -m bench.learning.search --table` writes this page from "
        f"`bench/results/{stored['device']}/search.json`.",
        "Each trial changes one part (ingredient) of the base settings, and trains for the same processor time. The",
        "accuracy is that of a 20-nearest-neighbour classifier (20-NN) on 5,000 held-out images of the train split of",
        "CIFAR-10 (JPEG copy). The test split is never used. The last five columns are accuracies. For `20-NN`, images",
        "are scaled to the size of the last views. For `at 32 pixels`, they are scaled to 32 pixels. For `EMA`, the",
        "encoder has the moving average of the weights (decay 0.98). For `new statistics`, BatchNorm has the",
        "statistics of images without augmentation. For `two stages`, h also has the mean of the feature map of the",
        "stage before the last.",
        "",
        "The second round begins with the encoder `resnet8x4`, the stem `half` and views of 16 pixels. The third round",
        "also has temperature 0.1 and crops of at least 0.2 of the image. With `--at-once 2`, two trials run at the",
        "same time, each on a core of its own.",
    ]
    for seconds in sorted({row["seconds"] for row in stored["trials"]}):
        rows = [row for row in stored["trials"] if row["seconds"] == seconds]
        lines += ["", f"## {seconds:g} s of processor time", ""]
        lines += [
            "| ingredient | value | seed | steps | pairs | 20-NN | at 32 pixels | EMA | new statistics | two stages |"
        ]
        lines += ["|---|---|---|---|---|---|---|---|---|---|"]
        lines += [_format_row(row) for row in rows]
    return "\n".join(lines) + "\n"


def _format_row(row: dict[str, Any]) -> str:
    shown = [row[name] for name in ("knn", "knn_whole", "knn_ema", "knn_renewed_statistics", "knn_two_stages")]
    cells = [*row["name"].split(": ", 1), row["seed"], f"{row['steps']:,}", f"{row['pairs']:,}"]
    return "| " + " | ".join(map(str, [*cells, *(f"{value:.1%}" for value in shown)])) + " |"


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the trials that are not stored yet, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data-dir", help="the folder with the files of CIFAR-10")
    parser.add_argument("--seconds", type=float, default=600, help="processor time of the steps of a trial")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0], help="one trial of each kind for each seed")
    parser.add_argument("--only", nargs="+", help="run only the trials of these ingredients")
    parser.add_argument("--at-once", type=int, default=1, help="trials that run at the same time, each on one core")
    parser.add_argument("--json", type=Path, help="the file to store the results in")
    parser.add_argument("--table", action="store_true", help="only write SEARCH.md")
    chosen = parser.parse_args(arguments)
    path = chosen.json or harness.choose_result_path("search.json")
    wanted = [each for each in list_trials() if not chosen.only or each.ingredient in chosen.only]
    pairs = [] if chosen.table else [(trial, seed) for seed in chosen.seeds for trial in wanted]
    stored = run_trials(pairs, chosen.seconds, chosen.data_dir, path, chosen.at_once)
    if not stored["trials"]:
        raise SystemExit(f"search: {path} holds no trials. Run without --table first.")
    TABLE.write_text(format_table(stored))
    print(TABLE)


if __name__ == "__main__":
    main()
