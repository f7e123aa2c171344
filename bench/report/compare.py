"""Finds what became slower between two results: python -m bench.report.compare OLD NEW [--tolerance 0.05].

The program compares a new result with an older one of the same benchmark and device. A cost is a measured quantity of
which less is better. For every cost that both results have, the program prints the new value divided by the old one.
The costs are the processor time of the native ops, 1 / (pairs per second), the seconds to the first step, and the peak
memory. The exit code is 1 if a cost grew by more than the tolerance.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

TOLERANCE = 0.05
HIGHER_IS_BETTER = "_per_second"
LOWER_IS_BETTER = ("_seconds", "_bytes")

Result = dict[str, Any]


class Incomparable(ValueError):
    """The two results cannot be compared. The message says why."""


def read_result(path: Path) -> Result:
    """Return a stored result."""
    return json.loads(path.read_text(encoding="utf-8"))


def list_costs(result: Result) -> dict[str, float]:
    """Return a dict from the name of each cost to its value."""
    found: dict[str, float] = {}
    for row in result.get("rows", []):
        problem = " ".join(f"{key}={value}" for key, value in row["problem"].items())
        if row["name"].startswith("native") and row["processor"]:
            found[f"{problem} {row['name']}: processor seconds"] = row["processor"]
    for name, value in result.items():
        if not isinstance(value, (int, float)) or not value or name.startswith(("plain", "torch")):
            continue  # a baseline that became slower is not a regression of this package
        if name.endswith(HIGHER_IS_BETTER):
            found[f"1 / {name}"] = 1 / value
        elif name.endswith(LOWER_IS_BETTER):
            found[name] = value
    return found


def compute_changes(old: Result, new: Result) -> dict[str, float]:
    """Return, for every cost that both results have, the new cost divided by the old one. Above 1 is worse.

    Raises:
        Incomparable: if the devices or the configurations differ, or if the results have no cost in common.
    """
    for what in ("device", "config"):
        if old.get(what) != new.get(what):
            raise Incomparable(
                f"The {what} of the old result is {old.get(what)}, and that of the new result is {new.get(what)}. "
                f"Measure the old version again with the same {what}."
            )
    before, after = list_costs(old), list_costs(new)
    shared = {name: after[name] / before[name] for name in before if name in after}
    if not shared:
        raise Incomparable("The two results have no quantity in common. Compare two results of the same benchmark.")
    return shared


def print_changes(old: Result, new: Result, tolerance: float = TOLERANCE) -> int:
    """Print the change of every cost, and mark the regressions (costs that grew by more than the tolerance).

    Returns:
        The exit code: 0 without a regression, 1 with a regression, 2 if the results cannot be compared.
    """
    try:
        found = compute_changes(old, new)
    except Incomparable as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    for name, change in found.items():
        print(f"new / old {change:>7.3f}  {name}{'  REGRESSION' if change > 1 + tolerance else ''}")
    return int(any(change > 1 + tolerance for change in found.values()))


def main(arguments: Sequence[str] | None = None) -> int:
    """Compare two stored results; return the exit code of `print_changes`."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("old", type=Path, help="the JSON file of the old result")
    parser.add_argument("new", type=Path, help="the JSON file of the new result")
    parser.add_argument(
        "--tolerance", type=float, default=TOLERANCE, help="how much worse a cost may get, as a share of its old value"
    )
    chosen = parser.parse_args(arguments)
    return print_changes(read_result(chosen.old), read_result(chosen.new), chosen.tolerance)


if __name__ == "__main__":
    sys.exit(main())
