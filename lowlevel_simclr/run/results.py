"""The files of a run that any process may read, and the results that several processes add to."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from lowlevel_simclr.run.atomic import RunError, explain_os_errors, lock_file, read_json, write_json

Row = dict[str, Any]  # one step: "step" (int) and numbers; NaN and infinite numbers are null
METRICS = "metrics.jsonl"  # one row per step
EVALUATION_LOCK = ".evaluation.lock"


def parse_row(line: bytes) -> Row | None:
    """Return the row in a line of metrics.jsonl, or None if it is not a row, for example after a kill."""
    try:
        row = json.loads(line)
    except ValueError:
        return None
    return row if isinstance(row, dict) and isinstance(row.get("step"), int) else None


def read_data(folder: Path) -> dict[str, Any] | None:
    """Return the content of a run's data.json, or None if there is no such file.

    Raises:
        RunError: if the file is not JSON.
    """
    path = folder / "data.json"
    return read_json(path) if path.is_file() else None


def read_config(folder: Path) -> dict[str, Any]:
    """Return the content of a run's config.json.

    Raises:
        RunError: if the folder holds no run.
    """
    if not (folder / "config.json").is_file():
        raise RunError(f"{folder} is not a run folder (it has no config.json). Give the folder that training wrote.")
    return read_json(folder / "config.json")


def read_metrics(folder: Path) -> list[Row]:
    """Return the rows of metrics.jsonl, one per step, without an unfinished last line.

    The list is empty if the file does not exist.

    Raises:
        RunError: if a line other than the last is not a row.
    """
    path = folder / METRICS
    lines = path.read_bytes().split(b"\n") if path.exists() else []
    rows = []
    for number, line in enumerate(lines, 1):
        row = parse_row(line)
        if row is not None:
            rows.append(row)
        elif any(lines[number:]):
            raise RunError(f"Line {number} of {path} is not a row of metrics. Repair or remove it.")
    return rows


def read_evaluation(folder: Path) -> dict[str, Any]:
    """Return the content of a run's evaluation.json, or {} if there is no such file.

    Raises:
        RunError: if the file is not JSON.
    """
    return read_results(folder / "evaluation.json")


def merge_evaluation(folder: Path, step: int, results: Mapping[str, Any]) -> dict[str, Any]:
    """Add results about the encoder of a step to evaluation.json, see `merge_results`.

    Results of an earlier step, or without a step, are removed first.

    Args:
        folder: the run folder.
        step: number of steps that the encoder was trained.
        results: keys of evaluation.json, such as {"schema": 1, "knn": {"20": 0.93}}. Accuracies are in [0, 1].

    Returns:
        The whole content of evaluation.json, all of it about one encoder.

    Raises:
        RunError: if evaluation.json is not JSON, cannot be written, or is about a later step.
        ValueError: if a result is NaN or infinite.
    """
    path = folder / "evaluation.json"

    def of_this_step(old: Mapping[str, Any]) -> Mapping[str, Any]:
        if old.get("step", step) > step:
            raise RunError(
                f"{path} already has results of step {old['step']}, and these are of step {step}, so it was not "
                "changed. Evaluate again, or remove it first."
            )
        return old if old.get("step") == step else {}

    return merge_results(path, {**results, "step": step}, kept=of_this_step)


def read_results(path: Path) -> dict[str, Any]:
    """Return the content of a file to which several processes add results, or {} if it does not exist.

    Raises:
        RunError: if the file is not JSON.
    """
    return read_json(path) if path.exists() else {}


def merge_results(
    path: Path,
    results: Mapping[str, Any],
    kept: Callable[[Mapping[str, Any]], Mapping[str, Any]] = lambda old: old,
) -> dict[str, Any]:
    """Add results to a file. Objects are merged key by key, and other values are replaced.

    A lock lets several processes add to the file at the same time.

    Args:
        path: a file in the run folder.
        results: numbers, texts and objects of them.
        kept: function from the content of the file to the part of it to keep.

    Returns:
        The whole content of the file.

    Raises:
        RunError: if the file is not JSON, or cannot be written. `kept` may raise its own errors.
        ValueError: if a number is NaN or infinite.
    """
    with explain_os_errors("write the results of", path.parent), lock_file(path.parent / EVALUATION_LOCK, wait=True):
        merged = _merge(kept(read_results(path)), results)
        write_json(path, merged)
    return merged


def _merge(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, Any]:
    """Return `old` with the values of `new`. Objects are merged key by key."""
    both = dict(old)
    for name, value in new.items():
        nested = isinstance(value, Mapping) and isinstance(both.get(name), Mapping)
        both[name] = _merge(both[name], value) if nested else value
    return both
