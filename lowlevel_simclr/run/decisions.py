"""The decisions of a run with a time limit (--budget), in budget.json.

Such a run is trained in segments. Just before a segment begins, a decision fixes its image size and its number of
steps.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from lowlevel_simclr.run.atomic import RunError, explain_os_errors, read_json, write_json

DECISIONS = "budget.json"


class Decision(NamedTuple):
    """A segment of the run, and what was known when it was decided.

    Attributes:
        first: the last step before the segment.
        last: the last step of the segment.
        image_size: the side of a view (randomly augmented image) in pixels (S).
        from_share: the share of the training that is done before the segment, in [0, 1).
        to_share: the share that is done after it, in (0, 1].
        elapsed: seconds of the budget that had passed when the segment was decided.
        seconds_per_step: the expected time of a step.
    """

    first: int
    last: int
    image_size: int
    from_share: float
    to_share: float
    elapsed: float
    seconds_per_step: float


def read_decisions(folder: Path) -> list[Decision]:
    """Return the decisions of a run, or an empty list if none was made yet.

    Raises:
        RunError: if budget.json is damaged.
    """
    path = folder / DECISIONS
    if not path.exists():
        return []
    rows = read_json(path).get("segments")
    found = [_parse_decision(row) for row in rows] if isinstance(rows, list) else [None]
    decisions = [decision for decision in found if decision is not None]
    if len(decisions) < len(found) or not _follow(decisions):
        raise RunError(
            f"{path} is damaged: its segments do not follow one another. Restore it, or start a new run with --fresh."
        )
    return decisions


def _parse_decision(row: object) -> Decision | None:
    """Return the decision in a row, or None if the row has other fields or types."""
    if not isinstance(row, dict) or row.keys() != set(Decision._fields):
        return None
    if not all(isinstance(value, (int, float)) and not isinstance(value, bool) for value in row.values()):
        return None
    return Decision(**row)


def _follow(decisions: Sequence[Decision]) -> bool:
    """Return whether each decision begins where the previous one ends."""
    begins = [(0, 0.0), *((each.last, each.to_share) for each in decisions)]
    return all(
        (each.first, each.from_share) == begin and each.last > each.first and each.to_share > each.from_share
        for each, begin in zip(decisions, begins)
    )


def write_decisions(folder: Path, decisions: Sequence[Decision]) -> None:
    """Write the decisions of a run, either completely or not at all.

    Raises:
        RunError: if the file cannot be written.
    """
    with explain_os_errors("write the budget of", folder):
        write_json(folder / DECISIONS, {"segments": [decision._asdict() for decision in decisions]})
