"""Writes the results of a GPU into docs/gpu.md: python -m bench.report.gpu_page bench/results/DEVICE.

A launcher is the C function that starts the CUDA kernels of an op. The program reads these files of the folder:

- launchers.json: the times of each CUDA launcher, for this version of the package and for an older one. In every turn,
  each version was timed once. The file also has the bandwidth of each launcher and of a plain copy. The page shows the
  speed-up over the older version, and the launcher's bandwidth as a share of the copy's bandwidth.
- launchers_lars_update.json, if it exists: the same numbers for the launcher of the LARS update.
- nt_xent.json: the time of the loss NT-Xent, called through TensorFlow.
- nt_xent_stock_tf32.json, if it exists: the time of NT-Xent in stock TensorFlow ops that may round to TF32, a shorter
  float format of GPUs.
- make_views.json, if it exists: the time of the views, called through TensorFlow.
- step_updates.json, if it exists: the time of whole training steps with different LARS updates.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from bench.report import markers

ROOT = Path(__file__).parents[2]
Row = dict[str, Any]


def read_milliseconds(row: Row) -> float:
    """Return the median time of a launcher in ms. For NT-Xent, return the sum of the medians of its two passes."""
    return row["median_ms"] if "median_ms" in row else row["forward"]["median_ms"] + row["backward"]["median_ms"]


def describe_launch(row: Row) -> str:
    """Return a text with the sizes and types with which a row of a launcher was measured."""
    if row["what"] == "nt_xent":
        return f"NT-Xent, both passes, N = {row['pairs']}, d = 128, {row['dtype']}"
    if row["what"] == "make_views":
        views, sides = 2 * row["count"], f"{row['side']} -> {row['size']}"
        return f"{views} views, {sides} pixels, {row['dtype']}, {row['recipe']}"
    return f"LARS, {row['count']} floats"


def format_launchers(result: Row) -> list[str]:
    """Return one table line for each op and size: time, speed-up over the older version, share of copy bandwidth."""
    problems: dict[str, dict[str, list[Row]]] = {}
    for row in result["rows"]:
        problems.setdefault(describe_launch(row), {}).setdefault(row["library"], []).append(row)
    lines = []
    for problem, by_library in problems.items():
        new, old = ([read_milliseconds(row) for row in by_library.get(name, ())] for name in ("new", "old"))
        ratios = sorted(before / after for before, after in zip(old, new))
        against = f"{statistics.median(ratios):.2f}x ({ratios[0]:.2f}-{ratios[-1]:.2f})" if ratios else ""
        rates = [row["gb_s"] / result["ceilings"]["copy_gb_s"] for row in by_library["new"] if "gb_s" in row]
        share = f"{statistics.median(rates):.0%}" if rates else ""
        lines.append(f"| {problem} | {statistics.median(new):.3f} | {against} | {share} |")
    return lines


def describe_loss(problem: Row) -> str:
    """Return a text with the sizes and the type for which NT-Xent was measured."""
    return f"N = {problem['N']}, d = {problem['d']}, {problem['dtype']}"


def describe_views(problem: Row) -> str:
    """Return a text with the sizes and the kind of views for which make_views was measured."""
    sides = f"{problem['height']} x {problem['width']} -> {problem['size']}"
    return f"{2 * problem['images']} views, {sides} pixels, {'blur half' if problem['blur'] else 'default'}"


def format_ops(result: Row, note: str, describe: Callable[[Row], str] = describe_loss) -> list[str]:
    """Return one table line for each alternative, with its time divided by the time of the native op under XLA.

    An alternative is one way to compute the op, for example the native op or the stock formula.

    Args:
        result: a stored result of an op.
        note: a text to write after the name of each alternative.
        describe: a function that returns a text with the sizes of a row.
    """
    rows = [row for row in result["rows"] if row["minimum"] is not None]
    native = {str(row["problem"]): row["median"] for row in rows if row["name"] == "native jit"}
    lines = []
    for row in rows:
        problem = describe(row["problem"])
        times = f"{1e3 * row['median']:.3f} ({1e3 * row['p10']:.3f}-{1e3 * row['p90']:.3f})"
        of_native = native.get(str(row["problem"]))
        ratio = f"{row['median'] / of_native:.2f}x" if of_native else ""
        lines.append(f"| {problem} | {row['name']}{note} | {times} | {ratio} |")
    return lines


def format_updates(result: Row) -> list[str]:
    """Return one table line for each LARS update: the time of a step, and this time relative to the first line."""
    first = next(iter(result["forms"].values()))["median_seconds"]
    lines = []
    for name, form in result["forms"].items():
        median, low, high = (1e3 * form[key] for key in ("median_seconds", "p10_seconds", "p90_seconds"))
        lines.append(f"| {name} | {median:.2f} ({low:.2f}-{high:.2f}) | {1e-3 * median / first:.2f}x |")
    return lines


def format_page(folder: Path) -> str:
    """Return the tables of the results in this folder, as Markdown."""

    def read_result(name: str) -> Row:
        return json.loads((folder / name).read_text(encoding="utf-8"))

    first = read_result("launchers.json")
    lines = [
        f"{first['device']}, {first['date']}. A copy in GPU memory reaches {first['ceilings']['copy_gb_s']:,.0f} GB/s "
        f"(read plus written). A bfloat16 matrix product reaches {first['ceilings']['gemm_tflop_s']:.0f} TFLOP/s.",
        "",
        "| launcher, called without TensorFlow | ms | speed-up over the older version | share of the copy bandwidth |",
        "|---|---|---|---|",
        *format_launchers(first),
        *(
            format_launchers(read_result("launchers_lars_update.json"))
            if (folder / "launchers_lars_update.json").exists()
            else ()
        ),
        "",
        "| NT-Xent, loss and gradient, through TensorFlow | implementation | median ms (p10-p90) | "
        "time relative to native under XLA |",
        "|---|---|---|---|",
        *format_ops(read_result("nt_xent.json"), ""),
    ]
    if (folder / "nt_xent_stock_tf32.json").exists():
        lines += format_ops(read_result("nt_xent_stock_tf32.json"), ", TF32")
    if (folder / "make_views.json").exists():
        lines += [
            "",
            "| views, through TensorFlow | implementation | median ms (p10-p90) | time relative to native under XLA |",
            "|---|---|---|---|",
        ]
        lines += format_ops(read_result("make_views.json"), "", describe_views)
    if (folder / "step_updates.json").exists():
        lines += [
            "",
            "| LARS update in a whole step of ResNet-50, batch 256 | median ms (p10-p90) | "
            "time relative to the first row |",
            "|---|---|---|",
        ]
        lines += format_updates(read_result("step_updates.json"))
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> None:
    """Read the results, write the tables into the page and print them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="the folder with the results of a device")
    parser.add_argument("--page", type=Path, default=ROOT / "docs" / "gpu.md", help="the page to write the tables into")
    chosen = parser.parse_args(arguments)
    shown = format_page(chosen.folder)
    markers.write_between(chosen.page, "gpu_report", shown)
    print(shown)


if __name__ == "__main__":
    main()
