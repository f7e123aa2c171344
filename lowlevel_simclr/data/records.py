"""Makes a listing of encoded images that lie in larger files, many images to a file. Each image is a record.

The listing (`image_folder.Listing`) has the splits and the labels of the images. `shards.py` finds the files.
`tfrecord.py`, `parquet.py` and `tfds.py` read them.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from lowlevel_simclr.data.dataset import UNLABELLED, DataError, choose_held_out
from lowlevel_simclr.data.encoded import Encoded, Selected
from lowlevel_simclr.data.folder_layout import choose_splits
from lowlevel_simclr.data.image_file import LARGEST_IMAGE_FILE, Shape, UnreadableError, parse_shape
from lowlevel_simclr.data.image_folder import Listing
from lowlevel_simclr.data.image_index import IDENTITY, read_identities
from lowlevel_simclr.data.table_layout import hash_labels, number_names
from lowlevel_simclr.runtime.files import open_regular_file

Label = int | str | None  # None, a negative number or an empty text means that there is no label


class Records(NamedTuple):
    """The images in some files, in the order of the files.

    Attributes:
        source: the encoded images.
        names: the name of each image: the path of its file, `#` and the number of the record, counted from 0.
        kinds: the split of each image, "train", "test" or "validation", or an empty text.
        labels: the label of each image.
        classes: the names of the labels 0, 1, ... None: the text of a label is its name.
        left_out: a dict from path to reason, for files that cannot be read completely.
        shown: a dict from each of the `kinds` to a text such as "4 train files".
    """

    source: Encoded
    names: Sequence[str]
    kinds: Sequence[str]
    labels: Sequence[Label]
    classes: Sequence[str] | None
    left_out: Mapping[str, str]
    shown: Mapping[str, str]


class Slices:
    """Encoded images that are ranges of bytes in a few files, see `encoded.Encoded`."""

    def __init__(self, files: Sequence[Path], places: np.ndarray, names: Sequence[str]) -> None:
        """Take the file number, the offset and the length of each image: (n, 3) int64. The last two are in bytes."""
        self._files, self._places, self._names = files, places, names

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self._places)

    def name(self, row: int) -> str:
        """Return the path of the file, `#` and the number of the record."""
        number = self._names[row].rpartition("#")[2]
        return f"{self._files[self._places[row, 0]]}#{number}"

    def read(self, row: int) -> bytes:
        """Return the bytes of an image, see `encoded.Encoded`."""
        file, offset, length = (int(each) for each in self._places[row])
        if length > LARGEST_IMAGE_FILE:
            raise UnreadableError(f"has {length} bytes, more than LARGEST_IMAGE_FILE ({LARGEST_IMAGE_FILE} bytes)")
        try:
            with open_regular_file(self._files[file], 2**63, "the largest file") as opened:
                opened.seek(offset)
                content = opened.read(length)
        except OSError as error:
            raise UnreadableError(f"cannot be read: {error.strerror}") from error
        if len(content) < length:
            raise UnreadableError("cannot be read: the file is shorter than it was")
        return content

    def read_shape(self, row: int) -> Shape:
        """Return the shape of an image, see `encoded.Encoded`."""
        return parse_shape(self.read(row))


def arrange_records(shown: Path, root: Path, files: Sequence[str], records: Records, seed: int) -> Listing:
    """Return the listing of images in records.

    Args:
        shown: the name of the data set in messages.
        root: the folder of the files.
        files: the paths of the files, relative to `root`.
        records: the images.
        seed: chooses the images to hold out if there is no split to hold out.

    Raises:
        DataError: if there is no image, or if a label has no name.
    """
    if not len(records.source):
        raise DataError(f"{shown} has no images. {_explain_left_out(records.left_out)}")
    kinds = np.array(records.kinds)
    chosen, held = _choose_splits(shown, records)
    train, test = np.flatnonzero(kinds == chosen), np.flatnonzero(kinds == held)
    if held is None:
        away = choose_held_out(len(train), seed)
        train, test = train[~away], train[away]
    rows = np.concatenate([train, test])
    names = tuple(records.names[row] for row in rows)
    labels, classes = number_labels(shown, [records.labels[row] for row in rows], records.classes)
    folders = {
        "train": [records.shown[chosen]],
        "test": [] if held is None else [records.shown[held]],
        "unused": [words for kind, words in records.shown.items() if kind not in (chosen, held)],
    }
    return Listing(
        root=shown,
        paths=names,
        source=Selected(records.source, rows),
        train=len(train),
        labels=labels,
        classes=classes,
        stamp=hash_files(root, files),
        counts={"not_images": 0, "outside_splits": len(kinds) - len(rows)},
        left_out=dict(records.left_out),
        folders={} if set(records.shown) == {""} else folders,
        tables=hash_labels(len(train), labels, classes),
        identities=_identify_records(root, names),
    )


def _identify_records(root: Path, names: Sequence[str]) -> np.ndarray:
    """Return the identity (n, 5) int64 of every record, see `image_index.read_identities`.

    An image index recognises a record by its identity. This is the identity of the file that holds the record, but with
    the number of the record in place of the size of the file.
    """
    parts = [name.rpartition("#") for name in names]
    files = {file: place for place, file in enumerate(dict.fromkeys(file for file, _, _ in parts))}
    identities = read_identities(root, list(files))[[files[file] for file, _, _ in parts]]
    identities[:, IDENTITY.index("size")] = [int(number) for _, _, number in parts]
    return identities


def hash_files(root: Path, files: Iterable[str]) -> str:
    """Return a SHA-256 over the paths, sizes and modification times of files."""
    digest = hashlib.sha256()
    for file in files:
        try:
            status = os.stat(root / file)
            said = (status.st_size, status.st_mtime_ns)
        except OSError:  # the file was left out, because it cannot be read
            said = (-1, -1)
        digest.update(repr((file, *said)).encode())
    return digest.hexdigest()


def _choose_splits(shown: Path, records: Records) -> tuple[str, str | None]:
    """Return the split to train on, and the split to hold out (None if the seed chooses the images to hold out).

    Raises:
        DataError: if there are several splits, and none of them is for training.
    """
    kinds = set(records.kinds)
    if len(kinds) == 1:
        return records.kinds[0], None
    chosen, held = choose_splits(kinds)
    if chosen not in kinds:
        raise DataError(f"{shown} has images only in the splits {', '.join(sorted(kinds))}. Use --splits none.")
    return chosen, held or None


def _explain_left_out(left_out: Mapping[str, str]) -> str:
    """Return a sentence about the files that could not be read. It names the first of them."""
    if not left_out:
        return "Give files with images."
    path, reason = next(iter(left_out.items()))
    which = "1 file was left out:" if len(left_out) == 1 else f"{len(left_out)} files were left out, the first is"
    return f"{which} {path}: {reason}."


def number_labels(
    shown: Path, labels: Sequence[Label], names: Sequence[str] | None
) -> tuple[np.ndarray, tuple[str, ...]]:
    """Return class numbers (n,) int64 and the names of the classes.

    Args:
        shown: the name of the data set in messages.
        labels: the label of each image.
        names: the names of the labels 0, 1, ... None: the text of a label is its name, and numbers may have gaps.

    Raises:
        DataError: if a label has no name.
    """
    if names is None:
        return number_names(["" if _is_missing(label) else str(label) for label in labels])
    wrong = next((label for label in labels if isinstance(label, str) or (label or 0) >= len(names)), None)
    if wrong is not None:
        raise DataError(f"{shown} has the label {wrong}, but only {len(names)} names of labels. Repair the data set.")
    numbers = [UNLABELLED if _is_missing(label) else label for label in labels]
    return np.array(numbers, np.int64), tuple(names)


def _is_missing(label: Label) -> bool:
    return label is None or label == "" or (isinstance(label, int) and label < 0)
