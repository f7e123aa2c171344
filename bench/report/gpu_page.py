"""Writes what GPUs measured into docs/gpu.md: python -m bench.report.gpu_page bench/results/DEVICE.

Of launchers.json, what the launchers take and how many times less than an older version, turn by turn, and what share
of the card's copy bandwidth; of nt_xent.json, nt_xent_stock_tf32.json where the stock forms may round to TF32, and
make_views.json, the ops through TensorFlow; of step_updates.json, whole steps by their update.
"""

from __future__ import annotations

import argparse
import json
import re
import statistics
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
Row = dict[str, Any]


def milliseconds(row: Row) -> float:
    """Of a launcher's row: the median, of both passes where it has two."""
    return row["median_ms"] if "median_ms" in row else row["forward"]["median_ms"] + row["backward"]["median_ms"]


def label(row: Row) -> str:
    """The problem in words."""
    if row["what"] == "nt_xent":
        return f"NT-Xent, both passes, N = {row['pairs']}, d = 128, {row['dtype']}"
    if row["what"] == "make_views":
        views, sides = 2 * row["count"], f"{row['side']} -> {row['size']}"
        return f"{views} views, {sides} pixels, {row['dtype']}, {row['recipe']}"
    return f"LARS, {row['count']} floats"


def launchers(result: Row) -> list[str]:
    """A line for each problem."""
    problems: dict[str, dict[str, list[Row]]] = {}
    for row in result["rows"]:
        problems.setdefault(label(row), {}).setdefault(row["library"], []).append(row)
    lines = []
    for problem, by_library in problems.items():
        new, old = ([milliseconds(row) for row in by_library.get(name, ())] for name in ("new", "old"))
        ratios = sorted(before / after for before, after in zip(old, new))
        against = f"{statistics.median(ratios):.2f}x ({ratios[0]:.2f}-{ratios[-1]:.2f})" if ratios else ""
        rates = [row["gb_s"] / result["ceilings"]["copy_gb_s"] for row in by_library["new"] if "gb_s" in row]
        share = f"{statistics.median(rates):.0%}" if rates else ""
        lines.append(f"| {problem} | {statistics.median(new):.3f} | {against} | {share} |")
    return lines


def loss_of(problem: Row) -> str:
    """NT-Xent's problem in words."""
    return f"N = {problem['N']}, d = {problem['d']}, {problem['dtype']}"


def views_of(problem: Row) -> str:
    """The views' problem in words."""
    sides = f"{problem['height']} x {problem['width']} -> {problem['size']}"
    return f"{2 * problem['images']} views, {sides} pixels, {'blur half' if problem['blur'] else 'default'}"


def through_tensorflow(result: Row, note: str, words: Callable[[Row], str] = loss_of) -> list[str]:
    """A line for each form, with how many times the native one's time under jit it takes."""
    rows = [row for row in result["rows"] if row["minimum"] is not None]
    native = {str(row["problem"]): row["median"] for row in rows if row["name"] == "native jit"}
    lines = []
    for row in rows:
        problem = words(row["problem"])
        times = f"{1e3 * row['median']:.3f} ({1e3 * row['p10']:.3f}-{1e3 * row['p90']:.3f})"
        of_native = native.get(str(row["problem"]))
        ratio = f"{row['median'] / of_native:.2f}x" if of_native else ""
        lines.append(f"| {problem} | {row['name']}{note} | {times} | {ratio} |")
    return lines


def updates(result: Row) -> list[str]:
    """A line for each way to update, with how many times the first one's time a step takes."""
    first = next(iter(result["forms"].values()))["median_seconds"]
    lines = []
    for name, form in result["forms"].items():
        median, low, high = (1e3 * form[key] for key in ("median_seconds", "p10_seconds", "p90_seconds"))
        lines.append(f"| {name} | {median:.2f} ({low:.2f}-{high:.2f}) | {1e-3 * median / first:.2f}x |")
    return lines


def page(folder: Path) -> str:
    """Markdown."""

    def read(name: str) -> Row:
        return json.loads((folder / name).read_text(encoding="utf-8"))

    first = read("launchers.json")
    lines = [
        f"{first['device']}, {first['date']}; its copy moves {first['ceilings']['copy_gb_s']:,.0f} GB/s, its bfloat16 "
        f"product makes {first['ceilings']['gemm_tflop_s']:.0f} TFLOP/s.",
        "",
        "| launchers alone | ms | times the version before | of the copy |",
        "|---|---|---|---|",
        *launchers(first),
        *(launchers(read("launchers_lars_update.json")) if (folder / "launchers_lars_update.json").exists() else ()),
        "",
        "| NT-Xent, loss and gradient through TensorFlow | form | ms, p10-p90 | of native's time |",
        "|---|---|---|---|",
        *through_tensorflow(read("nt_xent.json"), ""),
    ]
    if (folder / "nt_xent_stock_tf32.json").exists():
        lines += through_tensorflow(read("nt_xent_stock_tf32.json"), ", TF32")
    if (folder / "make_views.json").exists():
        lines += ["", "| views through TensorFlow | form | ms, p10-p90 | of native's time |", "|---|---|---|---|"]
        lines += through_tensorflow(read("make_views.json"), "", views_of)
    if (folder / "step_updates.json").exists():
        lines += [
            "",
            "| ResNet-50's whole step, batch 256, by its update | ms, p10-p90 | of the first |",
            "|---|---|---|",
        ]
        lines += updates(read("step_updates.json"))
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> None:
    """Read, write, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="of a device's results")
    parser.add_argument("--page", type=Path, default=ROOT / "docs" / "gpu.md", help="where the tables are written")
    chosen = parser.parse_args(arguments)
    shown, text = page(chosen.folder), chosen.page.read_text(encoding="utf-8")
    marked = re.compile(r"(<!-- gpu_report -->\n).*?(<!-- /gpu_report -->)", re.DOTALL)
    chosen.page.write_text(marked.sub(lambda found: f"{found[1]}{shown}\n{found[2]}", text), encoding="utf-8")
    print(shown)


if __name__ == "__main__":
    main()
