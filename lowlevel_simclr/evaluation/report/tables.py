"""Turns the numbers of a run into rows of tables: the accuracies, and the settings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from lowlevel_simclr.evaluation.kinds import KINDS
from lowlevel_simclr.evaluation.report.markup import format_number, format_share

Rows = list[list[str]]
PROTOCOL = (
    "Accuracies are shares of the held-out images. k-NN k: the k most similar training images vote, weighted by cosine "
    "similarity. linear: logistic regression (L-BFGS). Both take the frozen representation (h), or pixels."
)


def list_accuracies(evaluation: Mapping[str, Any]) -> tuple[list[str], Rows]:
    """Return the head and the rows of the table of accuracies. A row without any number is left out."""
    counts = sorted({count for kind in KINDS for count in evaluation.get("knn" + kind, ())}, key=int)
    rows = []
    for kind, what in reversed(KINDS.items()):
        neighbours = evaluation.get("knn" + kind, {})
        values = [*(neighbours.get(count) for count in counts), evaluation.get("linear" + kind)]
        if any(value is not None for value in values):
            rows.append([what, *map(format_share, values)])
    return ["what is classified", *(f"k-NN {count}" for count in counts), "linear"], rows


def list_trained_with_labels(evaluation: Mapping[str, Any]) -> Rows:
    """Return a row for each kind of training with labels: name, accuracy, spread over seeds, number of seeds."""
    seeds, found = evaluation.get("seeds", {}), []
    if "linear_augmented" in evaluation:
        found.append(("linear probe, trained on views", evaluation["linear_augmented"], seeds.get("linear_augmented")))
    for share, accuracy in sorted(evaluation.get("finetune", {}).items(), key=lambda item: float(item[0])):
        spread = seeds.get("finetune", {}).get(share)
        found.append((f"fine-tuned on {100 * float(share):g} % of the labels", accuracy, spread))
    return [
        [what, format_share(accuracy), format_share((spread or {}).get("std")), format_number((spread or {}).get("n"))]
        for what, accuracy, spread in found
    ]


def list_settings(settings: Mapping[str, Any]) -> Rows:
    """Return every setting with its value."""
    return [[name, format_setting(value)] for name, value in settings.items()]


def list_differences(every: Sequence[Mapping[str, Any]]) -> Rows:
    """Return the settings that are not the same in all runs, with the value in each run.

    Args:
        every: the settings of each run, by name.
    """
    names = dict.fromkeys(name for settings in every for name in settings)
    rows = [[name, *(format_setting(settings.get(name)) for settings in every)] for name in names]
    return [row for row in rows if len(set(row[1:])) > 1]


def format_setting(value: object) -> str:
    """Return the value of a setting as a user would type it."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return " ".join(map(format_setting, value))
    return "none" if value is None else f"{value:.6g}" if isinstance(value, float) else str(value)
