"""Writes docs/step.md from stored results: python -m bench.report.step_page bench/results/DEVICE/step*.json.

The page shows how much time each stage of a training step takes. It also compares the speed of the training job with
that of other programs. In the code, each of these programs is called a form (bench_step.py). Every number comes from a
stored result of one of three benches. bench_step times the training step, bench_startup times a training command until
its first step, and bench_step_sizes times the step at many sizes.
"""

from __future__ import annotations

import argparse
import itertools
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench.report import markers

STEP = markers.ROOT / "docs" / "step.md"
HEAD = """\
# Where the time of a training step goes

`python -m bench.report.step_page` wrote this page from stored results of `bench.step.bench_step`,
`bench.step.bench_startup` and `bench.step.bench_step_sizes`.

The first table of a section compares the whole training job with other programs. `whole` is the training job: input,
views, encoder, projection head, loss, gradient, update and metrics. `encoder` is only the forward and backward pass of
the encoder on synthetic views. `plain` is the same training in stock Keras and TensorFlow, and `torch` is the same
training in PyTorch. The programs are timed in turns: in each turn, every program is timed once, for a few steps. Speeds
are in pairs per second (pairs/s), where a pair is the two views (randomly changed versions) of one image. The last
column is the speed of the whole job divided by the speed of the line's program. Its first number comes from the median
times. In parentheses are the 10th and 90th percentile of this ratio over the turns.

The second table splits the whole job into stages. The time of a stage is a difference of two medians: the time of steps
that end after the stage, minus the time of steps that end before it. On a busy machine such a difference can be
negative, although a stage takes time. The most negative difference in a table shows how large the errors in this table
are. Its absolute value is called the noise of the table. A stage whose time is not larger than the noise is marked
"below the noise". Newer results also have a standard error for each difference. There, a stage is also marked if its
time is not larger than two standard errors. The last column divides the time of a stage by the sum of all times in the
table. f is the encoder, and g is the projection head.

Below the tables, the rate of the step (floating-point operations per second) is compared with that of the fastest
matrix product, which was timed in the same process and in the precision of the step. On a GPU it is compared with the
peak rate in the device's data sheet.
"""
BELOW_NOISE = "below the noise"


def shorten_device(device: str) -> str:
    """Return the name of a device without words that many such names contain."""
    return device.replace("(R)", "").replace("-Processor", "").replace("-family", "").replace("-2-cores", "")


def format_step(result: dict[str, Any]) -> str:
    """Return the section about one result of bench_step: a table of its forms, then a table of its stages."""
    config = result["config"]
    title = (
        f"{config['encoder']}, batch {config['batch_size']}, {config['precision']}, {shorten_device(result['device'])}"
    )
    if result.get("encoder_by_process"):
        title += ", several processes"
    about = f"{config['stem']} stem, {config['image_size']} pixels, {config['implementation']} ops"
    lines = [f"## {title}", "", f"{about}; {result['date']}, load average {result['load']:.1f}.", ""]
    lines += [
        "| program | pairs/s, median | pairs/s, best turn | median ms a step | processor ms a step | "
        "speed of the whole job relative to this program |",
        "|---|---|---|---|---|---|",
    ]
    for name, form in result["forms"].items():
        against = result["whole_against"].get(name)
        ratio = f"{against['by_medians']:.3f}x ({against['turn_p10']:.3f}-{against['turn_p90']:.3f})" if against else ""
        lines.append(
            f"| {name} | {form['pairs_per_second']:.1f} | {form['best_pairs_per_second']:.1f} | "
            f"{1e3 * form['median_seconds']:.0f} | {1e3 * form['processor_seconds']:.0f} | {ratio} |"
        )
    if by_process := result.get("encoder_by_process"):  # older results lack this entry
        ratios = ", ".join(f"{each:.3f}" for each in by_process)
        lines += [
            "",
            f"Speed of the whole job relative to the encoder, in each of {len(by_process)} processes: {ratios}.",
        ]
    lines += ["", *(f"Not measured: {name} ({why})." for name, why in result["missing"].items()), ""]
    lines += _format_stages(result)
    lines += ["", _format_operations(result)]
    if result["peak_memory_bytes"]:
        lines.append(f"Peak memory: {result['peak_memory_bytes'] / 2**20:.0f} MiB.")
    return "\n".join(lines)


def hide_noise(result: dict[str, Any]) -> dict[str, float | None]:
    """Return the seconds of each stage of a result, or None for a stage that is below the noise.

    The time of a stage is a difference of two medians. It is below the noise in two cases: it is not larger than two
    standard errors of this difference, or it is not larger than the absolute value of the most negative stage. Results
    from before 30 November 2026 have no standard errors.
    """
    stages = result["stages_seconds"]
    least = find_largest_negative(stages)
    noise = result.get("stages_noise_seconds", {})
    return {name: value if value > max(least, noise.get(name, 0.0)) else None for name, value in stages.items()}


def find_largest_negative(stages: dict[str, float]) -> float:
    """Return the absolute value of the most negative time of a stage, in seconds, or 0 if no time is negative."""
    return max(0.0, -min(stages.values(), default=0.0))


def _format_stages(result: dict[str, Any]) -> list[str]:
    """Return the lines of the table of stages."""
    stages = hide_noise(result)
    if not any(result["stages_seconds"].values()):
        return ["The step was not split into stages."]
    whole = sum(value for value in stages.values() if value is not None)
    lines = ["| stage | ms | share of the step |", "|---|---|---|"]
    for name, value in stages.items():
        cells = f"{BELOW_NOISE} |" if value is None else f"{1e3 * value:.1f} | {value / whole:.1%}"
        lines.append(f"| {name} | {cells} |")
    noise = find_largest_negative(result["stages_seconds"])
    return [*lines, "", f"Noise of this table: {1e3 * noise:.1f} ms."] if noise else lines


def format_share(share: float) -> str:
    """Return a rate, given as a share of the machine's ceiling, as a percentage.

    The ceiling is the rate of the fastest matrix product. If the share is above 1, the measured ceiling was too low.
    """
    return f"{share:.0%}" if share <= 1 else "no less than 100%"


def _format_operations(result: dict[str, Any]) -> str:
    """Return sentences with the number of operations of a step, and with their rate as a share of the highest rate."""
    count = f"A step computes {result['operations_per_step'] / 1e9:.0f} GFLOP, including products with padding"
    if result.get("mfu") is not None:
        return f"{count}. It reaches {result['mfu']:.0%} of the peak in the data sheet."
    precision = result["config"]["precision"]
    share = result["of_gemm_peak"].get(precision)
    if share is None:
        return f"{count}."
    return f"{count}. It reaches {format_share(share)} of the rate of this machine's {precision} matrix product."


def format_startup(result: dict[str, Any]) -> str:
    """Return the section about the time from the start of the training command to its first step."""
    title = f"## From the command to the first step, {shorten_device(result['device'])}"
    lines = [title, "", "Preset: shapes. The wall times are medians, and the processor times are minima.", ""]
    lines += ["| part of the program | wall seconds | processor seconds |", "|---|---|---|"]
    lines += [f"| {name} | {part['wall']:.2f} | {part['processor']:.2f} |" for name, part in result["parts"].items()]
    lines.append("")
    lines.append(
        f"The training command finishes its first step after {result['first_step_seconds']:.1f} s. "
        f"`import tensorflow` alone takes {result['import_tensorflow_seconds']:.1f} s."
    )
    return "\n".join(lines)


def format_sizes(result: dict[str, Any]) -> str:
    """Return the section about many sizes. Its table has a line for each encoder, batch size and precision."""
    names = list(dict.fromkeys(row["name"] for row in result["rows"]))
    encoders = ", ".join(dict.fromkeys(row["problem"]["encoder"] for row in result["rows"]))
    title = f"## Other sizes, {encoders}, {shorten_device(result['device'])}"
    lines = [title, "", f"{result['date']}, load average {result['load']:.1f}.", ""]
    turns = max(row["repeats"] for row in result["rows"])
    lines.append(
        f"The columns of speeds give pairs a second by the median of {turns} turns and, in parentheses, by the fastest "
        "turn. The last two columns divide two speeds. They are computed from processor times, which vary less on a "
        "busy machine."
    )
    head = [f"{name}, pairs/s" for name in names]
    head += [f"speed of {names[0]} relative to {other}" for other in (names[2], names[1])]
    lines += ["", "| encoder, batch size, precision | " + " | ".join(head) + " |", "|---" * (len(head) + 1) + "|"]
    for _, group in itertools.groupby(result["rows"], key=lambda row: row["problem"]):
        rows = list(group)
        problem = rows[0]["problem"]
        rates = [_format_rate(row, problem["N"]) for row in rows]
        rates += [_format_speed_ratio(rows[0], rows[2]), _format_speed_ratio(rows[0], rows[1])]
        label = f"{problem['encoder']}, {problem['N']}, {problem['precision']}"
        lines.append(f"| {label} | " + " | ".join(rates) + " |")
    return "\n".join(lines)


def _format_rate(row: dict[str, Any], batch_size: int) -> str:
    if row["median"] is None:
        return row["note"]
    return f"{batch_size / row['median']:.0f} ({batch_size / row['minimum']:.0f})"


def _format_speed_ratio(row: dict[str, Any], other: dict[str, Any]) -> str:
    if row["processor"] is None or other["processor"] is None:
        return ""
    return f"{other['processor'] / row['processor']:.3f}x"


def format_page(results: Sequence[dict[str, Any]]) -> str:
    """Return the complete page: the introduction, then one section for each result."""
    writers = {"step": format_step, "startup": format_startup, "step_sizes": format_sizes}
    sections = [writers[each["benchmark"]](each) for each in results]
    return "\n\n".join([HEAD.rstrip(), *sections]) + "\n"


def main(arguments: Sequence[str] | None = None) -> None:
    """Write the page from the results that the command line names."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("results", type=Path, nargs="+")
    parser.add_argument("--out", type=Path, default=STEP)
    chosen = parser.parse_args(arguments)
    found = [json.loads(path.read_text(encoding="utf-8")) for path in chosen.results]
    chosen.out.write_text(format_page(found), encoding="utf-8")


if __name__ == "__main__":
    main()
