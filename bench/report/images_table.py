"""Makes the tables about the start with many photographs and about reading them (docs/data-sets.md).

They come from a stored result of bench_images.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from bench.report import markers

NAME = "bench:images"
STORED = markers.ROOT / "bench" / "results" / "AMD-EPYC-family-25-model-17-2-cores" / "images.json"
STARTS = {
    "before: first": "first start, with an older version that has no index",
    "first": "first start",
    "second": "second start",
    "first with --cache": "first start with `--cache`",
    "second with --cache": "second start with `--cache`",
}


def format_stored() -> str:
    """Return the tables of the stored result."""
    return format_tables(json.loads(STORED.read_text(encoding="utf-8")))


def format_tables(result: Mapping[str, Any]) -> str:
    """Return a Markdown table with the times of the starts, one with the rates of reading, and a sentence below."""
    starts = [
        f"| {STARTS[name]} | {times['seconds']:.1f} | {times['processor seconds']:.1f} |"
        for name, times in result["starts"].items()
    ]
    rates = dict(result["images per second of one core"])
    if "lightly" in result:
        rates["decoded by lightly's loader"] = result["lightly"]["images per second"]["decoded"]
    return "\n".join(
        [
            f"| {result['files']:,} photographs of 500 x 375 pixels | wall seconds | processor seconds |",
            "|---|---:|---:|",
            *starts,
            "",
            "| way of reading | photographs per second of processor time |",
            "|---|---:|",
            *(f"| {name} | {rate:,.0f} |" for name, rate in rates.items()),
            "",
            f"Measured on {result['device']}, {result['date']} (`python -m bench.data.bench_images`). The images are "
            f"stored with {result['side']} pixels a side.",
        ]
    )
