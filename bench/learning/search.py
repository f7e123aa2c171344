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
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from bench import hardware, harness

TABLE = Path(__file__).with_name("SEARCH.md")
BASE: dict[str, Any] = {
    "image_size": 20,
    "batch_size": 256,
    "learning_rate": 4e-3,
    "temperature": 0.2,
    "crop_area": (0.08, 1.0),
}


class Trial(NamedTuple):
    """One trial.

    Attributes:
        ingredient: the part of the settings that this trial changes.
        value: the new value of this part, in words.
        settings: the settings that differ from BASE.
        network: the number of blocks in each stage of the encoder, and its width. None means those of ResNet-20.
    """

    ingredient: str
    value: str
    settings: dict[str, Any]
    network: tuple[tuple[int, ...], int] | None = None

    @property
    def name(self) -> str:
        """The name under which the result is stored."""
        return f"{self.ingredient}: {self.value}"


def list_trials() -> list[Trial]:
    """Return all trials, the base first."""
    return [
        Trial("base", "resnet20, 20 pixels, batch 256, AdamW 4e-3, tau 0.2, crop 0.08", {}),
        Trial("view sizes", "16", {"image_size": 16}),
        Trial("view sizes", "16 20 24", _grow("16:0.3", "20:0.4", "24:0.3")),
        Trial("widths", "3 stages of 1 block, width 32", {}, ((1, 1, 1), 32)),
        Trial("batch", "128, AdamW 3e-3", {"batch_size": 128, "learning_rate": 3e-3}),
        Trial("crop area", "0.2", {"crop_area": (0.2, 1.0)}),
        Trial("temperature", "0.1", {"temperature": 0.1}),
        Trial("temperature", "0.5", {"temperature": 0.5}),
        Trial("optimizer", "AdamW 8e-3", {"learning_rate": 8e-3}),
        Trial("optimizer", "AdamW 2e-3", {"learning_rate": 2e-3}),
        Trial("widths", "3 stages of 2 blocks, width 32", {}, ((2, 2, 2), 32)),
        Trial("widths", "3 stages of 1 block, width 64", {}, ((1, 1, 1), 64)),
        Trial("optimizer", "SGD 0.1", {"optimizer": "sgd", "learning_rate": 0.1}),
        Trial("optimizer", "SGD 0.3", {"optimizer": "sgd", "learning_rate": 0.3}),
        Trial("optimizer", "LARS 1.0", {"optimizer": "lars", "learning_rate": 1.0}),
        Trial("optimizer", "LARS 3.0", {"optimizer": "lars", "learning_rate": 3.0}),
        Trial("view sizes", "12 16 20", _grow("12:0.3", "16:0.4", "20:0.3")),
        Trial("view sizes", "16 24", _grow("16:0.6", "24:0.4")),
        Trial("view sizes", "24", {"image_size": 24}),
        Trial("batch", "512, AdamW 5e-3", {"batch_size": 512, "learning_rate": 5e-3}),
        Trial("batch", "1024, AdamW 6e-3", {"batch_size": 1024, "learning_rate": 6e-3}),
        Trial("crop area", "0.3", {"crop_area": (0.3, 1.0)}),
        Trial("projection head", "512 128", {"projection_widths": (512, 128)}),
        Trial("colours", "strength 0.5, grey 0.1", {"grey_probability": 0.1}),
    ]


def _grow(*sizes: str) -> dict[str, Any]:
    return {"image_sizes": sizes, "image_size": int(sizes[-1].partition(":")[0])}


def run_trial(trial: Trial, seconds: float, data_dir: str, seed: int) -> dict[str, Any]:
    """Run a trial in a process of its own, and return its result."""
    request: dict[str, Any] = {"settings": {**BASE, **trial.settings}}
    request |= {"seconds": seconds, "data_dir": data_dir, "seed": seed}
    if trial.network:
        request["network"] = trial.network
    command = [sys.executable, "-m", "bench.learning.trial", json.dumps(request)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


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
        "CIFAR-10 (JPEG copy). The test split is never used. The last four columns are accuracies. For `20-NN`, images",
        "are scaled to the size of the last views. For `at 32 pixels`, they are scaled to 32 pixels. For `EMA`, the",
        "encoder has the moving average of the weights (decay 0.98). For `new statistics`, BatchNorm has the",
        "statistics of images without augmentation.",
    ]
    for seconds in sorted({row["seconds"] for row in stored["trials"]}):
        rows = [row for row in stored["trials"] if row["seconds"] == seconds]
        lines += ["", f"## {seconds:g} s of processor time", ""]
        lines += ["| ingredient | value | seed | steps | pairs | 20-NN | at 32 pixels | EMA | new statistics |"]
        lines += ["|---|---|---|---|---|---|---|---|---|"]
        lines += [_format_row(row) for row in rows]
    return "\n".join(lines) + "\n"


def _format_row(row: dict[str, Any]) -> str:
    shown = [row[name] for name in ("knn", "knn_whole", "knn_ema", "knn_renewed_statistics")]
    cells = [*row["name"].split(": ", 1), row["seed"], f"{row['steps']:,}", f"{row['pairs']:,}"]
    return "| " + " | ".join(map(str, [*cells, *(f"{value:.1%}" for value in shown)])) + " |"


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the trials that are not stored yet, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data-dir", help="the folder with the files of CIFAR-10")
    parser.add_argument("--seconds", type=float, default=600, help="processor time of the steps of a trial")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0], help="one trial of each kind for each seed")
    parser.add_argument("--only", nargs="+", help="run only the trials of these ingredients")
    parser.add_argument("--json", type=Path, help="the file to store the results in")
    parser.add_argument("--table", action="store_true", help="only write SEARCH.md")
    chosen = parser.parse_args(arguments)
    path = chosen.json or harness.choose_result_path("search.json")
    stored = read_stored(path)
    trials = (
        [] if chosen.table else [each for each in list_trials() if not chosen.only or each.ingredient in chosen.only]
    )
    for trial, seed in [(trial, seed) for seed in chosen.seeds for trial in trials]:
        if is_stored(stored, trial, chosen.seconds, seed):
            continue
        result = run_trial(trial, chosen.seconds, chosen.data_dir, seed)
        stored["trials"].append({"name": trial.name, "seconds": chosen.seconds, "seed": seed, **result})
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(stored, indent=2) + "\n")
        print(trial.name, f"{result['knn']:.3f}", flush=True)
    if not stored["trials"]:
        raise SystemExit(f"search: {path} holds no trials. Run without --table first.")
    TABLE.write_text(format_table(stored))
    print(TABLE)


if __name__ == "__main__":
    main()
