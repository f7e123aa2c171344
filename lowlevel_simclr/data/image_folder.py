"""Loads a folder of images as a data set. A small one is kept in memory, and a large one is streamed from its files.

`image_walk.py` finds the files, and `folder_layout.py` finds the folders that are splits. If no folder is a test or
validation split, a tenth of the images is held out, chosen by the seed. The label of an image is the name of the folder
that it lies in. An image that lies directly in the folder of a split has no label. Files without the ending of an image
(such as .jpg) are only counted.

All images are stored in arrays of one shape, so a batch is one array. Images of different sizes keep their aspect ratio
and are padded (`frames.py`). `image_file.py` decodes a file into pixels. Every file is decoded once before the first
training step. A file that cannot be read is left out and listed in data.json. The other images keep their splits and
class numbers, because these depend only on the names of all files.

`image_index.py` stores the results of reading, so that later starts only read files that are new or have changed.
`packed_images.py` can store the pixels, so that later starts and training steps decode nothing.
"""

from __future__ import annotations

import collections
import functools
import hashlib
import os
import stat
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from lowlevel_simclr.config.choices import SMALLEST_BATCH
from lowlevel_simclr.config.names import format_count, format_none, show_name
from lowlevel_simclr.data import image_file, packed_images
from lowlevel_simclr.data.dataset import UNLABELLED, DataError, DataSet, Split, choose_held_out, explain_too_few
from lowlevel_simclr.data.encoded import Encoded, Files
from lowlevel_simclr.data.file_reading import read_images, run_in_threads
from lowlevel_simclr.data.framed_images import FramedImages
from lowlevel_simclr.data.frames import Frames, choose_frames, find_canvas, fit_frames, read_canvas
from lowlevel_simclr.data.image_file import SMALLEST, Bounds, Shape, UnreadableError
from lowlevel_simclr.data.image_index import IDENTITY, ImageIndex, choose_index_place, open_index, read_identities
from lowlevel_simclr.data.image_walk import RUN, USUAL_ENDINGS, FoundFiles, find_image_files
from lowlevel_simclr.data.packed_images import Packing
from lowlevel_simclr.data.streamed import StreamedImages
from lowlevel_simclr.data.table_layout import NO_TABLES, Tables, find_table_layout, hash_labels, number_names
from lowlevel_simclr.runtime.progress_bar import open_bar, track

FRAMES = "frames"  # the entry of data.json about the padding, if the images have different sizes
MEASURED = 200  # number of files whose headers are read to find the usual size, evenly spread over the list of files


class Listing(NamedTuple):
    """The image files of a folder.

    The files to train on come first, then the files to hold out. Each of these two parts is sorted by name.
    """

    root: Path
    paths: tuple[str, ...]  # relative to root, separated by /
    train: int  # number of files to train on; the rest are held out
    labels: np.ndarray  # (n,) int64
    classes: tuple[str, ...]
    source: Encoded  # the images in the order of `paths`
    stamp: str  # SHA-256 over paths, sizes and modification times
    counts: dict[str, int]  # numbers of files that are not used: "not_images" and "outside_splits"
    left_out: dict[str, str]  # from path to reason, for files and folders that are not used, see `image_walk`
    folders: Mapping[str, list[str]]  # the folders that are splits, see `folder_layout.Layout`
    tables: str | None = None  # SHA-256 over splits and labels, if these do not come from the paths of the images
    identities: np.ndarray | None = None  # (n, 5) int64 of the files, see `image_index.read_identities`


class Form(NamedTuple):
    """How images are stored."""

    shape: Shape  # the shape of the array in which an image is stored
    frames: Frames | None = None  # the size of each image inside its array, if the arrays have padding


class FoundImages(NamedTuple):
    """The result of reading every file."""

    reasons: dict[int, str]  # from the position of a file in the listing to the reason why it cannot be used
    content: str  # SHA-256 over the paths and contents of all files


def load(
    name: str,
    listing: Listing,
    *,
    largest_side: int,
    memory_limit: float = 4.0,
    at_least: int = 1,
    before: Mapping[str, Any] | None = None,
    cache: Path | None = None,
) -> DataSet:
    """Load the data set of listed images.

    Args:
        name: name of the data set.
        listing: the images, see `list_images`.
        largest_side: pixels. An image whose shorter side is longer than this is stored at a reduced size.
        memory_limit: GiB. A larger data set is streamed: its images are decoded each time they are needed.
        at_least: number of training images that are needed. If there are fewer, an error is raised before any file is
            opened.
        before: the content of data.json from an earlier session (start) of the run. If no file has changed since then,
            the entries of data.json are reused. If a file has changed, the folder is read again and must still hold the
            same images.
        cache: the folder for the index and for packed pixels. None: the pixels are not packed.

    Raises:
        DataError: if none of the images can be read, there are too few, or they differ from `before`.
    """
    _refuse_few(listing, at_least)
    same = {"listing": listing.stamp, "largest_side": largest_side}.items() <= (before or {}).items()
    with warnings.catch_warnings(), _open_index(listing, cache) as index:
        warnings.simplefilter("ignore")  # Pillow warns about odd metadata in files that it can read
        form = _recall_form(listing, index, before) if before and same else None
        form = form or choose_form(listing, index, largest_side, before)
        shape, frames = form
        in_memory = len(listing.paths) * int(np.prod(shape)) <= memory_limit * 2**30
        images: Any
        if cache is not None:
            found, images = _read_packed(listing, index, form, cache, in_memory)
        elif in_memory:
            held = np.zeros((len(listing.paths), *shape), np.uint8)
            found = read_all(listing, index, form, held)
            images = _close_gaps(held, _list_readable(listing, found))
        else:
            found = _read_recorded(listing, before) if before and same else read_all(listing, index, form)
            images = FolderImages(listing.source, np.array(_list_readable(listing, found)), shape, frames=frames)
    if frames is not None:
        images = FramedImages(images, frames.sizes[_list_readable(listing, found)], frames.bounds.shorter)
    record = _make_record(listing, found, form, largest_side)
    _refuse_change(listing.root, before, record)
    return _make_dataset(name, listing, found, images, record)


def _open_index(listing: Listing, cache: Path | None) -> AbstractContextManager[ImageIndex]:
    """Return a context manager that yields the index of the images.

    If the listing has no identities of the files, the index is not saved.
    """
    count = len(listing.paths)
    if listing.identities is None:
        return open_index(np.full((count, len(IDENTITY)), -1), None)
    return open_index(listing.identities, choose_index_place(listing.root, count, cache))


# Listing the folder


def list_images(
    root: Path, seed: int, splits: str = "auto", own: Path | None = None, tables: Tables = NO_TABLES
) -> Listing:
    """List the image files of a folder, and find the split and the class of each. No image is opened.

    Args:
        root: the folder.
        seed: seed that chooses the held-out images if no folder is a test or validation split.
        splits: see `folder_layout.find_layout`.
        own: the run folder, which is left out.
        tables: the files of labels and splits, if there are any.

    Raises:
        DataError: if there is no such folder, no image in it, no image to train on, or if its layout has two readings.
    """
    _refuse_no_folder(root)
    found = find_image_files(root, own)
    if not found.images:
        raise DataError(_explain_no_images(root, found))
    return arrange_files(root, root, found, seed, splits, tables)


def arrange_files(
    shown: Path, root: Path, found: FoundFiles, seed: int, splits: str = "auto", tables: Tables = NO_TABLES
) -> Listing:
    """Return the listing of image files that were found, with their splits and classes.

    Args:
        shown: the name of the data set in messages.
        root: the folder in which relative paths start.
        found: the files.
        seed: see `list_images`.
        splits: see `list_images`.
        tables: see `list_images`.

    Raises:
        DataError: see `table_layout.find_table_layout`.
    """
    layout, unknown = find_table_layout(root, str(shown), found.images, splits, tables)
    train, test = layout.train, layout.test
    if not test:
        away = choose_held_out(len(train), seed)
        test = tuple(path for path, out in zip(train, away) if out)
        train = tuple(path for path, out in zip(train, away) if not out)
    names = [layout.classes[path] for path in (*train, *test)]
    if tables.labels:
        labels, classes = number_names(names)
    else:
        classes = tuple(sorted({name for name in names if name}))
        numbers = {name: number for number, name in enumerate(classes)}
        labels = np.array([numbers.get(name, UNLABELLED) for name in names], np.int64)
    identities = read_identities(root, (*train, *test))
    return Listing(
        root=shown,
        paths=(*train, *test),
        source=Files(root, (*train, *test)),
        train=len(train),
        labels=labels,
        classes=classes,
        stamp=_hash_stamp((*train, *test), identities),
        counts={
            "not_images": len(found.others),
            "outside_splits": len(found.images) - len(train) - len(test),
        },
        left_out={**found.left_out, **unknown},
        folders=layout.folders,
        identities=identities,
        tables=None if tables == NO_TABLES else hash_labels(len(train), labels, classes),
    )


def _refuse_no_folder(root: Path) -> None:
    """Check that the data set is a folder.

    Raises:
        DataError: if it is not a folder.
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
    """Return the error message for a folder without images. It names the first file or folder that was left out."""
    endings = ", ".join(sorted(USUAL_ENDINGS))
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
    others = format_count(len(found.others), "other file")
    return f"{root} contains no images ({others}{such}). Give a folder with {endings} files."


def _hash_stamp(paths: Sequence[str], identities: np.ndarray) -> str:
    """Return a SHA-256 over the paths, sizes and modification times of files. It changes when a file changes."""
    digest = hashlib.sha256()
    columns = (identities[:, IDENTITY.index(name)].tolist() for name in ("size", "modified"))
    for said in zip(paths, *columns):
        digest.update(repr(said).encode())
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
    """The number of images to train on, and the median of their shorter sides in pixels."""

    number: int
    side: int


def measure_pictures(listing: Listing) -> Pictures | None:
    """Return the number of training images, and the usual size of the images. At most MEASURED headers are read.

    Returns:
        None if none of the headers can be read.
    """
    some = range(0, len(listing.paths), -(-len(listing.paths) // MEASURED))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # see `load`
        found = list(run_in_threads(lambda row: _try_shape(listing.source, row), some))
    sides = [min(shape[:2]) for shape in found if isinstance(shape, Shape)]
    return Pictures(listing.train, int(np.median(sides))) if sides else None


# Reading every file


def choose_form(
    listing: Listing, index: ImageIndex, largest_side: int, before: Mapping[str, Any] | None = None
) -> Form:
    """Choose how the images are stored, from the headers of the files.

    If all images have the same size, they are stored in this size, so that nothing is cut off. Images of different
    sizes keep their aspect ratio and are padded, see `frames.choose_frames`. In both cases images are reduced until the
    shorter side is at most `largest_side` pixels. There is one channel if every image is grey, otherwise three.

    Older versions stored images of different sizes as squares. The data.json of such a run has no entry FRAMES. The run
    continues with squares: larger images are scaled down, smaller images are scaled up, and the ends of long images are
    cut off.

    Args:
        listing: the images.
        index: the index of the images. The function stores the shapes from the headers in it.
        largest_side: limit for the shorter side of an image, in pixels.
        before: the content of data.json from an earlier session of the run.

    Raises:
        DataError: if no file can be opened, or if all images are too small.
    """
    _measure_images(listing, index)
    shapes = index.get_shapes()  # (n, 3); zero where no header can be read
    is_large = shapes[:, :2].min(axis=1) >= SMALLEST
    usable = shapes[is_large]
    if not len(usable):
        first = _try_shape(listing.source, 0)
        why = f"smaller than {SMALLEST} pixels on a side" if isinstance(first, Shape) else first
        raise _refuse_nothing_left(listing, why)
    channels = int(usable[:, 2].max())
    if (usable[:, :2] != usable[0, :2]).any():
        frames = choose_frames(shapes, is_large, largest_side)
        if before is None or before.get(FRAMES):
            return Form(find_canvas(frames, is_large, channels), frames)
        return Form(Shape(frames.bounds.shorter, frames.bounds.shorter, channels))
    height, width = usable[0, :2].tolist()
    share = min(1.0, largest_side / min(height, width))
    return Form(Shape(max(1, round(height * share)), max(1, round(width * share)), channels))


def _recall_form(listing: Listing, index: ImageIndex, before: Mapping[str, Any]) -> Form:
    """Return how an earlier session of the run stored the same files."""
    height, width, channels = before["shape"]
    noted = before.get(FRAMES)
    if noted is None:
        return Form(Shape(height, width, channels))
    _measure_images(listing, index)
    frames = fit_frames(index.get_shapes(), Bounds(noted["shorter"], noted["longer"]))
    height, width = noted["canvas"]
    return Form(Shape(height, width, channels), frames)


def _measure_images(listing: Listing, index: ImageIndex) -> None:
    """Read the headers of the images whose shape is not known, and note their shapes."""
    rows = np.flatnonzero((index.get_shapes()[:, 0] == 0) & index.is_usable()).tolist()
    read = run_in_threads(lambda row: _try_shape(listing.source, row), rows)
    for shape, row in zip(track(read, "reading the sizes of images", len(rows), "images"), rows):
        if isinstance(shape, Shape):
            index.note_shape(row, shape)


def _try_shape(source: Encoded, row: int) -> Shape | str:
    """Return the shape of an image, or the reason why the shape cannot be read."""
    try:
        return source.read_shape(row)
    except UnreadableError as error:
        return str(error)


def read_all(listing: Listing, index: ImageIndex, form: Form, held: np.ndarray | None = None) -> FoundImages:
    """Decode every file in threads, and show progress.

    Args:
        listing: the files.
        index: the index of the files. A file that is damaged according to the index is not read again.
        form: how the images are stored.
        held: (n, H, W, C) uint8, the array for the pixels. None: the pixels are not kept, and a file that the index
            knows is not read again.

    Returns:
        The reasons why files cannot be used, and a hash of all files.

    Raises:
        DataError: if no file can be used.
    """
    rows = index.find_unknown() if held is None else np.flatnonzero(index.is_usable())
    keep = None if held is None else held.__setitem__
    read = read_images(listing.source, rows, index, form.shape, keep, form.frames)
    for _ in track(read, "reading images", len(rows), "images"):
        pass
    return _sum_up(listing, index)


def _sum_up(listing: Listing, index: ImageIndex) -> FoundImages:
    """Return the results of reading all files, see `read_all`."""
    reasons, content = index.list_reasons(), hashlib.sha256()
    for path, digest in zip(listing.paths, index.list_digests()):
        content.update(path.encode("utf-8", "surrogateescape") + b"\0" + digest)
    if len(reasons) == len(listing.paths):
        raise _refuse_nothing_left(listing, reasons[0])
    return FoundImages(reasons, content.hexdigest())


def _refuse_nothing_left(listing: Listing, why: str) -> DataError:
    """Return the error for a folder without a usable image."""
    return DataError(
        f"{format_none(len(listing.paths), 'image')} in {listing.root} can be used. "
        f"The first problem is in {listing.paths[0]}: {why}. Use another folder."
    )


def _list_readable(listing: Listing, found: FoundImages) -> list[int]:
    return [row for row in range(len(listing.paths)) if row not in found.reasons]


def _close_gaps(held: np.ndarray, rows: Sequence[int]) -> np.ndarray:
    """Move the given rows of an array to its beginning, and return them. A copy would need twice the memory."""
    for place, row in enumerate(rows):
        if place != row:
            held[place] = held[row]
    return held[: len(rows)]


def _read_packed(
    listing: Listing, index: ImageIndex, form: Form, folder: Path, in_memory: bool
) -> tuple[FoundImages, Any]:
    """Return the results of reading all files, and their packed pixels. If there is no packed file, make it first.

    Packed images are sorted by path, so that runs with different seeds share them. The order of the listing depends on
    the seed, which chooses the held-out images.

    Raises:
        DataError: if no file can be used, or if the packed images cannot be written.
    """
    order = np.array(sorted(range(len(listing.paths)), key=listing.paths.__getitem__))
    pixels = _open_packed(index, order, form, folder)
    if pixels is None:
        pixels = _pack(listing, index, order, form, folder)
    places = np.empty(len(order), np.int64)
    places[order] = np.arange(len(order))
    found = _sum_up(listing, index)
    chosen = places[_list_readable(listing, found)]
    return found, pixels[chosen] if in_memory else packed_images.PackedImages(pixels, chosen)


def _open_packed(index: ImageIndex, order: np.ndarray, form: Form, folder: Path) -> np.ndarray | None:
    """Return the packed images (n, H, W, C), or None if the index lacks a file or there are no packed images."""
    if len(index.find_unknown()):
        return None
    return packed_images.open_packed(folder, _make_key(index, order, form))


def _make_key(index: ImageIndex, order: np.ndarray, form: Form) -> str:
    usable, found = index.is_usable(), index.list_digests()
    digests = [found[row] if usable[row] else b"" for row in order.tolist()]
    return packed_images.make_key(digests, form.shape, form.frames.bounds if form.frames else None)


def _pack(listing: Listing, index: ImageIndex, order: np.ndarray, form: Form, folder: Path) -> np.ndarray:
    """Make the file of packed images, and return them (n, H, W, C). An image that cannot be used is black."""
    shape, bounds = form.shape, [tuple(form.frames.bounds)] if form.frames else []
    count, identities = len(order), listing.identities
    stamp = listing.stamp if identities is None else hashlib.sha256(identities[order].tobytes()).hexdigest()
    name = hashlib.sha256(repr((stamp, tuple(shape), image_file.PIXEL_RULES, *bounds)).encode()).hexdigest()[:32]
    with packed_images.open_packing(folder, name, count, shape) as packing:
        index.recall()  # another process may have made the packed images while this process waited
        if (pixels := _open_packed(index, order, form, folder)) is not None:
            return pixels
        packing.refuse_full_disk()
        print(
            f"packing {format_count(count, 'image')} of {shape.height} x {shape.width} pixels: "
            f"{count * int(np.prod(shape)) / 2**30:.2f} GiB in {show_name(str(folder))}"
        )
        _fill(packing, listing, index, order, form)
        whole = np.tile(np.array(shape[:2], np.int32), (count, 1))
        sizes = form.frames.sizes[order] if form.frames else whole
        key = _make_key(index, order, form)
        packing.finish(key, sizes)
    index.save()
    made = packed_images.open_packed(folder, key)
    if made is None:
        raise DataError(f"The packed images in {folder} are damaged just after they were written. Check the disk.")
    return made


def _fill(packing: Packing, listing: Listing, index: ImageIndex, order: np.ndarray, form: Form) -> None:
    """Decode and pack the images that are not packed yet, block by block."""
    with open_bar("packing images", len(order), "images", packing.done) as bar:
        lost = order[: packing.done][np.isin(order[: packing.done], index.find_unknown())]
        for _ in read_images(listing.source, lost, index, form.shape, None, form.frames):
            pass  # these images are packed, but the index has lost them, so they are checked again
        for start in range(packing.done, len(order), packing.rows):
            rows = order[start : start + packing.rows]
            block = np.zeros((len(rows), *form.shape), np.uint8)
            places = {int(row): place for place, row in enumerate(rows)}
            usable = rows[index.is_usable()[rows]]
            keep = functools.partial(_put, block, places)
            for _ in read_images(listing.source, usable, index, form.shape, keep, form.frames):
                bar.update(1)
            packing.add(block)


def _put(block: np.ndarray, places: Mapping[int, int], row: int, pixels: np.ndarray) -> None:
    block[places[row]] = pixels


# data.json


def _make_record(listing: Listing, found: FoundImages, form: Form, largest_side: int) -> dict[str, Any]:
    """Return the content of data.json.

    Some entries are for people: `counts`, `classes` and the images that were left out. A resumed run uses the other
    entries to check that the images have not changed.
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
        **_describe_form(form),
        "largest_side": largest_side,
        "listing": listing.stamp,
        "content": found.content,
        "tables": listing.tables,
    }


def _describe_form(form: Form) -> dict[str, Any]:
    """Return the entries of data.json about how images are stored. `shape` is that of an image in the evaluation."""
    if form.frames is None:
        return {"shape": list(form.shape)}
    shorter, longer = form.frames.bounds
    noted = {"shorter": shorter, "longer": longer, "canvas": list(form.shape[:2])}
    return {"shape": [shorter, shorter, form.shape.channels], FRAMES: noted}


def _read_recorded(listing: Listing, before: Mapping[str, Any]) -> FoundImages:
    """Return the results of an earlier session that read the same files, from its data.json."""
    places = {path: row for row, path in enumerate(listing.paths)}
    return FoundImages({places[entry["path"]]: entry["reason"] for entry in before["skipped"]}, before["content"])


def _refuse_change(root: Path, before: Mapping[str, Any] | None, now: Mapping[str, Any]) -> None:
    """Check that a resumed run has the images with which it began.

    Of skipped files, only the paths are compared. The reasons come from Pillow, and their words depend on Pillow's
    version.
    """
    if not before or all(_take_compared(before, key) == _take_compared(now, key) for key in _COMPARED):
        return
    old, new = ((one["counts"]["train"], one["counts"]["test"]) for one in (before, now))
    left_out = [each for each in now["left_out"] if each["path"].endswith("/") and each["reason"] != RUN]
    blocked = [f"{each['path']} {each['reason']}" for each in left_out]
    why = f"; {blocked[0]}" if blocked else ""
    what = "images" if before.get("tables") == now["tables"] is None else "images, splits or labels"
    raise DataError(
        f"The {what} in {root} have changed since this run began (training and test images: {old[0]} + {old[1]} "
        f"then, {new[0]} + {new[1]} now{why}). Restore the old files, or start a new run with --fresh."
    )


_COMPARED = ("content", "shape", FRAMES, "skipped", "classes", "tables")


def _take_compared(record: Mapping[str, Any], key: str) -> Any:
    """Return an entry of data.json in the form in which it is compared when a run is resumed."""
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


class FolderImages(StreamedImages):
    """Images (n, H, W, C) uint8 that are encoded in files. Threads decode them each time they are requested."""

    def __init__(
        self,
        source: Encoded,
        chosen: np.ndarray,
        shape: Shape,
        pool: ThreadPoolExecutor | None = None,
        frames: Frames | None = None,
    ) -> None:
        """Take the images with the row numbers `chosen` (n,) of `source`. The threads of `pool` decode them.

        These images were read once before, so they are known to be readable. `frames` has the frames (sizes) of all
        images of the source. None means that the arrays have no padding.
        """
        super().__init__(chosen, shape)
        self._frames = frames
        self._source = source
        self._pool = pool or ThreadPoolExecutor(os.cpu_count())

    def select_rows(self, rows: Any) -> FolderImages:
        """Return the images with the row numbers `rows` (m,), or those of a slice, without reading them."""
        return FolderImages(self._source, self.chosen[rows], self._shape, self._pool, self._frames)

    def read_rows(self, rows: np.ndarray) -> np.ndarray:
        """Return the images (m, H, W, C) with the row numbers `rows` (m,).

        Raises:
            DataError: if a file can no longer be read.
        """
        return self._collect(self._start_reading(rows))

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
        place = int(self.chosen[row])
        try:
            return read_canvas(self._source.read(place), self._shape, self._frames, place)
        except UnreadableError as error:
            raise DataError(
                f"{self._source.name(place)} can no longer be read ({error}). Restore it, or start a new run with "
                "--fresh."
            ) from error
