"""Writes bench/STEP.md from stored results: python -m bench.step_report bench/results/DEVICE/step*.json.

Where each per cent of a step goes, and what it is measured against. It measures nothing; every number is the result's.
A result of bench_startup among the files adds where the time to the first step goes.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

STEP = Path(__file__).parent / "STEP.md"
HEAD = """\
# Where a training step goes

Written by `python -m bench.step_report`; measured by `python -m bench.bench_step` and `python -m bench.bench_startup`.
Stages are differences of medians of steps that end after each; what `bench_step.py` says of its forms holds here.
"""


def section(result: dict[str, Any]) -> str:
    """One configuration: the forms, then the stages."""
    config = result["config"]
    title = f"{config['encoder']}, {config['stem']} stem, {config['image_size']} pixels, batch {config['batch_size']}"
    title += f", {config['precision']}, {config['implementation']} ops"
    lines = [f"## {title}", "", f"{result['device']}, {result['date']}, load {result['load']:.1f}.", ""]
    lines += ["| form | pairs/s | best | ms a step | processor ms | whole job is |", "|---|---|---|---|---|---|"]
    for name, form in result["forms"].items():
        against = result["whole_against"].get(name)
        ratio = f"{against['by_medians']:.3f}x ({against['turn_p10']:.3f}-{against['turn_p90']:.3f})" if against else ""
        lines.append(
            f"| {name} | {form['pairs_per_second']:.1f} | {form['best_pairs_per_second']:.1f} | "
            f"{1e3 * form['median_seconds']:.0f} | {1e3 * form['processor_seconds']:.0f} | {ratio} |"
        )
    lines += ["", *(f"Not measured: {name} ({why})." for name, why in result["missing"].items()), ""]
    whole = sum(result["stages_seconds"].values())
    lines += ["| stage | ms | of the step |", "|---|---|---|"]
    lines += [
        f"| {name} | {1e3 * value:.1f} | {value / whole:.1%} |" for name, value in result["stages_seconds"].items()
    ]
    share = ", ".join(f"{value:.0%} of {kind}'s" for kind, value in result["of_gemm_peak"].items())
    count = f"{result['operations_per_step'] / 1e9:.0f} GFLOP a step, products with padding counted"
    lines += ["", f"{count}; of this machine's matrix product: {share}."]
    if result["peak_memory_bytes"]:
        lines.append(f"Peak memory: {result['peak_memory_bytes'] / 2**20:.0f} MiB.")
    return "\n".join(lines)


def startup_section(result: dict[str, Any]) -> str:
    """From the command to the first step."""
    lines = ["## From the command to the first step", "", f"{result['device']}, preset shapes, medians, seconds.", ""]
    lines += ["| part | wall | processor |", "|---|---|---|"]
    lines += [f"| {name} | {part['wall']:.2f} | {part['processor']:.2f} |" for name, part in result["parts"].items()]
    lines.append("")
    lines.append(
        f"The command's first step: {result['first_step_seconds']:.1f} s; `import tensorflow` alone: "
        f"{result['import_tensorflow_seconds']:.1f} s."
    )
    return "\n".join(lines)


def text(results: Sequence[dict[str, Any]]) -> str:
    """The whole page."""
    sections = [section(each) if each["benchmark"] == "step" else startup_section(each) for each in results]
    return "\n\n".join([HEAD.rstrip(), *sections]) + "\n"


def main(arguments: Sequence[str] | None = None) -> None:
    """Write the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("results", type=Path, nargs="+")
    parser.add_argument("--out", type=Path, default=STEP)
    chosen = parser.parse_args(arguments)
    found = [json.loads(path.read_text(encoding="utf-8")) for path in chosen.results]
    chosen.out.write_text(text(found), encoding="utf-8")


if __name__ == "__main__":
    main()
