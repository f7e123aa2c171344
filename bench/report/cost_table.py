"""Writes a table of training times into docs/choosing.md: python -m bench.report.cost_table.

Each line of the table comes from one stored result: a result of bench_step, which times whole training steps, or of a
training run. Such a result has the number of pairs per second, where a pair is the two views of one image. From this
number, the program computes the time of 100 epochs of 50,000 images. The table has only encoders and devices that were
measured.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from bench.report import markers, step_page
from lowlevel_simclr.config import presets

RESULTS = markers.ROOT / "bench" / "results"
NAME = "bench:costs"
IMAGES, EPOCHS = 50_000, 100
ZEN3, ZEN4 = "AMD-EPYC-family-25-model-1-2-cores", "AMD-EPYC-family-25-model-17-2-cores"
XEON, H200 = "Intel-Xeon-family-6-model-207-2-cores", "NVIDIA-H200"
STORED = (
    f"{ZEN4}/accuracy_cifar10-resnet20.json",
    f"{ZEN3}/step_resnet18.json",
    f"{ZEN3}/step.json",
    f"{XEON}/step.json",
    f"{ZEN3}/first_steps_cifar10-resnet50.json",
    f"{H200}/step_resnet18_cifar.json",
    f"{H200}/step.json",
    f"{H200}/step_batch1024.json",
)


class Cost(NamedTuple):
    """The settings of a training run, the device that it ran on, and its speed in pairs a second."""

    encoder: str
    stem: str
    image_size: int
    batch_size: int
    device: str
    pairs_per_second: float


def read_cost(stored: dict[str, Any]) -> Cost:
    """Return the cost from a result of bench_step, of a whole run of a preset, or of the first steps of such a run."""
    if stored.get("benchmark") == "step":
        config = stored["config"]
        settings = (config["encoder"], config["stem"], config["image_size"], config["batch_size"])
        return Cost(*settings, stored["device"], stored["whole_pairs_per_second"])
    preset = presets.load_preset(stored["command"].split()[3])
    if stored.get("benchmark") == "first_steps":
        settings = (stored["encoder"], stored["stem"], preset.model.image_size, stored["batch_size"])
        return Cost(*settings, stored["device"], stored["batch_size"] / stored["seconds_per_step"])
    settings = (preset.model.encoder, preset.model.stem, preset.model.image_size, preset.train.batch_size)
    return Cost(*settings, stored["device"], stored["runs"][0]["pairs_per_second"])


def format_costs(costs: Sequence[Cost]) -> str:
    """Return a Markdown table with one line for each cost."""
    lines = [
        "| encoder | stem | view size | batch size | device | pairs a second | "
        f"time of {EPOCHS} epochs of {IMAGES:,} images |",
        "|---|---|---|---|---|---|---|",
    ]
    for cost in costs:
        device = step_page.shorten_device(cost.device)
        rate, time = f"{cost.pairs_per_second:,.3g}", _format_time(EPOCHS * IMAGES / cost.pairs_per_second)
        rate = f"{float(rate.replace(',', '')):,.10g}"
        side = f"{cost.image_size} pixels"
        lines.append(f"| {cost.encoder} | {cost.stem} | {side} | {cost.batch_size} | {device} | {rate} | {time} |")
    return "\n".join(lines)


def _format_time(seconds: float) -> str:
    """Return the time as text. The unit is the largest one in which the number is at least 1.5."""
    for unit, name in ((86_400, "days"), (3_600, "hours"), (60, "minutes")):
        if seconds >= 1.5 * unit:
            return f"{seconds / unit:.2g} {name}" if seconds / unit < 100 else f"{seconds / unit:,.0f} {name}"
    return f"{seconds:.0f} seconds"


def format_stored() -> str:
    """Return the table of the stored results that STORED lists."""
    return format_costs([read_cost(json.loads((RESULTS / name).read_text(encoding="utf-8"))) for name in STORED])


def main(arguments: Sequence[str] | None = None) -> None:
    """Write the table into its page, and print it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--page", type=Path, default=markers.ROOT / "docs" / "choosing.md")
    chosen = parser.parse_args(arguments)
    shown = format_stored()
    markers.write_between(chosen.page, NAME, shown)
    print(shown)


if __name__ == "__main__":
    main()
