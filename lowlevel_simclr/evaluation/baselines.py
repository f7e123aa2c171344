"""Measures the baselines of an evaluation once: the accuracies that the untrained encoder and the plain pixels reach.

The baselines do not depend on the training. So every run on the same images with the same encoder and seed has the same
baselines. Each baseline is kept as one small file in the user's cache folder
(`$XDG_CACHE_HOME/lowlevel_simclr/baselines` or `~/.cache/lowlevel_simclr/baselines`). The file records what the
baseline was measured on: a hash of all images and labels, the weights, the test transform (scaling and resizing of the
images), and the settings of the protocols. A protocol is a way to classify the images: k nearest neighbours (k-NN) or a
linear classifier (linear probe). A kept baseline is used again only if all of these are the same. The folder can be
deleted at any time. With LOWLEVEL_SIMCLR_BASELINES=off, the program neither reads nor writes it.

For data sets with fewer than KEPT_FROM images, nothing is kept, because measuring takes only seconds.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import os
import sys
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import tensorflow as tf

from lowlevel_simclr.config.names import show_name
from lowlevel_simclr.data.dataset import DataSet, has_labels
from lowlevel_simclr.data.fingerprint import describe_content
from lowlevel_simclr.data.image_file import READER
from lowlevel_simclr.data.transform import UNSCALED, PixelScaling, find_transform
from lowlevel_simclr.evaluation import knn, linear_probe, summary
from lowlevel_simclr.evaluation.kinds import KINDS
from lowlevel_simclr.evaluation.represent import Represented, hash_weights, represent_pixels
from lowlevel_simclr.runtime.files import find_user_cache, lock_file, read_regular_file, write_atomically

SWITCH = "LOWLEVEL_SIMCLR_BASELINES"
KEPT_FROM = 10_000  # images, training and test split together
LARGEST_ENTRY = 2**20  # bytes; an entry has about 1000 bytes
# Raise the version whenever a change of the program changes the accuracies that the same rows give.
PROTOCOL = {
    "version": 1,
    "knn": [*knn.KNN_COUNTS, knn.KNN_TEMPERATURE],
    "linear": [linear_probe.PROBE_C, linear_probe.PROBE_TOLERANCE, linear_probe.PROBE_ITERATIONS],
    "pixels": "reduced to 32 x 32 if larger than 64 x 64",
}
Say = Callable[[str], object]


class Baseline(NamedTuple):
    """The rows that a baseline classifies, one for each image: the untrained encoder's outputs (h), or the pixels.

    Attributes:
        made_of: all values that the rows depend on, besides the images, as JSON values.
        make_rows: function that computes the rows. It is called only if the accuracies are not kept.
    """

    made_of: dict[str, Any]
    make_rows: Callable[[], Represented]


def describe_encoder(encoder: tf.keras.Model, images: DataSet, scaling: PixelScaling = UNSCALED) -> dict[str, Any]:
    """Return everything besides the images that the encoder's outputs (h) depend on, as JSON values.

    Args:
        encoder: the encoder (f).
        images: the images. Their shape decides whether they are resized.
        scaling: the scaling of the pixels.
    """
    return {
        "encoder": [encoder.name, list(encoder.input_shape), hash_weights(encoder)],
        "transform": find_transform(encoder, scaling).describe(images.train.images),
    }


def measure_baselines(
    untrained: Baseline | None, images: DataSet, say: Say, protocols: Collection[str] = summary.FROZEN
) -> dict[str, Any]:
    """Return the accuracies of k-NN and linear probe on the untrained encoder's outputs and on pixels.

    Args:
        untrained: the rows of the untrained encoder, or None if its weights cannot be built.
        images: the data set. Without labels the result is empty.
        say: called with a line of text before each measurement, and for each baseline that is read from the cache.
        protocols: "knn", "linear" or both.

    Returns:
        A dict with the keys of evaluation.json: "knn_untrained", "linear_untrained", "knn_pixels", "linear_pixels" and
        "notes". See `summary.measure_frozen`.
    """
    if not has_labels(images):
        return {}
    pixels = Baseline({}, lambda: represent_pixels(images))
    kinds = {**({"_untrained": untrained} if untrained else {}), "_pixels": pixels}
    folder = choose_folder(images)
    task = _describe_task(images, protocols) if folder else {}
    results: dict[str, Any] = {}
    for name, kind in kinds.items():
        measure = functools.partial(_measure_kind, name, kind.make_rows, images, say, protocols)
        found = _read_or_measure(folder, name, {**kind.made_of, **task}, measure, say) if folder else measure()
        results = join_results(results, found)
    return results


def _measure_kind(
    name: str, make_rows: Callable[[], Represented], images: DataSet, say: Say, protocols: Collection[str]
) -> dict[str, Any]:
    """Return the accuracies of one baseline (untrained encoder or pixels), with the keys of evaluation.json."""
    found = summary.measure_frozen({name: make_rows()}, images, say=say, protocols=protocols)
    return {key: value for key, value in found.items() if key not in ("schema", "train_on")}


def join_results(first: Mapping[str, Any], second: Mapping[str, Any]) -> dict[str, Any]:
    """Merge two results for evaluation.json and their notes. Entries of the second replace those of the first."""
    notes = {**first.get("notes", {}), **second.get("notes", {})}
    return {**first, **second, **({"notes": notes} if notes else {})}


def choose_folder(images: DataSet) -> Path | None:
    """Return the folder for the kept accuracies, or None if accuracies on these images are not kept."""
    asked = os.environ.get(SWITCH, "on")
    if asked not in ("on", "off"):
        print(f"warning: {SWITCH} is '{show_name(asked)}', which counts as on. Use on or off.", file=sys.stderr)
    if asked == "off" or len(images.train.labels) + len(images.test.labels) < KEPT_FROM:
        return None
    cache = find_user_cache()
    return cache / "baselines" if cache else None


def _describe_task(images: DataSet, protocols: Collection[str]) -> dict[str, Any]:
    """Return what the accuracies depend on besides the rows, as JSON values: a hash of the data, and the protocols."""
    return {
        "data": describe_content(images),
        "frames": images.record.get("frames"),
        "reader": READER,
        "protocols": sorted(protocols),
        "settings": PROTOCOL,
    }


def _read_or_measure(
    folder: Path, name: str, made_of: dict[str, Any], measure: Callable[[], dict[str, Any]], say: Say
) -> dict[str, Any]:
    """Return the kept accuracies of one baseline. If they are not kept yet, measure and keep them."""
    path = folder / f"{name.strip('_')}-{_hash_json(made_of)[:32]}.json"
    kept = read_entry(path, made_of)
    if kept is not None:
        say(f"baseline, {KINDS[name]}: measured by an earlier run, read from {show_name(path)}")
        return kept
    found = measure()
    write_entry(path, made_of, found)
    return found


def read_entry(path: Path, made_of: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the kept accuracies, or None if the file is missing or cannot be used.

    A damaged file is renamed, and a warning on stderr says so.

    Args:
        path: the file of the entry.
        made_of: what the accuracies must have been measured on, as JSON values.
    """
    try:
        entry = json.loads(read_regular_file(path, LARGEST_ENTRY, "LARGEST_ENTRY"))
        if entry["checksum"] != _hash_json([entry["made_of"], entry["results"]]):
            raise ValueError("its checksum is wrong")
        if _hash_json(entry["made_of"]) != _hash_json(made_of):
            raise ValueError("it belongs to other data")
    except FileNotFoundError:
        return None
    except OSError as error:
        _warn(f"The kept baseline {show_name(path)} cannot be read ({error.strerror}). It is measured again.")
        return None
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        _set_aside(path, f"{type(error).__name__}: {error}")
        return None
    return entry["results"]


def _set_aside(path: Path, reason: str) -> None:
    """Rename a damaged file, and print a warning."""
    damaged = path.with_name(path.name + ".damaged")
    with contextlib.suppress(OSError):
        os.replace(path, damaged)
    what = f"The kept baseline {show_name(path)} is damaged ({show_name(reason)})."
    _warn(f"{what} It is set aside as {damaged.name} and is measured again.")


def write_entry(path: Path, made_of: Mapping[str, Any], results: Mapping[str, Any]) -> None:
    """Write accuracies into the cache. If that fails, only print a warning, because they can be measured again.

    Args:
        path: the file of the entry.
        made_of: what the accuracies were measured on, as JSON values.
        results: the accuracies, with the keys of evaluation.json.
    """
    entry = {"checksum": _hash_json([made_of, results]), "made_of": made_of, "results": results}
    content = json.dumps(entry, indent=1).encode() + b"\n"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.closing(lock_file(path.parent / "lock", wait=True)):
            write_atomically(path, lambda file: file.write(content))
    except OSError as error:
        why = error.strerror or error
        _warn(f"The baseline could not be kept in {show_name(path.parent)} ({why}). Set {SWITCH}=off to stop this.")


def _hash_json(value: Any) -> str:
    """Return the SHA-256 of a JSON value. The order of the value's keys does not change it."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def _warn(text: str) -> None:
    print(f"warning: {text}", file=sys.stderr, flush=True)
