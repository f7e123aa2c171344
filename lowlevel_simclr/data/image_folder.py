"""A folder of images as a data set: in memory, or streamed from its files if it is large.

The folders `train/` and `test/` at the top are the splits. Without `test/`, the seed holds out a tenth of the images.
The label of an image is the name of the folder that it lies in. An image at the top of a split has no label. Hidden
files and folders are ignored. Files without the ending of an image are only counted.

All images are stored in one shape (`choose_common_shape`), so that a batch is one array. `image_file.py` says how a
file becomes pixels. Every file is decoded once before the first step. Only a streamed folder that is unchanged since an
earlier session is not decoded again. A file that cannot be read is left out and named in data.json. All other images
keep their split and class number, because these follow from the names alone, before any file is opened.
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

from lowlevel_simclr.config.choices import SPLITS
from lowlevel_simclr.data import image_file
from lowlevel_simclr.data.dataset import UNLABELLED, DataError, DataSet, Split, choose_held_out
from lowlevel_simclr.data.image_file import SMALLEST, Shape, UnreadableError
from lowlevel_simclr.runtime.progress_bar import track

ENDINGS = frozenset(".jpg .jpeg .jpe .jfif .png .webp .bmp".split())
_AT_ONCE = 1024  # files given to the threads at a time


class Listing(NamedTuple):
    """The image files of a folder.

    Training files come first. Each split is in the order of its names.
    """

    root: Path
    paths: tuple[str, ...]  # relative to root, separated by /
    train: int  # number of files to train on; the rest are held out
    labels: np.ndarray  # (n,) int64
    classes: tuple[str, ...]
    stamp: str  # SHA-256 over paths, sizes and modification times
    counts: dict[str, int]  # files that are not used: not_images, outside_splits


class FoundImages(NamedTuple):
    """The result of reading every file."""

    reasons: dict[int, str]  # why a file cannot be used, by its position in the listing
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
    """Load the data set in a folder.

    Args:
        name: name of the data set.
        root: the folder.
        seed: seed that chooses the held-out images if there is no `test/`.
        largest_side: pixels. Images whose shorter side is longer are stored smaller.
        memory_limit: GiB. A larger data set is streamed: its images are decoded each time they are needed.
        at_least: number of training images that are needed. If there are fewer, no file is opened.
        before: data.json of an earlier session of the run. If no file has changed since, its entries are reused. If
            files have changed, the folder is read again and must still hold the same images.

    Raises:
        DataError: if there is no folder, it has no images, none can be read, there are too few, or they differ from
            `before`.
    """
    listing = list_images(root, seed)
    _refuse_few(listing, at_least)
    same = {"listing": listing.stamp, "largest_side": largest_side}.items() <= (before or {}).items()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow warns about odd metadata in files that it can read
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


# Listing the folder


def list_images(root: Path, seed: int) -> Listing:
    """List the image files of a folder by their endings, in splits and classes. No file is opened.

    Raises:
        DataError: if there is no such folder, no image in it, or no image to train on.
    """
    if not root.is_dir():
        what = f"{root} is a file" if root.exists() else f"The folder {root} does not exist"
        raise DataError(f"{what}. Use --dataset folder:PATH with the path of a folder of images.")
    every = sorted(_walk(root))
    paths = [path for path in every if os.path.splitext(path)[1].lower() in ENDINGS]
    if not paths:
        raise DataError(
            f"{root} contains no images ({len(every)} other files{', such as ' + every[0] if every else ''}). "
            f"Give a folder with {', '.join(sorted(ENDINGS))} files."
        )
    train, test, outside = _find_splits(root, paths, seed)
    names = [_find_class(path) for path in (*train, *test)]
    classes = tuple(sorted({name for name in names if name}))
    numbers = {name: number for number, name in enumerate(classes)}
    labels = np.array([numbers.get(name, UNLABELLED) for name in names], np.int64)
    counts = {"not_images": len(every) - len(paths), "outside_splits": outside}
    return Listing(root, (*train, *test), len(train), labels, classes, _read_stamp(root, (*train, *test)), counts)


def _walk(root: Path) -> Iterator[str]:
    """Yield the path of every file that is not hidden, relative to the root. A linked folder is entered once."""
    seen = set()
    for folder, folders, files in os.walk(root, followlinks=True):
        real = os.path.realpath(folder)
        if real in seen:  # a link to a folder that was visited before
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        inside = os.path.relpath(folder, root).replace(os.sep, "/")
        yield from (name if inside == "." else f"{inside}/{name}" for name in files if not name.startswith("."))


def _find_splits(root: Path, paths: Sequence[str], seed: int) -> tuple[list[str], list[str], int]:
    """Return the paths to train on, the paths to hold out, and the number of images in neither."""
    test = [path for path in paths if path.startswith("test/")]
    train = [path for path in paths if path.startswith("train/")]
    rest = len(paths) - len(train) - len(test)
    if not train:
        train, rest = [path for path in paths if not path.startswith("test/")], 0
    if not train:
        raise DataError(f"{root} has images only in test/. Put the images to train on in train/.")
    if not test:
        away = choose_held_out(len(train), seed)
        test = [path for path, out in zip(train, away) if out]
        train = [path for path, out in zip(train, away) if not out]
    return train, test, rest


def _find_class(path: str) -> str:
    """Return the name of the folder that a file lies in, or an empty string at the top of a split."""
    folders = path.split("/")[:-1]
    if folders and folders[0] in SPLITS:
        folders = folders[1:]
    return folders[-1] if folders else ""


def _read_stamp(root: Path, paths: Iterable[str]) -> str:
    """Return a SHA-256 over paths, sizes and modification times. It changes when a file does."""
    digest = hashlib.sha256()
    for path in paths:
        try:
            status = os.stat(root / path)
            said = (status.st_size, status.st_mtime_ns)
        except OSError:  # a broken link; reading the file later gives the reason
            said = (-1, -1)
        digest.update(repr((path, *said)).encode())
    return digest.hexdigest()


def _refuse_few(listing: Listing, at_least: int) -> None:
    """Check that the training images fill one batch, before any file is opened."""
    if listing.train < at_least:
        raise DataError(
            f"The batch size ({at_least}) is larger than the training set ({listing.train} images in {listing.root}). "
            f"Use --batch-size {listing.train} or less."
        )


# Reading every file


def choose_common_shape(listing: Listing, largest_side: int) -> Shape:
    """Return the shape in which all images are stored, from the headers of the files.

    If all images have one size, it is that size, so that no pixel is cut off. Otherwise it is a square, and its side is
    the median of the shorter sides. Larger images are scaled down to it, smaller ones are scaled up, and long ones lose
    their ends. In both cases the shorter side is at most `largest_side` pixels. There is one channel if every image is
    grey, and there are three otherwise.

    Raises:
        DataError: if no file can be opened, or if all images are too small.
    """
    read = _run_in_threads(lambda path: _try_shape(listing.root / path), listing.paths)
    found = list(track(read, "reading the sizes of images", len(listing.paths), "images"))
    usable = [shape for shape in found if isinstance(shape, Shape) and min(shape[:2]) >= SMALLEST]
    if not usable:
        first = f"smaller than {SMALLEST} pixels on a side" if isinstance(found[0], Shape) else found[0]
        raise _refuse_nothing_left(listing, first)
    channels = max(shape.channels for shape in usable)
    if len({shape[:2] for shape in usable}) > 1:
        side = min(largest_side, int(np.median([min(shape[:2]) for shape in usable])))
        return Shape(side, side, channels)
    height, width, _ = usable[0]
    share = min(1.0, largest_side / min(height, width))
    return Shape(max(1, round(height * share)), max(1, round(width * share)), channels)


def _try_shape(path: Path) -> Shape | str:
    """Return the shape of an image file, or the reason why it has none."""
    try:
        return image_file.read_shape(path)
    except UnreadableError as error:
        return str(error)


def read_all(listing: Listing, shape: Shape, held: np.ndarray | None = None) -> FoundImages:
    """Decode every file in threads, and show progress.

    Args:
        listing: the files.
        shape: the shape of the pixels.
        held: (n, H, W, C) uint8, the array that receives the pixels. None discards them.

    Returns:
        The reasons why files cannot be used, and a hash of all files.

    Raises:
        DataError: if no file can be used.
    """

    def read(row: int) -> tuple[bytes, str | None]:
        try:
            content = image_file.read_content(listing.root / listing.paths[row])
        except UnreadableError as error:
            return b"", str(error)
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
    for row, (digest, reason) in enumerate(track(_run_in_threads(read, rows), "reading images", len(rows), "images")):
        content.update(listing.paths[row].encode("utf-8", "surrogateescape") + b"\0" + digest)
        if reason is not None:
            reasons[row] = reason
    if len(reasons) == len(rows):
        raise _refuse_nothing_left(listing, next(iter(reasons.values())))
    return FoundImages(reasons, content.hexdigest())


def _refuse_nothing_left(listing: Listing, why: str) -> DataError:
    """Return the error for a folder without a usable image."""
    return DataError(
        f"None of the {len(listing.paths)} images in {listing.root} can be used. "
        f"The first problem is in {listing.paths[0]}: {why}. Use another folder."
    )


def _run_in_threads(work: Callable[[Any], Any], items: Sequence[Any]) -> Iterator[Any]:
    """Yield the result of `work` for each item, in order."""
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for first in range(0, len(items), _AT_ONCE):
            yield from pool.map(work, items[first : first + _AT_ONCE])


def _list_readable(listing: Listing, found: FoundImages) -> list[int]:
    return [row for row in range(len(listing.paths)) if row not in found.reasons]


def _close_gaps(held: np.ndarray, rows: Sequence[int]) -> np.ndarray:
    """Move the rows that were read together in place. A copy would need twice the memory."""
    for place, row in enumerate(rows):
        if place != row:
            held[place] = held[row]
    return held[: len(rows)]


# data.json


def _make_record(listing: Listing, found: FoundImages, shape: Shape, largest_side: int) -> dict[str, Any]:
    """Return the content of data.json.

    People read `counts`, `classes` and `skipped`. The other entries recognise the folder when a run is resumed.
    """
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
    """Return what an earlier session found in the same files."""
    places = {path: row for row, path in enumerate(listing.paths)}
    return FoundImages({places[entry["path"]]: entry["reason"] for entry in before["skipped"]}, before["content"])


def _refuse_change(root: Path, before: Mapping[str, Any] | None, now: Mapping[str, Any]) -> None:
    """Check that a resumed run has the images that it began with."""
    if before and any(before.get(key) != now[key] for key in ("content", "shape", "skipped", "classes")):
        old, new = ((one["counts"]["train"], one["counts"]["test"]) for one in (before, now))
        raise DataError(
            f"The images in {root} have changed since this run began (training and test images: {old[0]} + {old[1]} "
            f"then, {new[0]} + {new[1]} now). Restore the old files, or start a new run with --fresh."
        )


def _make_dataset(name: str, listing: Listing, found: FoundImages, images: Any, record: Mapping[str, Any]) -> DataSet:
    """Return the data set of the images that could be read.

    Raises:
        DataError: if no image of a split could be read.
    """
    train = int(record["counts"]["train"])
    labels = listing.labels[_list_readable(listing, found)]
    if train in (0, len(labels)):
        split = "train on" if train == 0 else "test with"
        raise DataError(
            f"{listing.root} has no readable image to {split}. It must contain at least two readable images."
        )
    first, second = slice(0, train), slice(train, None)
    splits = Split(images[first], labels[first]), Split(images[second], labels[second])
    return DataSet(name, splits[0], splits[1], listing.classes, record)


# Streaming


class FolderImages:
    """Images (n, H, W, C) uint8 in files. Threads decode them each time they are requested.

    A slice is again a `FolderImages`, and nothing is decoded. An array of row numbers gives an array of images.
    """

    def __init__(self, root: Path, paths: Sequence[str], shape: Shape, pool: ThreadPoolExecutor | None = None) -> None:
        """Take files that have been read once before. The threads of `pool` decode them."""
        self._root, self._paths, self._shape = root, tuple(paths), shape
        self._pool = pool or ThreadPoolExecutor(os.cpu_count())

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """The shape (n, H, W, C)."""
        return (len(self._paths), *self._shape)

    def __len__(self) -> int:
        """Return n."""
        return len(self._paths)

    def __getitem__(self, rows: Any) -> Any:
        """Return the images of a slice, still in files, or an array for row numbers of any shape.

        Raises:
            DataError: if a file can no longer be read.
        """
        if isinstance(rows, slice):
            return FolderImages(self._root, self._paths[rows], self._shape, self._pool)
        rows = np.asarray(rows)
        flat = self._collect(self._start_reading(rows.reshape(-1)))
        return flat.reshape(*rows.shape, *self._shape)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        """Decode all images."""
        return self[np.arange(len(self))].astype(dtype or np.uint8, copy=False)

    def join(self, other: FolderImages) -> FolderImages:
        """Return these images followed by the images of `other`."""
        return FolderImages(self._root, (*self._paths, *other._paths), self._shape, self._pool)

    def read_ahead(self, batches: Iterable[np.ndarray], count: int) -> Iterator[np.ndarray]:
        """Yield the images of each batch of row numbers, in order.

        While the caller uses one batch, threads decode the next ones.

        Args:
            batches: row numbers (N,) of each batch.
            count: how many batches are decoded ahead.
        """
        started: collections.deque[list[Future[np.ndarray]]] = collections.deque()
        for rows in batches:
            started.append(self._start_reading(rows))
            if len(started) > count:
                yield self._collect(started.popleft())
        while started:
            yield self._collect(started.popleft())

    def _start_reading(self, rows: np.ndarray) -> list[Future[np.ndarray]]:
        return [self._pool.submit(self._read, int(row)) for row in rows]

    def _collect(self, started: Sequence[Future[np.ndarray]]) -> np.ndarray:
        images = np.empty((len(started), *self._shape), np.uint8)
        for place, future in enumerate(started):
            images[place] = future.result()
        return images

    def _read(self, row: int) -> np.ndarray:
        path = self._root / self._paths[row]
        try:
            return image_file.read_pixels(image_file.read_content(path), self._shape)
        except UnreadableError as error:
            raise DataError(
                f"{path} can no longer be read ({error}). Restore it, or start a new run with --fresh."
            ) from error
