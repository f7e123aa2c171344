"""Makes the table in docs/security.md that shows how this package behaved when faults were made on purpose.

The programs in tests/faults kill programs of this package, fill disks and damage files, and check how the programs end.
Together, these tests are called the campaign. Their results are stored as JSON files.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from bench.report import markers

NAME = "faults"
RESULTS = markers.ROOT / "bench" / "results" / "faults"
Part = Mapping[str, Any]  # a part of the campaign, see `tests.faults.record.Record`


def format_stored() -> str:
    """Return the table of the stored results."""
    campaign = json.loads((RESULTS / "campaign.json").read_text(encoding="utf-8"))
    kernels = RESULTS / "kernels.json"
    return format_table(campaign, json.loads(kernels.read_text(encoding="utf-8")) if kernels.exists() else {})


def format_table(campaign: Mapping[str, Any], kernels: Mapping[str, Any]) -> str:
    """Return a Markdown table with one row for each part of the campaign that has run, and sentences below it.

    Args:
        campaign: the content of the campaign's JSON file.
        kernels: the content of the JSON file about the kernels, or {}.
    """
    parts = {name: campaign["parts"][name] for name in DESCRIBE if name in campaign["parts"]}
    rows = [
        f"| {DESCRIBE[name](part)} | {part['done']:,} of {part['asked']['trials']:,} | {len(part['wrong'])} |"
        for name, part in parts.items()
    ]
    rows += [
        f"| {SANITIZERS[kind]}, {found['seconds']} seconds for each driver | {sum(found['cases'].values()):,} "
        f"| {0 if found['right'] else 'at least 1'} |"
        for kind, found in kernels.get("kernels", {}).items()
    ]
    return "\n".join(["| what was tried | trials | wrong outcomes |", "|---|---:|---:|", *rows, "", _sum_up(campaign)])


def _sum_up(campaign: Mapping[str, Any]) -> str:
    """Return the sentences below the table."""
    parts = campaign["parts"].values()
    processor = sum(part["processor_seconds"] for part in parts)
    longest = max(part["longest_trial_seconds"] for part in parts)
    mended = sum(len(part["mended"]) for part in parts)
    versions = " and ".join(
        f"Python {each['python']} with TensorFlow {each['tensorflow']}" for each in _list_once(campaign)
    )
    open_parts = [name for name, part in campaign["parts"].items() if part["done"] < part["asked"]["trials"]]
    text = (
        f"The campaign took {processor:,.0f} seconds of processor time on {versions}. The longest trial took "
        f"{longest:g} seconds."
    )
    if mended:
        text += f" At first, {mended} of these trials ended wrongly. "
        text += "All of them ended correctly when they were repeated after corrections."
    if open_parts:
        text += f" The campaign is not complete: {', '.join(open_parts)}."
    return text


def _list_once(campaign: Mapping[str, Any]) -> list[dict[str, str]]:
    """Return the versions of Python and TensorFlow that the campaign used. Each combination is listed once."""
    found: list[dict[str, str]] = []
    for each in campaign["versions"]:
        kept = {name: each[name] for name in ("python", "tensorflow")}
        if kept not in found:
            found.append(kept)
    return found


def _describe_changes(part: Part) -> str:
    counts, facts = part["counts"], part["facts"]
    kinds = ", ".join(f"{name} {counts.get(name, 0):,}" for name in ("killed", "disk full", "input/output error"))
    return (
        f"a kill or a disk error when the run changes a file ({kinds}; {facts['changes_tried']:,} of the "
        f"{facts['changes_of_a_run']:,} changes of a run), then the same command again"
    )


def _describe_corruptions(part: Part) -> str:
    facts = part["facts"]
    return (
        f"one of the {facts['files']} files of a run replaced by one of {facts['wrong_things']} wrong things "
        f"(such as a folder or a damaged file), then `train`, `evaluate` or `embed` "
        f"({facts['combinations_tried']:,} of {facts['combinations']:,} combinations)"
    )


def _describe_inputs(part: Part) -> str:
    kinds = ", ".join(f"{name} {number:,}" for name, number in part["counts"].items())
    return f"an input with random damage ({kinds})"


def _describe_memory(part: Part) -> str:
    return (
        f"a run of {part['asked']['steps']:,} steps, whose memory must not grow (it grew by "
        f"{part['facts']['grown_bytes'] / 1e6:.1f} MB in its second half)"
    )


DESCRIBE: dict[str, Callable[[Part], str]] = {
    "changes": _describe_changes,
    "kills": lambda part: "a kill at a random moment, again and again in the same run, until it ends",
    "corruptions": _describe_corruptions,
    "signals": lambda part: "SIGTERM, SIGINT or SIGHUP at a random moment of a program, then the program again",
    "inputs": _describe_inputs,
    "memory": _describe_memory,
}
SANITIZERS = {
    "address": "the kernels under AddressSanitizer",
    "undefined": "the kernels under UndefinedBehaviorSanitizer",
    "thread": "the kernels under ThreadSanitizer",
    "none": "the kernels compared with plain versions of them on random inputs",
    "fuzzer": "the kernels with libFuzzer and AddressSanitizer",
}
