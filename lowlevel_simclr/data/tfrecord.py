"""Reads encoded images from TFRecord files of `tf.train.Example`. An image must be under one of the usual feature keys.

To list the images, the module reads every record once. It checks the checksums, and finds where each encoded image
lies. After that, an image is read by its position in the file, without TensorFlow.
"""

from __future__ import annotations

import functools
import os
import re
import stat
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import tensorflow as tf
from google.protobuf.message import DecodeError

from lowlevel_simclr.data.dataset import DataError
from lowlevel_simclr.data.records import Label, Records, Slices, hash_files
from lowlevel_simclr.data.shards import Shards
from lowlevel_simclr.runtime.progress_bar import track

NAMED = re.compile(r"\.tfrecords?(\.|-|$)|\.tfrec$|\.records?$|-\d{5}-of-\d{5}$")  # names of TFRecord files in a folder
IMAGE_KEYS = ("image/encoded", "image", "jpeg", "jpg", "png", "webp", "image/raw", "image_raw", "encoded", "img")
LABEL_KEYS = ("image/class/label", "label", "class", "target", "image/label", "labels", "cls")
NAME_KEYS = ("image/class/text", "label_name", "class_name", "label/text")  # the name of the class as text
GZIP = b"\x1f\x8b"
_HEADER, _FOOTER = 12, 4  # bytes before the data of a record (length and its checksum), and after it (checksum)

_BUFFER = 2**20  # bytes that are read at a time


class Keys(NamedTuple):
    """The feature keys to look for. If a record has several keys of one field, the first of them is used."""

    images: tuple[str, ...] = IMAGE_KEYS
    labels: tuple[str, ...] = LABEL_KEYS
    names: tuple[str, ...] = NAME_KEYS


class Part(NamedTuple):
    """Some records of a file: `taken` records after the first `skip` ones, or all later records (`taken=None`)."""

    file: str
    kind: str
    skip: int = 0
    taken: int | None = None


def read_shards(shards: Shards) -> Records:
    """Return the images in TFRecord files, from the usual feature keys.

    Args:
        shards: the files.

    Raises:
        DataError: if no record has an image, or a file is compressed.
    """
    parts = [Part(file, kind) for file, kind in zip(shards.files, shards.kinds)]
    return read_parts(shards.root, parts, Keys(), shards.describe_kinds(), None)


def read_parts(
    root: Path, parts: Sequence[Part], keys: Keys, shown: Mapping[str, str], classes: Sequence[str] | None
) -> Records:
    """Return the images in some records of TFRecord files.

    Args:
        root: the folder of the files.
        parts: which records of which files.
        keys: the feature keys to look for.
        shown: a dict from each kind (split) of the parts to a text for messages.
        classes: the names of the labels 0, 1, ..., or None.

    Raises:
        DataError: see `read_shards`.
    """
    stamp = hash_files(root, (part.file for part in parts))
    found = _find_images(root, tuple(parts), keys, None if classes is None else tuple(classes), stamp)
    return found._replace(shown=shown)


@functools.lru_cache(maxsize=1)  # called twice in a start: to choose settings that fit the images, and to load them
def _find_images(
    root: Path, parts: tuple[Part, ...], keys: Keys, classes: tuple[str, ...] | None, stamp: str
) -> Records:
    """Return the images in some records, without `shown`.

    If a file changes, `stamp` changes too, so the cache never returns an outdated result.
    """
    places: list[tuple[int, int, int]] = []
    names: list[str] = []
    kinds: list[str] = []
    found: list[_Example] = []
    left_out: dict[str, str] = {}
    for number, part in enumerate(track(parts, "finding images in records", len(parts), "files")):
        for place, offset, example in _read_part(root, part, keys, left_out):
            places.append((number, offset + example.offset, example.length))
            names.append(f"{part.file}#{place}")
            kinds.append(part.kind)
            found.append(example)
    if found and not any(example.length for example in found):
        raise DataError(_explain_no_key(names[0], found[0].features, keys))
    labels = [example.label for example in found]
    if classes is None:
        labels = name_labels(labels, [example.text for example in found])
    files = [root / part.file for part in parts]
    source = Slices(files, np.array(places, np.int64).reshape(-1, 3), names)
    return Records(source, names, kinds, labels, classes, left_out, {})


class _Example(NamedTuple):
    """The content of a record: where the encoded image lies in it (in bytes), the label, its name, and the keys."""

    offset: int
    length: int
    label: Label
    text: str
    features: tuple[str, ...]


def _read_part(root: Path, part: Part, keys: Keys, left_out: dict[str, str]) -> Iterator[tuple[int, int, _Example]]:
    """Yield the number of each record, its offset in the file in bytes, and its content."""
    path = root / part.file
    reason = _explain_unusable(path)
    if reason:
        left_out[part.file] = reason
        return
    offset, number = _HEADER, 0
    last = None if part.taken is None else part.skip + part.taken
    try:
        for record in tf.data.TFRecordDataset(os.fsencode(path), buffer_size=_BUFFER).as_numpy_iterator():
            if last is not None and number >= last:
                return
            if number >= part.skip:
                yield number, offset, _parse_example(record, keys)
            offset, number = offset + len(record) + _HEADER + _FOOTER, number + 1
    except tf.errors.DataLossError:
        rest = "is not a TFRecord file, or is damaged" if number == 0 else f"is damaged after {number} records"
        left_out[part.file] = rest
    except tf.errors.OpError as error:
        left_out[part.file] = f"cannot be read: {error.message.partition(';')[0]}"


def _explain_unusable(path: Path) -> str:
    """Return why a file cannot be read as TFRecord, or an empty text.

    Raises:
        DataError: if the file is compressed, because an image in it cannot be read by its position.
    """
    try:
        status = os.stat(path)
        if not stat.S_ISREG(status.st_mode):  # opening a FIFO would wait for a writer
            return "is not a regular file"
        with open(path, "rb") as file:
            start = file.read(len(GZIP))
    except OSError as error:
        return f"cannot be read: {error.strerror}"
    if start == GZIP:
        raise DataError(f"{path} is compressed (gzip), and images are read by their place in it. Decompress it first.")
    return ""


def _parse_example(record: bytes, keys: Keys) -> _Example:
    """Return the content of a record. If the record has no encoded image, the length is 0."""
    try:
        features = tf.train.Example.FromString(record).features.feature
    except DecodeError:
        return _Example(0, 0, None, "", ())
    images = [list(features[key].bytes_list.value) for key in keys.images if key in features]
    encoded = images[0][0] if images and len(images[0]) == 1 else b""
    label = next((_take_label(features[key]) for key in keys.labels if key in features), None)
    text = next((_take_label(features[key]) for key in keys.names if key in features), "")
    place = record.find(encoded) if encoded else 0
    return _Example(place, len(encoded), label, text if isinstance(text, str) else "", tuple(sorted(features)))


def _take_label(feature: tf.train.Feature) -> Label:
    """Return the value of a feature, or None if the feature does not have exactly one value."""
    values = feature.int64_list.value or feature.bytes_list.value
    if len(values) != 1:
        return None
    value = values[0]
    return value.decode("utf-8", "surrogateescape") if isinstance(value, bytes) else int(value)


def name_labels(labels: Sequence[Label], texts: Sequence[str]) -> list[Label]:
    """Return the labels as names, if every label number has exactly one name that no other number has.

    If the numbers have no such names, the labels are returned unchanged. If no label is a number, a missing label is
    replaced by its text.

    Args:
        labels: numbers, texts or None.
        texts: the name of each label, or an empty text.
    """
    pairs = Counter((label, text) for label, text in zip(labels, texts) if isinstance(label, int) and label >= 0)
    if not pairs:
        return [label if label is not None else text for label, text in zip(labels, texts)]
    names = defaultdict(set)
    for label, text in pairs:
        names[label].add(text)
    one_name = all(len(each) == 1 for each in names.values()) and "" not in {text for _, text in pairs}
    if not one_name or len({text for _, text in pairs}) < len(names):
        return list(labels)
    return [text if isinstance(label, int) and label >= 0 else None for label, text in zip(labels, texts)]


def _explain_no_key(name: str, features: Sequence[str], keys: Keys) -> str:
    """Return the message for records without an encoded image."""
    held = f"has the features {', '.join(features)}" if features else "is no tf.train.Example with features"
    return f"{name} {held}, and no encoded image. The image must be under one of the keys {', '.join(keys.images)}."
