"""The check-up of a run: measures that training takes without labels, and conclusions from them (verdicts).

Most of the measures are about the encoder's output (h) or the projection head's output (z). They are stored in
metrics.jsonl, in the rows of the steps at which they were taken. The verdicts are stored in checkup.json.
`read_checkup` returns both. It needs neither TensorFlow nor the images, so a page about a run can use it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from lowlevel_simclr.run.atomic import RunError, explain_os_errors, write_json
from lowlevel_simclr.run.results import read_metrics, read_results

CHECKUP = "checkup.json"
SCHEMA = 1  # version of the layout of checkup.json


class Measure(NamedTuple):
    """The meaning of a column of metrics.jsonl that only the rows of a check-up have.

    Attributes:
        title: the name of the column that people see.
        meaning: how to read the column, in one or two sentences.
    """

    title: str
    meaning: str


MEASURES = {
    "alignment": Measure(
        "alignment", "Mean squared distance between the two views of an image, in normalised z. 0: they are equal."
    ),
    "uniformity": Measure(
        "uniformity", "How evenly normalised z covers the sphere. 0: all z are equal. More negative: more even."
    ),
    "rank_h": Measure("effective rank of h", "About how many directions h uses. 1: all h are alike."),
    "rank_z": Measure("effective rank of z", "About how many directions z uses. 1: all z are alike."),
    "std_z": Measure(
        "spread of z", "Mean standard deviation of normalised z. 0: all z are equal. 1/sqrt(width of z): fully spread."
    ),
    "dead_h": Measure("dead units of h", "Share of the entries of h that are 0 for every image of the sample."),
    "gradient_norm": Measure("gradient norm", "Length of the gradient of all weights at this step."),
    "update_ratio": Measure("update / weight", "Length of this step's change of all weights / length of the weights."),
    "loss_scale": Measure("float16 loss scale", "Factor of the loss that keeps small float16 gradients above 0."),
}


class Series(NamedTuple):
    """The values of one measure during training.

    Attributes:
        steps: the steps at which it was taken, in ascending order.
        values: its value at each of these steps. Steps without a finite value are left out.
    """

    steps: list[int]
    values: list[float]


@dataclasses.dataclass(frozen=True)
class Verdict:
    """Something that the check-up noticed.

    Attributes:
        kind: a word for it, such as "collapsed". A run has at most one verdict of each kind.
        step: the step after which it was noticed.
        title: what is wrong, a sentence.
        evidence: the numbers that show it, a sentence.
        advice: two things to try, sentences with flags of the command line.
        holds: whether it still held at the last check-up.
    """

    kind: str
    step: int
    title: str
    evidence: str
    advice: tuple[str, str]
    holds: bool = True


class Checkup(NamedTuple):
    """The check-up of a run.

    Attributes:
        series: a dict from names in `MEASURES` to the measures that were taken.
        verdicts: what was noticed, in the order of the steps. The list is empty if nothing was noticed.
        judged: the last step up to which the run was judged. None: the run was not judged, because an older version
            trained it, or because it has made too few steps. Then an empty list of verdicts says nothing about the run.
    """

    series: dict[str, Series]
    verdicts: list[Verdict]
    judged: int | None


def read_checkup(folder: Path) -> Checkup:
    """Return the measures and the verdicts of a run.

    Args:
        folder: the run folder. The run may still be training.

    Raises:
        RunError: if metrics.jsonl or checkup.json is damaged.

    Example:
        >>> from pathlib import Path
        >>> from lowlevel_simclr.run.checkup import read_checkup
        >>> read_checkup(Path("none")).verdicts
        []
    """
    found = read_results(folder / CHECKUP)
    try:
        verdicts = [_parse_verdict(each) for each in found.get("verdicts", [])]
        judged = None if not found else _parse_step(found["step"])
    except (KeyError, TypeError, ValueError):
        raise RunError(
            f"{folder / CHECKUP} is damaged. Remove it. To get it again, run the training command again."
        ) from None
    return Checkup(collect_series(read_metrics(folder)), verdicts, judged)


def collect_series(rows: Sequence[Mapping[str, Any]]) -> dict[str, Series]:
    """Return every measure that has a value in some rows of metrics.jsonl.

    Args:
        rows: rows of metrics.jsonl, in the order of the steps.
    """
    series = {}
    for name in MEASURES:
        taken = [(row["step"], float(row[name])) for row in rows if row.get(name) is not None]
        if taken:
            series[name] = Series([step for step, _ in taken], [value for _, value in taken])
    return series


def write_verdicts(folder: Path, step: int, verdicts: Sequence[Verdict]) -> None:
    """Write checkup.json.

    Args:
        folder: the run folder.
        step: the last step that was judged.
        verdicts: what was noticed up to this step.

    Raises:
        RunError: if the file cannot be written.
    """
    content = {"schema": SCHEMA, "step": step, "verdicts": [dataclasses.asdict(each) for each in verdicts]}
    with explain_os_errors("write the check-up of", folder):
        write_json(folder / CHECKUP, content)


def _parse_verdict(found: Any) -> Verdict:
    """Return a verdict of checkup.json.

    Raises:
        KeyError, TypeError, ValueError: if its content is not what `write_verdicts` writes.
    """
    first, second = found["advice"]
    texts = found["kind"], found["title"], found["evidence"], first, second
    if not all(isinstance(text, str) for text in texts) or not isinstance(found["holds"], bool):
        raise TypeError("a verdict has values of other types")
    kind, title, evidence, *_ = texts
    return Verdict(kind, _parse_step(found["step"]), title, evidence, (first, second), found["holds"])


def _parse_step(found: Any) -> int:
    """Return a number of steps.

    Raises:
        TypeError: if the value is not a whole number of at least 0.
    """
    if not isinstance(found, int) or isinstance(found, bool) or found < 0:
        raise TypeError("not a number of steps")
    return found
