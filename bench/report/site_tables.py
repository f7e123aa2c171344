"""Writes all tables of measurements on the site from stored results: python -m bench.report.site_tables.

`TABLES` lists the results for each table. `STEPS` lists the results for the page about training steps. To show a
further result, add its name to `TABLES` or `STEPS`. A test fails if a page differs from what this program writes.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

from bench import harness
from bench.report import (
    cost_table,
    evaluation_table,
    faults_table,
    gpu_page,
    images_table,
    markers,
    readme_table,
    step_page,
    tables,
)

RESULTS = markers.ROOT / "bench" / "results"
ZEN3, ZEN4 = "AMD-EPYC-family-25-model-1-2-cores", "AMD-EPYC-family-25-model-17-2-cores"
XEON, H200 = "Intel-Xeon-family-6-model-207-2-cores", "NVIDIA-H200"
TABLES = {
    "accuracy_shapes": [f"{ZEN4}/accuracy_shapes"],
    "accuracy_cifar10-resnet20": [f"{ZEN4}/accuracy_cifar10-resnet20"],
    "accuracy_cifar10-resnet50": [f"{ZEN3}/accuracy_cifar10-resnet50"],
    "accuracy_day29": [f"{ZEN3}/accuracy_day29"],
    "first_steps_cifar10-resnet50": [f"{ZEN3}/first_steps_cifar10-resnet50"],
    "mixed_aspects": [f"{ZEN4}/mixed_aspects"],
    "nt_xent": [f"{ZEN3}/nt_xent", f"{ZEN3}/nt_xent_large"],
    "nt_xent_shapes": [f"{ZEN3}/nt_xent_shapes"],
    "make_views": [f"{ZEN4}/make_views"],
    "convolution": [f"{ZEN3}/convolution"],
    "step": [
        f"{ZEN3}/step",
        f"{ZEN3}/step_resnet18",
        f"{XEON}/step",
        f"{XEON}/step_bfloat16_pair",
        f"{XEON}/step_bfloat16",
    ],
}
STEPS = [
    *(f"{ZEN3}/{name}" for name in ("step", "step_resnet18", "step_batch64")),
    *(f"{XEON}/{name}" for name in ("step", "step_bfloat16_pair", "step_bfloat16")),
    f"{ZEN4}/step",
    *(f"{H200}/{name}" for name in ("step", "step_batch1024", "step_resnet18_cifar")),
    f"{ZEN3}/step_sizes",
    *(f"{XEON}/{name}" for name in ("step_sizes", "step_sizes_resnet18")),
    *(f"{device}/startup" for device in (ZEN3, XEON, ZEN4)),
]


def read_results(names: Sequence[str]) -> list[dict]:
    """Return the stored results with these names. A name is DEVICE/NAME, without .json."""
    return [json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8")) for name in names]


def list_parts() -> dict[str, str]:
    """Return a dict with every table. The key is the name of the two markers that enclose the table on its page."""
    parts = {}
    for name, names in TABLES.items():
        results = read_results(names)
        rows = [harness.Row(**row) for each in results for row in each.get("rows", [])]
        parts[f"bench:{name}"] = tables.format_results(results, rows)
    parts[cost_table.NAME] = cost_table.format_stored()
    parts[readme_table.NAME] = readme_table.format_device(readme_table.DEVICE)
    parts[faults_table.NAME] = faults_table.format_stored()
    parts |= evaluation_table.format_stored()
    parts[images_table.NAME] = images_table.format_stored()
    parts["gpu_report"] = gpu_page.format_page(RESULTS / H200)
    return parts


def format_steps() -> str:
    """Return the complete page about training steps (docs/step.md)."""
    return step_page.format_page(read_results(STEPS))


def main(arguments: Sequence[str] | None = None) -> None:
    """Write the tables into their pages, and write the page about training steps."""
    argparse.ArgumentParser(description=__doc__.splitlines()[0]).parse_args(arguments)
    for name, text in list_parts().items():
        markers.write_between(markers.find_page(name, markers.list_pages()), name, text)
    Path(step_page.STEP).write_text(format_steps(), encoding="utf-8")


if __name__ == "__main__":
    main()
