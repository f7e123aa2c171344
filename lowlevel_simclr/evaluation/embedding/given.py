"""Finds the images that a user gives to the command `embed`: files, folders and data sets, read as in training."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from lowlevel_simclr.config.choices import DATASETS, PICTURE_FORMS
from lowlevel_simclr.config.names import OneLineError
from lowlevel_simclr.data.catalog import load_dataset
from lowlevel_simclr.data.dataset import DataSet, Split
from lowlevel_simclr.data.encoded import Drawn, Encoded, Files, Joined
from lowlevel_simclr.data.fingerprint import describe_content
from lowlevel_simclr.data.image_walk import ENDINGS
from lowlevel_simclr.data.picture_forms import Request, find_pictures
from lowlevel_simclr.runtime.progress_bar import track

READ_CHANNELS = (1, 3)  # grey, or red, green and blue


class EmbedError(OneLineError, RuntimeError):
    """Images that cannot be embedded. The message says why and what to do."""


class Given(NamedTuple):
    """Images that can be embedded.

    Attributes:
        source: the images in the order given. The files of a folder are sorted by name.
        labels: for each image, the name of its class, or an empty text. If no image has a class, the sequence is empty.
        left_out: the paths in the folders that are not used, each with the reason. These are folders that cannot be
            listed, run folders, and images in formats that this package does not read.
        notes: sentences for the user that say why labels are missing.
        arrays: descriptions, with a hash, of the data sets whose images are arrays and not files.
    """

    source: Encoded
    labels: Sequence[str] = ()
    left_out: Sequence[tuple[str, str]] = ()
    notes: Sequence[str] = ()
    arrays: Sequence[str] = ()


def find_given(paths: Sequence[Path], own: Request | None = None) -> Given:
    """Return the given files, and the images that training would find in the given folders and data sets.

    Args:
        paths: paths of files or folders, or data sets as `--dataset` takes them, such as list:FILE or shapes.
        own: the data set of the run. If it or its folder is among `paths`, it is read with the settings of the run.

    Raises:
        EmbedError: if a path does not exist, if there is no image at all, or if images have 2 or 4 channels.
        DataError: if a data set has no images.
    """
    parts = [_find_one(path, own) for path in paths]
    source = Joined([part.source for part in parts])
    left_out = [each for part in parts for each in part.left_out]
    if not len(source):
        why = f" {len(left_out)} were left out, the first is {left_out[0][0]}: {left_out[0][1]}." if left_out else ""
        raise EmbedError(
            f"There is no image in {', '.join(map(str, paths))}.{why} Image files must end in "
            f"{' '.join(sorted(ENDINGS))}."
        )
    labels = [label for part in parts for label in part.labels]
    notes = [note for part in parts for note in part.notes]
    arrays = [array for part in parts for array in part.arrays]
    return Given(source, labels if any(labels) else (), left_out, notes, arrays)


def _find_one(path: Path, own: Request | None) -> Given:
    """Return the images of one path or data set. `labels` has an entry for each image, which may be an empty text."""
    name = str(path)
    there = os.path.lexists(path)
    if (name in DATASETS or name.startswith("npz:")) and not there:
        return _draw_arrays(own if own and own.dataset == name else Request(name))
    if name.startswith(PICTURE_FORMS) and not there:
        return _find_in_folder(Request(name), own) if not own or own.dataset != name else _find_pictures(own)
    if _is_folder(path):
        return _find_in_folder(Request(f"folder:{name}"), own)
    return Given(Files(Path(), [name]), [""])


def _find_in_folder(request: Request, own: Request | None) -> Given:
    """Return the images of a folder or of another data set. The folder of the run is read with its settings."""
    if own is None or not _is_same_folder(own, request):
        return _find_pictures(request)
    labels, split = (str(file.absolute()) if file else None for file in (own.tables.labels, own.tables.split))
    gone = [file for file in (labels, split) if file and not os.path.isfile(file)]
    if gone:
        given = _find_pictures(request._replace(splits=own.splits))
        return given._replace(notes=[*given.notes, f"The labels are the folders, because {gone[0]} is not there."])
    return _find_pictures(request._replace(splits=own.splits, labels=labels, split=split))


def _is_same_folder(one: Request, other: Request) -> bool:
    folders = all(each.dataset.startswith("folder:") for each in (one, other))
    return folders and os.path.realpath(one.path) == os.path.realpath(other.path)


def _find_pictures(request: Request) -> Given:
    found = find_pictures(request)
    notes = [f"No labels are written for {request.path}. {found.no_labels}"] if found.no_labels else []
    return Given(found.source, found.labels, list(found.left_out.items()), notes)


def _draw_arrays(request: Request) -> Given:
    """Return the images of a data set that consists of arrays: first the training split, then the test split.

    Raises:
        EmbedError: if the images have 2 or 4 channels.
    """
    images = load_dataset(request.dataset, request.data_dir, request.seed)
    splits = {"train": images.train, "test": images.test}
    channels = images.train.images.shape[-1]
    if channels not in READ_CHANNELS:
        raise EmbedError(
            f"{request.dataset} has images with {channels} channels, but embed takes 1 or 3. Load encoder.keras of the "
            "run and call it on your arrays."
        )
    source = Joined([Drawn(f"{request.dataset}/{name}", split.images) for name, split in splits.items()])
    labels = [label for split in splits.values() for label in _name_labels(images, split)]
    return Given(source, labels, arrays=[str(describe_content(images))])


def _name_labels(images: DataSet, split: Split) -> list[str]:
    """Return for each image of a split the name of its class, or an empty text."""
    return ["" if number < 0 else images.classes[number] for number in split.labels.tolist()]


def _is_folder(path: Path) -> bool:
    """Return True if a path is a folder, and False if it is a file.

    Raises:
        EmbedError: if it is neither a folder nor a file, or cannot be accessed.
    """
    try:
        return stat.S_ISDIR(os.stat(path).st_mode)
    except (FileNotFoundError, NotADirectoryError):
        raise EmbedError(f"{path} does not exist. Give image files, or folders of image files.") from None
    except OSError as error:
        raise EmbedError(f"{path} cannot be read: {error.strerror}. Change its permissions.") from None


def hash_given(given: Given) -> str:
    """Return a SHA-256 over the names, sizes and modification times of the images. It changes when a file changes."""
    digest = hashlib.sha256(repr(list(given.arrays)).encode())
    count = len(given.source)
    for row in track(range(count), "looking at the files", count, "images"):
        name = given.source.name(row)
        digest.update(repr((name, _identify(name))).encode("utf-8", "surrogateescape"))
    return digest.hexdigest()


def _identify(name: str) -> tuple[int, int] | None:
    """Return the size and the modification time of an image's file, or None if the image is not in a file."""
    for path in (name, name.rpartition("#")[0]):  # an image inside a larger file is named FILE#NUMBER
        try:
            status = os.stat(path)
            return status.st_size, status.st_mtime_ns
        except (OSError, ValueError):
            continue
    return None
