"""Reads the files of a run, and adds results to them. Several processes may do this at the same time."""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from lowlevel_simclr.config.names import show_name
from lowlevel_simclr.run.atomic import (
    DamagedFile,
    NotWritten,
    RunError,
    explain_os_errors,
    parse_object,
    read_json,
    set_aside,
    write_json,
)
from lowlevel_simclr.runtime.files import LARGEST_TEXT, lock_file, parse_json, read_regular_file

Row = dict[str, Any]  # one step: "step" (int) and numbers; NaN and infinite numbers are null
METRICS = "metrics.jsonl"  # one row per step
EVALUATION = "evaluation.json"
EVALUATION_LOCK = ".evaluation.lock"


def parse_row(line: bytes) -> Row | None:
    """Return the row in a line of metrics.jsonl, or None if it is not a row, for example if the process was killed."""
    try:
        row = parse_json(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(row, dict) or not isinstance(row.get("step"), int):
        return None
    return row if all(value is None or isinstance(value, (int, float)) for value in row.values()) else None


def read_data(folder: Path) -> dict[str, Any] | None:
    """Return the content of a run's data.json, or None if there is no such file.

    Raises:
        RunError: if the file is not JSON, or its values do not have the types that `Run.write_data` writes.
    """
    path = folder / "data.json"
    if not path.exists():
        return None
    found = read_json(path)
    wrong = [name for name, fits in _DATA.items() if name in found and not fits(found[name])]
    if wrong:
        raise RunError(
            f"{path} is damaged: its '{wrong[0]}' is {str(found[wrong[0]])[:80]!r}. Restore it, or remove it to "
            "resume without comparing the images with those of the run."
        )
    return found


def find_write_error(folder: Path) -> NotWritten | None:
    """Return the error that prevents adding results to the files of a folder, or None if there is no such error."""
    try:
        with explain_os_errors("write the results of", folder):
            lock_file(folder / EVALUATION_LOCK, wait=True).close()
    except NotWritten as error:
        return error
    return None


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _is_list_of(kind: type) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, list) and all(isinstance(part, kind) for part in value)


# For each key of data.json, the function that tells whether a value has the right type.
_DATA: dict[str, Callable[[Any], bool]] = {
    "dataset": lambda value: isinstance(value, str),
    "counts": lambda value: isinstance(value, dict) and all(map(_is_whole, value.values())),
    "classes": _is_list_of(str),
    "skipped": _is_list_of(dict),
    "shape": lambda value: isinstance(value, list) and len(value) == 3 and all(_is_whole(n) and n for n in value),
}


def read_config(folder: Path) -> dict[str, Any]:
    """Return the content of a run's config.json.

    Raises:
        RunError: if the folder holds no run.
    """
    if not (folder / "config.json").is_file():
        raise RunError(f"{folder} is not a run folder (it has no config.json). Give the folder that training wrote.")
    return read_json(folder / "config.json")


def read_metrics(folder: Path) -> list[Row]:
    """Return the rows of metrics.jsonl, one per step. An unfinished last line is left out.

    The list is empty if the file does not exist.

    Raises:
        RunError: if a line other than the last is not a row.
    """
    path = folder / METRICS
    with explain_os_errors("read the metrics of", folder):
        lines = read_regular_file(path, LARGEST_TEXT, "LARGEST_TEXT").split(b"\n") if path.exists() else []
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
        RunError: if the file is not JSON, or if its values do not have the types that `merge_evaluation` writes.
    """
    found = read_results(folder / EVALUATION)
    if found and not _is_evaluation(found):
        raise RunError(f"{folder / EVALUATION} is damaged. Remove it, and evaluate again.")
    return found


def _is_evaluation(found: Mapping[str, Any]) -> bool:
    """Return whether the values of evaluation.json have the types that `merge_evaluation` writes."""

    def is_number(value: Any) -> bool:
        return isinstance(value, (int, float)) and not isinstance(value, bool)

    def are_counted(value: Any) -> bool:
        return isinstance(value, dict) and all(name.isdecimal() for name in value) and _are(is_number, value)

    def are_shares(value: Any) -> bool:
        return isinstance(value, dict) and all(_is_fraction(name) for name in value) and _are(is_number, value)

    def is_spread(value: Any) -> bool:
        return isinstance(value, dict) and (
            {"mean", "std", "n"} <= value.keys()
            and is_number(value["mean"])
            and (value["std"] is None or is_number(value["std"]))
            and is_number(value["n"])
            or all(map(is_spread, value.values()))
        )

    def are_texts(value: Any) -> bool:
        return isinstance(value, dict) and _are(lambda part: isinstance(part, str), value)

    checks: list[tuple[str, Callable[[Any], bool]]] = [
        (r"step|schema", _is_whole),
        (r"train_on|transform", lambda value: isinstance(value, str)),
        (r"knn.*", are_counted),
        (r"linear.*", is_number),
        (r"finetune", are_shares),
        (r"seeds", lambda value: isinstance(value, dict) and _are(is_spread, value)),
        (r"notes", are_texts),
    ]
    return all(
        check(value) for name, value in found.items() for pattern, check in checks if re.fullmatch(pattern, name)
    )


def _are(check: Callable[[Any], bool], values: Mapping[str, Any]) -> bool:
    return all(map(check, values.values()))


def _is_fraction(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False


def merge_evaluation(path: Path, step: int, results: Mapping[str, Any]) -> dict[str, Any]:
    """Add results about the encoder after a certain step to evaluation.json, see `merge_results`.

    The function first removes results of an earlier step, and results without a step. If evaluation.json is damaged, it
    is renamed, because a long evaluation must not end without a result.

    Args:
        path: evaluation.json of the run, or another file to keep the results in. Its folder must exist.
        step: the number of steps that the encoder was trained.
        results: keys of evaluation.json, such as {"schema": 1, "knn": {"20": 0.93}}. Accuracies are in [0, 1].

    Returns:
        The whole content of evaluation.json. All of it is about the encoder after this step.

    Raises:
        RunError: if evaluation.json cannot be written, or is about a later step.
        ValueError: if a result is NaN or infinite.
    """

    def keep_same_step(old: Mapping[str, Any]) -> Mapping[str, Any]:
        if not _is_evaluation(old):
            set_aside_loudly(path, "has values of other types than an evaluation writes")
            return {}
        if old.get("step", step) > step:
            raise RunError(
                f"{path} already has results of step {old['step']}, and these are of step {step}, so it was not "
                "changed. Evaluate again, or remove it first."
            )
        return old if old.get("step") == step else {}

    return merge_results(path, {**results, "step": step}, kept=keep_same_step)


def read_or_set_aside(path: Path) -> dict[str, Any]:
    """Return the content of a file that training does not need, or {} if the file does not exist.

    If the file is damaged, it is renamed, and a warning is printed.

    Raises:
        OSError: if the file cannot be renamed.
    """
    try:
        return parse_object(path) if path.exists() else {}
    except DamagedFile as error:
        set_aside_loudly(path, str(error))
        return {}


def set_aside_loudly(path: Path, reason: str) -> None:
    """Rename a damaged file, and print a warning.

    Raises:
        OSError: if the file cannot be renamed.
    """
    beside = set_aside(path, "damaged")
    print(f"warning: {show_name(path)} {show_name(reason)}. It is kept as {show_name(beside.name)}.", file=sys.stderr)


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
    """Add results to a file. Objects are merged key by key. Any other value replaces the old value.

    A lock lets several processes add to the file at the same time. If the file is damaged, it is renamed.

    Args:
        path: a file in the run folder.
        results: numbers, texts and objects that hold them.
        kept: function that takes the content of the file and returns the part of it to keep.

    Returns:
        The whole content of the file.

    Raises:
        RunError: if the file cannot be written. `kept` may raise its own errors.
        ValueError: if a number is NaN or infinite.
    """
    with explain_os_errors("write the results of", path.parent), lock_file(path.parent / EVALUATION_LOCK, wait=True):
        merged = merge(kept(read_or_set_aside(path)), results)
        write_json(path, merged)
    return merged


def merge(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, Any]:
    """Return `old` with the values of `new`. Objects are merged key by key. Any other value replaces the old value."""
    both = dict(old)
    for name, value in new.items():
        nested = isinstance(value, Mapping) and isinstance(both.get(name), Mapping)
        both[name] = merge(both[name], value) if nested else value
    return both
