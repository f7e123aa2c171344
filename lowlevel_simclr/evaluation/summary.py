"""Measures the accuracies on the outputs (h) of a frozen encoder, and formats evaluation.json as a text table.

This module does not train the encoder. The labels of the test split are only used to measure, and influence no choice.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from lowlevel_simclr.data.dataset import DataSet, describe_unlabelled, find_labelled, has_labels
from lowlevel_simclr.evaluation.kinds import KINDS
from lowlevel_simclr.evaluation.knn import KNN_COUNTS, classify_by_neighbours
from lowlevel_simclr.evaluation.linear_probe import fit_linear_probe
from lowlevel_simclr.evaluation.represent import Represented

FROZEN = ("knn", "linear")  # the protocols that need only h
SCHEMA = 1  # version of the layout of evaluation.json
Say = Callable[[str], object]


def measure_frozen(
    h: Mapping[str, Represented],
    images: DataSet,
    train_on: str = "train",
    say: Say = lambda text: None,
    protocols: Collection[str] = FROZEN,
    seeds: int = 1,
) -> dict[str, Any]:
    """Return the accuracies of k-NN and linear probe on the outputs of encoders and on pixels, for evaluation.json.

    Args:
        h: the rows to classify, by their kind: "" for the trained encoder, "_untrained" and "_pixels". The keys in
            evaluation.json end with the kind.
        images: the data set, with labels.
        train_on: the splits on which the encoder was trained, "train" or "all".
        say: called with a line before each measurement, because it can take minutes.
        protocols: "knn", "linear" or both.
        seeds: the number of seeds of the evaluation. The linear probe draws nothing at random, so its accuracy is the
            same for each seed.

    Returns:
        {"schema": 1, "train_on": .., "knn": {"20": ..}, "knn_pixels": .., "linear": ..}, with accuracies in [0, 1].
        Without labels, or with one class, it has no accuracies. "notes" has a sentence for each key whose number needs
        an explanation. If there are several seeds, it also has {"seeds": {"linear": {"mean": .., "std": .., "n":
        ..}}}.
    """
    results: dict[str, Any] = {"schema": SCHEMA, "train_on": train_on}
    if has_labels(images):
        rows, labels = _select_labelled(h, images)
        notes: dict[str, str] = {}
        if "knn" in protocols:
            results |= _measure_knn(rows, labels, say, notes)
        if "linear" in protocols:
            results |= _measure_probes(rows, labels, seeds, say, notes)
        results |= {"notes": notes} if notes else {}
    missing = describe_unlabelled(images)
    return {**results, "notes": {**results.get("notes", {}), "labels": missing}} if missing else results


class _Labels(NamedTuple):
    """The class numbers of the labelled images: (n,) to train with, (m,) to test with."""

    train: np.ndarray
    test: np.ndarray


def _select_labelled(h: Mapping[str, Represented], images: DataSet) -> tuple[dict[str, Represented], _Labels]:
    """Return the rows of the images that have a label, and their labels."""
    train, test = (find_labelled(split) for split in (images.train, images.test))
    labels = _Labels(images.train.labels[train], images.test.labels[test])
    if (len(train), len(test)) == (len(images.train.labels), len(images.test.labels)):
        return dict(h), labels
    return {name: Represented(rows.train[train], rows.test[test]) for name, rows in h.items()}, labels


def _measure_knn(h: Mapping[str, Represented], labels: _Labels, say: Say, notes: dict[str, str]) -> dict[str, Any]:
    """Return the k-NN accuracies of each kind of rows. Add a note if there are fewer train images than neighbours."""
    results: dict[str, Any] = {}
    for name, rows in h.items():
        title = f"k-NN, {KINDS[name]}"
        say(f"{title} ...")
        results["knn" + name] = classify_by_neighbours(
            rows.train, labels.train, rows.test, labels.test, KNN_COUNTS, title
        )
    count = len(labels.train)
    few = [str(wanted) for wanted in KNN_COUNTS if wanted > count]
    if few:
        notes["knn"] = f"only {count} train images: all of them vote for k = {', '.join(few)}"
    return results


def _measure_probes(
    h: Mapping[str, Represented], labels: _Labels, seeds: int, say: Say, notes: dict[str, str]
) -> dict[str, Any]:
    """Return the accuracy of the linear probe for each kind of rows. Add a note if the solver did not converge."""
    results: dict[str, Any] = {}
    for name, rows in h.items():
        title = f"linear probe, {KINDS[name]}"
        say(f"{title} ...")
        probe = fit_linear_probe(rows.train, labels.train, rows.test, labels.test, title)
        results["linear" + name] = probe.accuracy
        if seeds > 1 and not name:
            results["seeds"] = {"linear": summarise([probe.accuracy] * seeds)}
        if not probe.converged:
            notes["linear" + name] = f"the solver stopped after {probe.iterations} iterations, not converged"
    return results


def summarise(values: Sequence[float]) -> dict[str, Any]:
    """Return the mean, the sample standard deviation and the number of some accuracies, as a dict.

    Example:
        >>> summarise([0.5])
        {'mean': 0.5, 'std': None, 'n': 1}
    """
    spread = float(np.std(values, ddof=1)) if len(values) > 1 else None
    return {"mean": float(np.mean(values)), "std": spread, "n": len(values)}


def format_table(evaluation: Mapping[str, Any]) -> str:
    """Return the contents of evaluation.json as a text table. A dash stands for a value that was not measured."""
    counts = sorted({count for name in KINDS for count in evaluation.get("knn" + name, ())}, key=int)
    inflated = ["trained on train and test images together, which inflates these numbers"]
    inflated = inflated if evaluation.get("train_on") == "all" else []
    ran = ("linear", "linear_pixels", "finetune", "linear_augmented")
    notes = [f"{_name_measurement(key)}: {note}" for key, note in evaluation.get("notes", {}).items()]
    if not counts and not any(name in evaluation for name in ran):
        skipped = "k-NN and linear probe were skipped, because they need labels of at least two classes"
        return "\n".join([skipped, *inflated, *notes])
    titles = [*(f"k-NN {count}" for count in counts), "linear"]
    lines = [f"{'accuracy, 0 to 1':<18}" + "".join(f"{title:>10}" for title in titles)]
    for name, what in KINDS.items():
        neighbours = evaluation.get("knn" + name, {})
        values = [*(neighbours.get(count) for count in counts), evaluation.get("linear" + name)]
        if any(value is not None for value in values):
            cells = ("-" if value is None else f"{value:.3f}" for value in values)
            lines.append(f"{what:<18}" + "".join(f"{cell:>10}" for cell in cells))
    lines += _format_trained_with_labels(evaluation)
    lines.append(
        "  k-NN k: vote of the k most similar training images. linear: a linear classifier. Both take h or pixels."
    )
    if "transform" in evaluation:
        lines.append(f"  images: {evaluation['transform']}")
    return "\n".join([*lines, *inflated, *notes])


def _name_measurement(key: str) -> str:
    """Return a readable name for a key of evaluation.json, such as 'linear probe, pixels' for linear_pixels."""
    protocol, _, kind = key.partition("_")
    return {"knn": "k-NN", "linear": f"linear probe, {KINDS.get(f'_{kind}' if kind else '', kind)}"}.get(protocol, key)


def _format_trained_with_labels(evaluation: Mapping[str, Any]) -> list[str]:
    """Return a line for the linear probe trained on views, and a line for each share of labels used by fine-tuning.

    Each line has the spread over the seeds. With several seeds, the last line is for the linear probe on the trained
    encoder's h.
    """
    seeds = evaluation.get("seeds", {})
    lines = []
    if "linear_augmented" in evaluation:
        spread = _format_spread(seeds.get("linear_augmented"))
        lines.append(f"linear probe, trained on views: {evaluation['linear_augmented']:.3f}{spread}")
    for fraction, accuracy in sorted(evaluation.get("finetune", {}).items(), key=lambda item: float(item[0])):
        spread = _format_spread(seeds.get("finetune", {}).get(fraction))
        lines.append(f"fine-tuned on {100 * float(fraction):g}% of the labels: {accuracy:.3f}{spread}")
    if "linear" in seeds:
        lines.append(f"linear probe, trained encoder: {seeds['linear']['mean']:.3f}{_format_spread(seeds['linear'])}")
    return lines


def _format_spread(found: Mapping[str, Any] | None) -> str:
    """Return ' +- 0.004 (3 seeds)', or '' if there is no spread."""
    return "" if not found or found["std"] is None else f" +- {found['std']:.3f} ({found['n']} seeds)"
