"""The files of a run that any process may read, and those that several processes add to."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from lowlevel_simclr.run.atomic import RunError, explain_os_errors, lock_file, read_json, write_json

Row = dict[str, Any]  # one step: "step" (int) and numbers; a number that is not finite is null
METRICS = "metrics.jsonl"  # a row a step
EVALUATION_LOCK = ".evaluation.lock"


def parse_row(line: bytes) -> Row | None:
    """The row that a line of metrics.jsonl holds, None for a line that a kill left unfinished."""
    try:
        row = json.loads(line)
    except ValueError:
        return None
    return row if isinstance(row, dict) and isinstance(row.get("step"), int) else None


def read_data(folder: Path) -> dict[str, Any] | None:
    """What data.json of a run holds; None where there is none.

    Raises:
        RunError: the file is no JSON.
    """
    path = folder / "data.json"
    return read_json(path) if path.is_file() else None


def read_config(folder: Path) -> dict[str, Any]:
    """The config.json of a run.

    Raises:
        RunError: the folder holds no run.
    """
    if not (folder / "config.json").is_file():
        raise RunError(f"{folder} holds no run (no config.json): give the folder that training wrote")
    return read_json(folder / "config.json")


def read_metrics(folder: Path) -> list[Row]:
    """The rows of metrics.jsonl, one a step, without an unfinished last line; none where there is no file.

    Raises:
        RunError: a line that is not the last is no row.
    """
    path = folder / METRICS
    lines = path.read_bytes().split(b"\n") if path.exists() else []
    rows = []
    for number, line in enumerate(lines, 1):
        row = parse_row(line)
        if row is not None:
            rows.append(row)
        elif any(lines[number:]):
            raise RunError(f"line {number} of {path} is no row of a step: mend or remove that line")
    return rows


def read_evaluation(folder: Path) -> dict[str, Any]:
    """The evaluation.json of a run, empty where there is none.

    Raises:
        RunError: it is not JSON.
    """
    return read_results(folder / "evaluation.json")


def merge_evaluation(folder: Path, step: int, results: Mapping[str, Any]) -> dict[str, Any]:
    """Adds results about the encoder of a step to evaluation.json, see `merge_results`.

    Those of an earlier step, or of one that the file does not name, make room for them first.

    Args:
        folder: the run folder.
        step: how many steps the encoder was trained.
        results: keys of evaluation.json, such as {"schema": 1, "knn": {"20": 0.93}}; accuracies in [0, 1].

    Returns:
        The whole of evaluation.json, all of it about one encoder.

    Raises:
        RunError: evaluation.json is not JSON, cannot be written, or is about a later step.
        ValueError: a result is not finite.
    """
    path = folder / "evaluation.json"

    def of_this_step(old: Mapping[str, Any]) -> Mapping[str, Any]:
        if old.get("step", step) > step:
            raise RunError(
                f"{path} is about step {old['step']} by now and these results are about step {step}, so it stays as it "
                "is: evaluate again, or remove it first"
            )
        return old if old.get("step") == step else {}

    return merge_results(path, {**results, "step": step}, kept=of_this_step)


def read_results(path: Path) -> dict[str, Any]:
    """A file of a run that several processes add to, empty where there is none.

    Raises:
        RunError: it is not JSON.
    """
    return read_json(path) if path.exists() else {}


def merge_results(
    path: Path,
    results: Mapping[str, Any],
    kept: Callable[[Mapping[str, Any]], Mapping[str, Any]] = lambda old: old,
) -> dict[str, Any]:
    """Adds results to a file: objects are merged key by key, anything else is replaced.

    Several processes may add to it at a time.

    Args:
        path: a file in the run folder.
        results: numbers, texts and objects of them.
        kept: what the file holds -> what of it is kept.

    Returns:
        All that the file holds now.

    Raises:
        RunError: it is not JSON, or cannot be written; and what `kept` raises.
        ValueError: a number is not finite.
    """
    with explain_os_errors("write the results of", path.parent), lock_file(path.parent / EVALUATION_LOCK, wait=True):
        merged = _merge(kept(read_results(path)), results)
        write_json(path, merged)
    return merged


def _merge(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, Any]:
    """`new` over `old`, objects key by key."""
    both = dict(old)
    for name, value in new.items():
        nested = isinstance(value, Mapping) and isinstance(both.get(name), Mapping)
        both[name] = _merge(both[name], value) if nested else value
    return both
