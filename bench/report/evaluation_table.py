"""Makes two tables: the time of an evaluation (docs/evaluation.md), and the time of `embed` (docs/embedding.md).

The first comes from a stored result of bench_evaluation, the second from one of bench_embed.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from bench.report import markers

RESULTS = markers.ROOT / "bench" / "results" / "AMD-EPYC-family-25-model-17-2-cores"
EVALUATION, EMBED = "bench:evaluation", "bench:embed"  # the names of the markers
RUNS = {
    "before": "an older version, which keeps no baselines",
    "baselines measured": "the first evaluation, which measures the baselines",
    "baselines read": "a later evaluation, which reads the baselines",
}


def format_stored() -> dict[str, str]:
    """Return both tables, by the names of their markers."""
    stored = {name: json.loads((RESULTS / f"{name}.json").read_text("utf-8")) for name in ("evaluation", "embed")}
    return {EVALUATION: format_evaluation(stored["evaluation"]), EMBED: format_embed(stored["embed"])}


def format_evaluation(result: Mapping[str, Any]) -> str:
    """Return a Markdown table with the times of whole evaluations and of their parts."""
    rows = [(RUNS[name], times) for name, times in result["runs"].items()]
    rows += [(f"part: {name}", times) for name, times in result["parts"].items()]
    lines = [f"| {name} | {times['wall']:.1f} | {times['processor']:.1f} |" for name, times in rows]
    flags = " ".join(result["flags"])
    return "\n".join(
        [
            "| | wall seconds | processor seconds |",
            "|---|---:|---:|",
            *lines,
            "",
            f"Measured on {result['device']}, {result['date']}, on a run with `{flags}`. The parts were measured with "
            "an encoder that was not trained.",
            _list_changes({name: run["table"] for name, run in result["runs"].items()}),
        ]
    )


def _list_changes(tables: Mapping[str, Sequence[str]]) -> str:
    """Return a sentence with each accuracy that the older version printed otherwise. A table is a list of lines."""
    now = tables["baselines read"]
    columns = re.split(r"  +", now[0])[1:]
    changes = [
        f"{line[:20].strip()}, {column}: {old} before, {new} now"
        for line, older in zip(now[1:], tables.get("before", now)[1:])
        for column, old, new in zip(columns, older[20:].split(), line[20:].split())
        if old != new
    ]
    return f"Accuracies that changed since the older version: {'; '.join(changes) or 'none'}."


def format_embed(result: Mapping[str, Any]) -> str:
    """Return a Markdown table that compares `embed` with the encoder alone."""
    problem = result["problem"]
    names = {"encoder alone": "the encoder alone, on images in memory", "embed": f"`embed` into {problem['format']}"}
    lines = [
        f"| {words} | {result[name]['wall seconds']:.1f} | {result[name]['processor seconds']:.1f} |"
        for name, words in names.items()
    ]
    ratio = result["embed / encoder alone"]
    return "\n".join(
        [
            f"| {problem['files']:,} files | wall seconds | processor seconds |",
            "|---|---:|---:|",
            *lines,
            f"| ratio | {ratio['wall seconds']:.2f} | {ratio['processor seconds']:.2f} |",
            "",
            f"Measured on {result['device']}, {result['date']}: PNG files of {problem['side']} x {problem['side']} "
            f"pixels, {problem['encoder']} with the default stem.",
        ]
    )
