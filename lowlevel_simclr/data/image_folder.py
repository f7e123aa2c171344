"""A folder of images -> a data set: in memory, or streamed from its files where it is large.

`train/` and `test/` at the top are the splits; without `test/` a tenth of the images is held out by the seed. The label
is the name of the folder that a file lies in; a file at the top of a split has none. Hidden files and folders, and
files that are no images by their ending, are only counted.

Every image that can be opened is of one shape (`common_shape`), so that a batch is one array: `picture.py` says how a
file becomes pixels. Every file is decoded once before the first step. What cannot be read is left out, is named in
data.json and shifts nothing: splits and class numbers are decided from the names alone, before a file is opened.
"""

from __future__ import annotations

import collections
import hashlib
import os
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from tqdm import tqdm

from lowlevel_simclr.config.choices import SPLITS
from lowlevel_simclr.data import image_file
from lowlevel_simclr.data.dataset import UNLABELLED, DataError, DataSet, Split, choose_held_out
from lowlevel_simclr.data.image_file import SMALLEST, Shape, UnreadableError

ENDINGS = frozenset(".jpg .jpeg .jpe .jfif .png .webp .bmp".split())
_AT_ONCE = 1024  # files handed to the threads together


class Listing(NamedTuple):
    """The image files of a folder, those to train on first, each split in the order of its names."""

    root: Path
    paths: tuple[str, ...]  # relative, with /
    train: int  # how many are trained on; the rest is held out
    labels: np.ndarray  # (n,) int64
    classes: tuple[str, ...]
    stamp: str  # SHA-256 over paths, sizes and times of change
    counts: dict[str, int]  # what else lies there


class FoundImages(NamedTuple):
    """What reading every file gave."""

    reasons: dict[int, str]  # why a file cannot be used, by its place in the listing
    content: str  # SHA-256 over the paths and contents of all files


def load(
    name: str,
    root: Path,
    seed: int = 0,
    *,
    largest_side: int,
    memory_limit: float = 4.0,
    at_least: int = 1,
    before: Mapping[str, Any] | None = None,
) -> DataSet:
    """The data set in a folder.

    Args:
        name: of the data set.
        root: the folder.
        seed: holds out the test images where there is no test/.
        largest_side: images whose shorter side is longer than this, in pixels, are stored smaller.
        memory_limit: GiB; a set that takes more is streamed: its images are decoded each time they are wanted.
        at_least: images to train on that are needed; fewer are refused before any file is opened.
        before: what data.json says of this folder from an earlier session. Where no file has changed since, it is
            taken as it stands; where files have, the folder is read anew and must still hold the same.

    Raises:
        DataError: no folder, no images in it, none that can be read, too few, or others than `before`.
    """
    listing = list_images(root, seed)
    _refuse_few(listing, at_least)
    same = {"listing": listing.stamp, "largest_side": largest_side}.items() <= (before or {}).items()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's, about odd notes in files that it reads all the same
        shape = Shape(*before["shape"]) if before and same else choose_common_shape(listing, largest_side)
        if len(listing.paths) * int(np.prod(shape)) > memory_limit * 2**30:
            found = _read_recorded(listing, before) if before and same else read_all(listing, shape)
            images: Any = FolderImages(root, [listing.paths[row] for row in _list_readable(listing, found)], shape)
        else:
            held = np.zeros((len(listing.paths), *shape), np.uint8)
            found = read_all(listing, shape, held)
            images = _close_gaps(held, _list_readable(listing, found))
    record = _make_record(listing, found, shape, largest_side)
    _refuse_change(root, before, record)
    return _make_dataset(name, listing, found, images, record)


# What lies in the folder


def list_images(root: Path, seed: int) -> Listing:
    """The image files of a folder by their endings, in splits and classes; no file is opened.

    Raises:
        DataError: there is no such folder, or no image in it or in train/.
    """
    if not root.is_dir():
        what = "is a file" if root.exists() else "is not there"
        raise DataError(f"the folder {root} {what}: give folder:PATH with the path of a folder of images")
    every = sorted(_walk(root))
    paths = [path for path in every if os.path.splitext(path)[1].lower() in ENDINGS]
    if not paths:
        raise DataError(
            f"{root} holds no images ({len(every)} other files{': ' + every[0] if every else ''}): "
            f"give a folder with {', '.join(sorted(ENDINGS))} files"
        )
    train, test, outside = _find_splits(root, paths, seed)
    names = [_find_class(path) for path in (*train, *test)]
    classes = tuple(sorted({name for name in names if name}))
    numbers = {name: number for number, name in enumerate(classes)}
    labels = np.array([numbers.get(name, UNLABELLED) for name in names], np.int64)
    counts = {"not_images": len(every) - len(paths), "outside_splits": outside}
    return Listing(root, (*train, *test), len(train), labels, classes, _read_stamp(root, (*train, *test)), counts)


def _walk(root: Path) -> Iterator[str]:
    """Every file that is not hidden, by its path from the root, links followed once."""
    seen = set()
    for folder, folders, files in os.walk(root, followlinks=True):
        real = os.path.realpath(folder)
        if real in seen:  # a link back into the tree
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        inside = os.path.relpath(folder, root).replace(os.sep, "/")
        yield from (name if inside == "." else f"{inside}/{name}" for name in files if not name.startswith("."))


def _find_splits(root: Path, paths: Sequence[str], seed: int) -> tuple[list[str], list[str], int]:
    """Paths to train on, paths held out, and how many are in neither."""
    test = [path for path in paths if path.startswith("test/")]
    train = [path for path in paths if path.startswith("train/")]
    rest = len(paths) - len(train) - len(test)
    if not train:
        train, rest = [path for path in paths if not path.startswith("test/")], 0
    if not train:
        raise DataError(f"{root} holds images under test/ only: put those to train on under train/")
    if not test:
        away = choose_held_out(len(train), seed)
        test = [path for path, out in zip(train, away) if out]
        train = [path for path, out in zip(train, away) if not out]
    return train, test, rest


def _find_class(path: str) -> str:
    """The name of the folder that a file lies in; none at the top of a split."""
    folders = path.split("/")[:-1]
    if folders and folders[0] in SPLITS:
        folders = folders[1:]
    return folders[-1] if folders else ""


def _read_stamp(root: Path, paths: Iterable[str]) -> str:
    """SHA-256 over the paths, sizes and times of change, which change when a file does."""
    digest = hashlib.sha256()
    for path in paths:
        try:
            status = os.stat(root / path)
            said = (status.st_size, status.st_mtime_ns)
        except OSError:  # a link to nowhere; reading it gives the reason
            said = (-1, -1)
        digest.update(repr((path, *said)).encode())
    return digest.hexdigest()


def _refuse_few(listing: Listing, at_least: int) -> None:
    """Refuses a batch that cannot be filled before any file is opened."""
    if listing.train < at_least:
        raise DataError(
            f"the batch size is {at_least} and there are {listing.train} images to train on in {listing.root}: "
            f"give a batch size from 1 to {listing.train}"
        )


# Every file, once


def choose_common_shape(listing: Listing, largest_side: int) -> Shape:
    """The one shape that all images are stored in, from what the files say of themselves.

    Where all are of one size it is that size, so that no pixel is cut off; else a square whose side is the median of
    the shorter sides: larger images are scaled down to it, smaller ones up, and long ones lose their ends. Either way
    the shorter side is at most `largest_side`. One channel where every image is grey, else three.

    Raises:
        DataError: no file can be opened.
    """
    shapes = [shape for shape in _run_in_threads(lambda path: _try_shape(listing.root / path), listing.paths) if shape]
    usable = [shape for shape in shapes if min(shape[:2]) >= SMALLEST]
    if not usable:
        why = f"smaller than {SMALLEST} pixels on a side" if shapes else "no JPEG, PNG, WebP or BMP image"
        raise _refuse_nothing_left(listing, why)
    channels = max(shape.channels for shape in usable)
    if len({shape[:2] for shape in usable}) > 1:
        side = min(largest_side, int(np.median([min(shape[:2]) for shape in usable])))
        return Shape(side, side, channels)
    height, width, _ = usable[0]
    share = min(1.0, largest_side / min(height, width))
    return Shape(max(1, round(height * share)), max(1, round(width * share)), channels)


def _try_shape(path: Path) -> Shape | None:
    try:
        return image_file.read_shape(path)
    except UnreadableError:
        return None


def read_all(listing: Listing, shape: Shape, held: np.ndarray | None = None) -> FoundImages:
    """Decodes every file, in threads, with a bar.

    Args:
        listing: the files.
        shape: of the pixels.
        held: (n, H, W, C) uint8, where the pixels come to lie; None: they are not kept.

    Raises:
        DataError: no file can be used.
    """

    def read(row: int) -> tuple[bytes, str | None]:
        try:
            content = (listing.root / listing.paths[row]).read_bytes()
        except OSError as error:
            return b"", f"cannot be read: {error.strerror}"
        digest = hashlib.blake2b(content, digest_size=16).digest()
        try:
            made = image_file.read_pixels(content, shape)
        except UnreadableError as error:
            return digest, str(error)
        if held is not None:
            held[row] = made
        return digest, None

    reasons, content = {}, hashlib.sha256()
    rows = range(len(listing.paths))
    bar = tqdm(_run_in_threads(read, rows), "reading images", len(rows), unit="image", dynamic_ncols=True)
    for row, (digest, reason) in enumerate(bar):
        content.update(listing.paths[row].encode("utf-8", "surrogateescape") + b"\0" + digest)
        if reason is not None:
            reasons[row] = reason
    if len(reasons) == len(rows):
        raise _refuse_nothing_left(listing, next(iter(reasons.values())))
    return FoundImages(reasons, content.hexdigest())


def _refuse_nothing_left(listing: Listing, why: str) -> DataError:
    return DataError(
        f"none of the {len(listing.paths)} images in {listing.root} can be used ({listing.paths[0]}: {why}): "
        "give another folder"
    )


def _run_in_threads(work: Callable[[Any], Any], items: Sequence[Any]) -> Iterator[Any]:
    """What `work` gives for each item, in order."""
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for first in range(0, len(items), _AT_ONCE):
            yield from pool.map(work, items[first : first + _AT_ONCE])


def _list_readable(listing: Listing, found: FoundImages) -> list[int]:
    return [row for row in range(len(listing.paths)) if row not in found.reasons]


def _close_gaps(held: np.ndarray, rows: Sequence[int]) -> np.ndarray:
    """The rows that were read, moved together in place: a copy would need the memory twice."""
    for place, row in enumerate(rows):
        if place != row:
            held[place] = held[row]
    return held[: len(rows)]


# data.json


def _make_record(listing: Listing, found: FoundImages, shape: Shape, largest_side: int) -> dict[str, Any]:
    """What data.json says, `counts`, `classes` and `skipped` for people, the rest to know the folder again."""
    train = sum(row < listing.train for row in _list_readable(listing, found))
    counts = {"train": train, "test": len(_list_readable(listing, found)) - train, "skipped": len(found.reasons)}
    return {
        "counts": {**counts, **listing.counts},
        "classes": list(listing.classes),
        "skipped": [{"path": listing.paths[row], "reason": reason} for row, reason in found.reasons.items()],
        "shape": list(shape),
        "largest_side": largest_side,
        "listing": listing.stamp,
        "content": found.content,
    }


def _read_recorded(listing: Listing, before: Mapping[str, Any]) -> FoundImages:
    """What an earlier session found in the same files."""
    places = {path: row for row, path in enumerate(listing.paths)}
    return FoundImages({places[entry["path"]]: entry["reason"] for entry in before["skipped"]}, before["content"])


def _refuse_change(root: Path, before: Mapping[str, Any] | None, now: Mapping[str, Any]) -> None:
    """Refuses to go on with other images than a run began with."""
    if before and any(before.get(key) != now[key] for key in ("content", "shape", "skipped", "classes")):
        old, new = ((one["counts"]["train"], one["counts"]["test"]) for one in (before, now))
        raise DataError(
            f"{root} is not what this run began with ({old[0]} + {old[1]} images then, {new[0]} + {new[1]} now, or "
            "others): put the old files back, or start over with --fresh"
        )


def _make_dataset(name: str, listing: Listing, found: FoundImages, images: Any, record: Mapping[str, Any]) -> DataSet:
    """Both splits of what could be read.

    Raises:
        DataError: nothing is left of a split.
    """
    train = int(record["counts"]["train"])
    labels = listing.labels[_list_readable(listing, found)]
    if train in (0, len(labels)):
        split = "train on" if train == 0 else "hold out"
        raise DataError(f"{listing.root} has no readable image to {split}: see that it holds two sound images or more")
    first, second = slice(0, train), slice(train, None)
    splits = Split(images[first], labels[first]), Split(images[second], labels[second])
    return DataSet(name, splits[0], splits[1], listing.classes, record)


# Streamed


class FolderImages:
    """Images (n, H, W, C) uint8 that lie in files and are decoded, in threads, each time they are asked for.

    A slice is again such images, nothing decoded; rows by number are an array.
    """

    def __init__(self, root: Path, paths: Sequence[str], shape: Shape, pool: ThreadPoolExecutor | None = None) -> None:
        """Files that have been read once before; `pool` decodes them."""
        self._root, self._paths, self._shape = root, tuple(paths), shape
        self._pool = pool or ThreadPoolExecutor(os.cpu_count())

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """(n, H, W, C)."""
        return (len(self._paths), *self._shape)

    def __len__(self) -> int:
        """N."""
        return len(self._paths)

    def __getitem__(self, rows: Any) -> Any:
        """The images of a slice, still in their files; or of row numbers of any shape, an array.

        Raises:
            DataError: a file has gone or changed since.
        """
        if isinstance(rows, slice):
            return FolderImages(self._root, self._paths[rows], self._shape, self._pool)
        rows = np.asarray(rows)
        flat = self._gathered(self._started(rows.reshape(-1)))
        return flat.reshape(*rows.shape, *self._shape)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        """All of them, decoded."""
        return self[np.arange(len(self))].astype(dtype or np.uint8, copy=False)

    def joined(self, other: FolderImages) -> FolderImages:
        """These images and then the other's."""
        return FolderImages(self._root, (*self._paths, *other._paths), self._shape, self._pool)

    def ahead(self, batches: Iterable[np.ndarray], count: int) -> Iterator[np.ndarray]:
        """The images of each batch of row numbers, in order; `count` batches are being decoded while one is used."""
        started: collections.deque[list[Future[np.ndarray]]] = collections.deque()
        for rows in batches:
            started.append(self._started(rows))
            if len(started) > count:
                yield self._gathered(started.popleft())
        while started:
            yield self._gathered(started.popleft())

    def _started(self, rows: np.ndarray) -> list[Future[np.ndarray]]:
        return [self._pool.submit(self._read, int(row)) for row in rows]

    def _gathered(self, started: Sequence[Future[np.ndarray]]) -> np.ndarray:
        images = np.empty((len(started), *self._shape), np.uint8)
        for place, future in enumerate(started):
            images[place] = future.result()
        return images

    def _read(self, row: int) -> np.ndarray:
        path = self._root / self._paths[row]
        try:
            return image_file.read_pixels(path.read_bytes(), self._shape)
        except (UnreadableError, OSError) as error:
            raise DataError(
                f"{path} could be read before and cannot now ({error}): put it back, or start over with --fresh"
            ) from error
