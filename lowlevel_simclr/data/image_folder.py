"""A folder of images as a data set: in memory, or streamed from its files if it is large.

`image_walk.py` finds the files, and `folder_layout.py` says which folders are splits. Without a folder to hold out, the
seed holds out a tenth of the images. The label of an image is the name of the folder that it lies in. An image at the
top of a split has no label. Files without the ending of an image are only counted.

All images are stored in one shape (`choose_common_shape`), so that a batch is one array. `image_file.py` says how a
file becomes pixels. Every file is decoded once before the first step. Only a streamed folder that is unchanged since an
earlier session is not decoded again. A file that cannot be read is left out and named in data.json. All other images
keep their split and class number, because these follow from the names alone, before any file is opened.
"""

from __future__ import annotations

import collections
import hashlib
import os
import stat
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from lowlevel_simclr.config.choices import SMALLEST_BATCH
from lowlevel_simclr.data import image_file
from lowlevel_simclr.data.dataset import UNLABELLED, DataError, DataSet, Split, choose_held_out, explain_too_few
from lowlevel_simclr.data.encoded import Encoded, Files
from lowlevel_simclr.data.folder_layout import find_layout
from lowlevel_simclr.data.image_file import SMALLEST, Shape, UnreadableError
from lowlevel_simclr.data.image_walk import ENDINGS, RUN, FoundFiles, find_image_files
from lowlevel_simclr.runtime.progress_bar import track

MEASURED = 200  # files whose headers tell the size of the images, evenly from the whole list
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
    source: Encoded  # the images in the order of `paths`
    stamp: str  # SHA-256 over paths, sizes and modification times
    counts: dict[str, int]  # files that are not used: not_images, outside_splits
    left_out: dict[str, str]  # the reason by path, of what the splits could not take: see `image_walk`
    folders: Mapping[str, list[str]]  # the folders that are splits, see `folder_layout.Layout`
    tables: str | None = None  # SHA-256 over splits and labels, if they do not follow from the paths


class FoundImages(NamedTuple):
    """The result of reading every file."""

    reasons: dict[int, str]  # why a file cannot be used, by its position in the listing
    content: str  # SHA-256 over the paths and contents of all files


def load(
    name: str,
    listing: Listing,
    *,
    largest_side: int,
    memory_limit: float = 4.0,
    at_least: int = 1,
    before: Mapping[str, Any] | None = None,
) -> DataSet:
    """Load the data set of listed images.

    Args:
        name: name of the data set.
        listing: the images, see `list_images`.
        largest_side: pixels. Images whose shorter side is longer are stored smaller.
        memory_limit: GiB. A larger data set is streamed: its images are decoded each time they are needed.
        at_least: number of training images that are needed. If there are fewer, no file is opened.
        before: data.json of an earlier session of the run. If no file has changed since, its entries are reused. If
            files have changed, the folder is read again and must still hold the same images.

    Raises:
        DataError: if none of the images can be read, there are too few, or they differ from `before`.
    """
    _refuse_few(listing, at_least)
    same = {"listing": listing.stamp, "largest_side": largest_side}.items() <= (before or {}).items()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow warns about odd metadata in files that it can read
        shape = Shape(*before["shape"]) if before and same else choose_common_shape(listing, largest_side)
        if len(listing.paths) * int(np.prod(shape)) > memory_limit * 2**30:
            found = _read_recorded(listing, before) if before and same else read_all(listing, shape)
            images: Any = FolderImages(listing.source, np.array(_list_readable(listing, found)), shape)
        else:
            held = np.zeros((len(listing.paths), *shape), np.uint8)
            found = read_all(listing, shape, held)
            images = _close_gaps(held, _list_readable(listing, found))
    record = _make_record(listing, found, shape, largest_side)
    _refuse_change(listing.root, before, record)
    return _make_dataset(name, listing, found, images, record)


# Listing the folder


def list_images(root: Path, seed: int, splits: str = "auto", own: Path | None = None) -> Listing:
    """List the image files of a folder by their endings, in splits and classes. No image is opened.

    Args:
        root: the folder.
        seed: seed that chooses the held-out images if no folder holds them.
        splits: see `folder_layout.find_layout`.
        own: the run folder, which is left out.

    Raises:
        DataError: if there is no such folder, no image in it, no image to train on, or if its layout has two readings.
    """
    _refuse_no_folder(root)
    found = find_image_files(root, own)
    if not found.images:
        raise DataError(_explain_no_images(root, found))
    layout = find_layout(str(root), found.images, splits)
    train, test = layout.train, layout.test
    if not test:
        away = choose_held_out(len(train), seed)
        test = tuple(path for path, out in zip(train, away) if out)
        train = tuple(path for path, out in zip(train, away) if not out)
    names = [layout.classes[path] for path in (*train, *test)]
    classes = tuple(sorted({name for name in names if name}))
    numbers = {name: number for number, name in enumerate(classes)}
    labels = np.array([numbers.get(name, UNLABELLED) for name in names], np.int64)
    return Listing(
        root=root,
        paths=(*train, *test),
        source=Files(root, (*train, *test)),
        train=len(train),
        labels=labels,
        classes=classes,
        stamp=_read_stamp(root, (*train, *test)),
        counts={
            "not_images": len(found.others),
            "outside_splits": len(found.images) - len(train) - len(test),
        },
        left_out=found.left_out,
        folders=layout.folders,
    )


def _refuse_no_folder(root: Path) -> None:
    """Check that the data set is a folder.

    Raises:
        DataError: if it is not.
    """
    what = f"The folder {root} does not exist"
    try:
        if stat.S_ISDIR(os.stat(root).st_mode):
            return
        what = f"{root} is a file"
    except (FileNotFoundError, NotADirectoryError):
        pass
    except OSError as error:
        raise DataError(f"The folder {root} cannot be read: {error.strerror}. Change its permissions.") from None
    raise DataError(f"{what}. Use --dataset folder:PATH with the path of a folder of images.")


def _explain_no_images(root: Path, found: FoundFiles) -> str:
    """Return the message for a folder without an image, with what was left out."""
    endings = ", ".join(sorted(ENDINGS))
    why = found.left_out.get("./")
    if why == RUN:
        return f"{root} is a run folder, and the pictures of a run are not data. Give the folder of your images."
    if why:
        return f"The folder {root} {why}. Change its permissions."
    if found.left_out:
        path, reason = next(iter(found.left_out.items()))
        which = f"{len(found.left_out)} left out, the first is {path}: {reason}"
        return f"{root} contains no images that can be read ({which}). Give a folder with {endings} files."
    such = f", such as {found.others[0]}" if found.others else ""
    return f"{root} contains no images ({len(found.others)} other files{such}). Give a folder with {endings} files."


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
    if at_least > 1 and listing.train < SMALLEST_BATCH:
        raise DataError(explain_too_few(listing.train, f" in {listing.root}"))
    if listing.train < at_least:
        raise DataError(
            f"The batch size ({at_least}) is larger than the training set ({listing.train} images in {listing.root}). "
            f"Use a --batch-size from {SMALLEST_BATCH} to {listing.train}."
        )


class Pictures(NamedTuple):
    """How many images there are to train on, and the median of their shorter sides in pixels."""

    number: int
    side: int


def measure_pictures(listing: Listing) -> Pictures | None:
    """Return the number and the size of the images, from the headers of at most MEASURED of them.

    Returns:
        None if none of the headers can be read.
    """
    some = range(0, len(listing.paths), -(-len(listing.paths) // MEASURED))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # see `load`
        found = list(_run_in_threads(lambda row: _try_shape(listing.source, row), some))
    sides = [min(shape[:2]) for shape in found if isinstance(shape, Shape)]
    return Pictures(listing.train, int(np.median(sides))) if sides else None


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
    read = _run_in_threads(lambda row: _try_shape(listing.source, row), range(len(listing.paths)))
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


def _try_shape(source: Encoded, row: int) -> Shape | str:
    """Return the shape of an image, or the reason why it has none."""
    try:
        return source.read_shape(row)
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
            content = listing.source.read(row)
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

    People read `counts`, `classes` and what was left out. The other entries recognise the folder when a run is resumed.
    """
    readable = _list_readable(listing, found)
    train = sum(row < listing.train for row in readable)
    counts = {"train": train, "test": len(readable) - train, "skipped": len(found.reasons)}
    unlabelled = [listing.paths[row] for row in readable if listing.labels[row] == UNLABELLED]
    return {
        "counts": {**counts, **listing.counts},
        "classes": list(listing.classes),
        "splits": dict(listing.folders),
        "skipped": [{"path": listing.paths[row], "reason": reason} for row, reason in found.reasons.items()],
        "left_out": [{"path": path, "reason": reason} for path, reason in listing.left_out.items()],
        "unlabelled": unlabelled if listing.classes else [],
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
    """Check that a resumed run has the images that it began with.

    The reasons why files are skipped come from Pillow, and another version has other words. So only paths are compared.
    """
    if not before or all(_take_compared(before, key) == _take_compared(now, key) for key in _COMPARED):
        return
    old, new = ((one["counts"]["train"], one["counts"]["test"]) for one in (before, now))
    left_out = [each for each in now["left_out"] if each["path"].endswith("/") and each["reason"] != RUN]
    blocked = [f"{each['path']} {each['reason']}" for each in left_out]
    why = f"; {blocked[0]}" if blocked else ""
    raise DataError(
        f"The images in {root} have changed since this run began (training and test images: {old[0]} + {old[1]} "
        f"then, {new[0]} + {new[1]} now{why}). Restore the old files, or start a new run with --fresh."
    )


_COMPARED = ("content", "shape", "skipped", "classes")


def _take_compared(record: Mapping[str, Any], key: str) -> Any:
    """Return what a resumed run must have in common with its first session."""
    return [entry["path"] for entry in record["skipped"]] if key == "skipped" else record.get(key)


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
            f"{listing.root} has no readable image to {split}. It needs at least {SMALLEST_BATCH} to train on and 1 to "
            "test with."
        )
    first, second = slice(0, train), slice(train, None)
    splits = Split(images[first], labels[first]), Split(images[second], labels[second])
    return DataSet(name, splits[0], splits[1], listing.classes, record)


# Streaming


class FolderImages:
    """Images (n, H, W, C) uint8 that are encoded in files. Threads decode them each time they are requested.

    A slice is again a `FolderImages`, and nothing is decoded. An array of row numbers gives an array of images.
    """

    def __init__(
        self, source: Encoded, chosen: np.ndarray, shape: Shape, pool: ThreadPoolExecutor | None = None
    ) -> None:
        """Take the images `chosen` (n,) of `source`, which have been read once. The threads of `pool` decode them."""
        self._source, self._chosen, self._shape = source, chosen, shape
        self._pool = pool or ThreadPoolExecutor(os.cpu_count())

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """The shape (n, H, W, C)."""
        return (len(self._chosen), *self._shape)

    def __len__(self) -> int:
        """Return n."""
        return len(self._chosen)

    def __getitem__(self, rows: Any) -> Any:
        """Return the images of a slice, still in files, or an array for row numbers of any shape.

        Raises:
            DataError: if a file can no longer be read.
        """
        if isinstance(rows, slice):
            return FolderImages(self._source, self._chosen[rows], self._shape, self._pool)
        rows = np.asarray(rows)
        flat = self._collect(self._start_reading(rows.reshape(-1)))
        return flat.reshape(*rows.shape, *self._shape)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        """Decode all images."""
        return self[np.arange(len(self))].astype(dtype or np.uint8, copy=False)

    def select_rows(self, rows: np.ndarray) -> FolderImages:
        """Return the images of row numbers (m,), still in files."""
        return FolderImages(self._source, self._chosen[rows], self._shape, self._pool)

    def join(self, other: FolderImages) -> FolderImages:
        """Return these images followed by the images of `other`, which are from the same source."""
        return FolderImages(self._source, np.concatenate([self._chosen, other._chosen]), self._shape, self._pool)

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
        place = int(self._chosen[row])
        try:
            return image_file.read_pixels(self._source.read(place), self._shape)
        except UnreadableError as error:
            raise DataError(
                f"{self._source.name(place)} can no longer be read ({error}). Restore it, or start a new run with --fresh."
            ) from error
