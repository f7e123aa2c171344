"""Writes the table of measurements in the README: python -m bench.report.readme_table [bench/results/DEVICE].

The program reads three stored results of one device: the time of whole training steps (step.json), the time of the loss
and its gradient (nt_xent.json), and the accuracy of a run (accuracy_cifar10-resnet50.json). All three were measured on
this device.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench.report import markers

DEVICE = markers.ROOT / "bench" / "results" / "AMD-EPYC-family-25-model-1-2-cores"
NAME = "bench:readme"
PAIRS = 4096  # the largest N at which all three implementations were measured
FORMS = {"native": "this package", "stock graph": "plain TensorFlow", "torch plain": "PyTorch"}
Result = dict[str, Any]


def format_table(step: Result, loss: Result, accuracy: Result) -> str:
    """Return the table, and below it a line with the device, the versions and the date of the measurements.

    Args:
        step: a result of bench_step.
        loss: a result of bench_nt_xent that includes N = PAIRS.
        accuracy: a result of bench.learning.accuracy.
    """
    rows = {row["name"]: row for row in loss["rows"] if row["problem"]["N"] == PAIRS}
    forms = [rows[name] for name in FORMS]
    rates = [step["forms"][name]["pairs_per_second"] for name in ("whole", "plain", "torch")]
    config, run = step["config"], accuracy["runs"][0]
    lines = ["| | " + " | ".join(FORMS.values()) + " |", "|---|---|---|---|"]
    lines += [
        _format_row(
            f"speed of training, {config['encoder']}, batch {config['batch_size']}: pairs a second", rates, "{:.0f}"
        ),
        _format_row(
            f"time of loss and gradient, N = {PAIRS} pairs: ms", [1e3 * row["median"] for row in forms], "{:,.0f}"
        ),
        _format_row(
            f"peak memory of loss and gradient, without their input z, N = {PAIRS} pairs: MB",
            [row["peak_memory"] / 1e6 for row in forms],
            "{:,.0f}",
        ),
        f"| accuracy on CIFAR-10 after {run['steps']:,} steps without labels: 20-NN, linear probe | "
        f"{100 * run['knn']['20']:.1f} %, {100 * run['linear']:.1f} % | not measured | not measured |",
    ]
    baselines = (
        f"{100 * run['knn_untrained']['20']:.1f} % with the untrained encoder and "
        f"{100 * run['knn_pixels']['20']:.1f} % with raw pixels"
    )
    lines += [
        "",
        f"{step['device']}, TensorFlow {step['versions']['tensorflow']}, PyTorch {step['versions']['torch']}, "
        f"{config['precision']}, {step['date']}. Speeds and times are medians. For comparison, 20-NN reaches "
        f"{baselines}.",
    ]
    return "\n".join(lines)


def _format_row(what: str, values: Sequence[float], form: str) -> str:
    return f"| {what} | " + " | ".join(form.format(value) for value in values) + " |"


def format_device(folder: Path) -> str:
    """Return the table of the results in this folder."""
    names = ("step", "nt_xent", "accuracy_cifar10-resnet50")
    return format_table(*(json.loads((folder / f"{name}.json").read_text(encoding="utf-8")) for name in names))


def main(arguments: Sequence[str] | None = None) -> None:
    """Write the table between its markers on the page, and print it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, nargs="?", default=DEVICE, help="the folder with the results of a device")
    parser.add_argument(
        "--page", type=Path, default=markers.ROOT / "README.md", help="the page to write the table into"
    )
    chosen = parser.parse_args(arguments)
    shown = format_device(chosen.folder)
    markers.write_between(chosen.page, NAME, shown)
    print(shown)


if __name__ == "__main__":
    main()
