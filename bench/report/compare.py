"""Fails on a regression: python -m bench.report.compare OLD NEW [--tolerance 0.05].

Sets a new stored result beside an older one of the same benchmark and device, prints every quantity that both have, and
ends with exit code 1 where one got worse by more than the tolerance: a form's processor time (of harness rows), pairs a
second, seconds to the first step, peak memory.
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
    """Two results that say nothing about one another; the text says why."""


def read(path: Path) -> Result:
    """A stored result."""
    return json.loads(path.read_text(encoding="utf-8"))


def quantities(result: Result) -> dict[str, float]:
    """What is compared, by name, as a cost: lower is better."""
    found: dict[str, float] = {}
    for row in result.get("rows", []):
        problem = " ".join(f"{key}={value}" for key, value in row["problem"].items())
        if row["name"].startswith("native") and row["processor"]:
            found[f"{problem} {row['name']}: processor seconds"] = row["processor"]
    for name, value in result.items():
        if not isinstance(value, (int, float)) or not value or name.startswith(("plain", "torch")):
            continue  # what others' code takes is no matter of ours
        if name.endswith(HIGHER_IS_BETTER):
            found[f"1 / {name}"] = 1 / value
        elif name.endswith(LOWER_IS_BETTER):
            found[name] = value
    return found


def changes(old: Result, new: Result) -> dict[str, float]:
    """new / old of every quantity that both have; above 1 is worse.

    Raises:
        Incomparable: other devices or configurations, or nothing in common.
    """
    for what in ("device", "config"):
        if old.get(what) != new.get(what):
            raise Incomparable(f"the {what} was {old.get(what)} and is {new.get(what)}: measure the old one again here")
    before, after = quantities(old), quantities(new)
    shared = {name: after[name] / before[name] for name in before if name in after}
    if not shared:
        raise Incomparable("the two results have no quantity in common: give two of the same benchmark")
    return shared


def report(old: Result, new: Result, tolerance: float = TOLERANCE) -> int:
    """Prints every change; 1 where one is a regression, else 0."""
    try:
        found = changes(old, new)
    except Incomparable as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    for name, change in found.items():
        print(f"{change:>7.3f}x  {name}{'  REGRESSION' if change > 1 + tolerance else ''}")
    return int(any(change > 1 + tolerance for change in found.values()))


def main(arguments: Sequence[str] | None = None) -> int:
    """Compare two files; returns the exit code: 0, 1 for a regression, 2 where they cannot be compared."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("old", type=Path)
    parser.add_argument("new", type=Path)
    parser.add_argument("--tolerance", type=float, default=TOLERANCE, help="how much worse is no regression yet")
    chosen = parser.parse_args(arguments)
    return report(read(chosen.old), read(chosen.new), chosen.tolerance)


if __name__ == "__main__":
    sys.exit(main())
