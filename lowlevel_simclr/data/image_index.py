"""An index of the image files of a folder. With it, the next start reads only files that are new or have changed.

The index recognises a file by its device, its inode, its size, and the times at which its content and its inode last
changed (mtime and ctime). So the index still recognises the files after their folder was renamed. A file with several
names (hard links) is read once. The entry of a file holds a hash of the content, the size of the image, and whether the
image can be read.

The index lies in the folder of `--cache`. Without `--cache`, it lies in the user's cache folder
(`$XDG_CACHE_HOME/lowlevel_simclr` or `~/.cache/lowlevel_simclr`), and fewer than INDEXED image files get no index. The
index is never written into the folder of the images. It can be deleted at any time.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np

from lowlevel_simclr.config.names import show_name
from lowlevel_simclr.data.image_file import READER, Shape
from lowlevel_simclr.runtime.files import find_user_cache, lock_file, read_regular_file, write_atomically

INDEXED = 1000  # files. Fewer files are read in a second or two, so no index is kept for them
SAVED_EVERY = 60.0  # seconds between two saves while files are read
# Seconds. Some file systems count time in steps of 2 seconds. If a file changed less than RECENT seconds before the
# program read its times, it could change again and keep the same times. So the index does not store such a file.
RECENT = 2.0
LARGEST_INDEX = 2**34  # bytes; a million files take 70 MB
DIGEST = 16  # bytes of the hash of a file
IDENTITY = ("device", "inode", "size", "modified", "changed")
ENTRY = np.dtype(
    [
        *((name, np.int64) for name in IDENTITY),
        ("digest", np.uint8, DIGEST),
        ("height", np.int32),  # pixels, of the upright image; 0: not known
        ("width", np.int32),
        ("channels", np.uint8),
        ("state", np.uint16),
    ]
)
_UNKNOWN, _SOUND, _BAD = 0, 1, 2  # states; in the state _BAD + k, a file cannot be used for the k-th reason
_MAGIC = b"lowlevel_simclr index 1\n"


class ImageIndex:
    """The index of the files of a folder. A row is a position in the list of the files."""

    def __init__(
        self, identities: np.ndarray, place: Path | None = None, tell: Callable[[str], object] = print
    ) -> None:
        """Start with an empty index.

        Args:
            identities: (n, 5) int64, just read, see `read_identities`.
            place: the file of the index, which may be missing. With None, the index is not saved.
            tell: called with a message if the file of the index cannot be read or written.
        """
        self._asked, self._saved, self._news = time.time(), time.monotonic(), False
        self._place, self._tell = place, tell
        self.entries = np.zeros(len(identities), ENTRY)
        for column, name in enumerate(IDENTITY):
            self.entries[name] = identities[:, column]
        self._reasons: list[str] = []
        self._numbers: dict[str, int] = {}

    def note(self, row: int, digest: bytes, reason: str | None) -> None:
        """Store the hash of the content of a file, and the reason if the file cannot be used."""
        entry, self._news = self.entries[row], True
        entry["digest"] = np.frombuffer(digest or bytes(DIGEST), np.uint8)
        entry["state"] = _SOUND if reason is None else _BAD + self._number_reason(reason)

    def note_shape(self, row: int, shape: Shape) -> None:
        """Store the shape that the header of a file states."""
        entry = self.entries[row]
        entry["height"], entry["width"], entry["channels"] = shape

    def get_shapes(self) -> np.ndarray:
        """Return the shapes (n, 3) int64 that the headers state. An unknown shape is zero."""
        return np.stack([self.entries[name].astype(np.int64) for name in ("height", "width", "channels")], axis=1)

    def list_digests(self) -> list[bytes]:
        """Return the hash of the content of every file, or b"" if the content could not be read."""
        digests = np.ascontiguousarray(self.entries["digest"])
        whole = digests.tobytes()
        read: list[bool] = np.any(digests, axis=1).tolist()
        return [whole[DIGEST * row : DIGEST * (row + 1)] if each else b"" for row, each in enumerate(read)]

    def find_unknown(self) -> np.ndarray:
        """Return the rows (m,) int64 of the files that must be read."""
        return np.flatnonzero(self.entries["state"] == _UNKNOWN)

    def is_usable(self) -> np.ndarray:
        """Return whether the file of each row can be used, (n,) bool. Files that are not yet read count as usable."""
        return self.entries["state"] < _BAD

    def list_reasons(self) -> dict[int, str]:
        """Return a dict from the row of each file that cannot be used to the reason."""
        states = self.entries["state"]
        return {int(row): self._reasons[states[row] - _BAD] for row in np.flatnonzero(states >= _BAD)}

    def recall(self) -> None:
        """Take the entries of unchanged files from the saved index.

        A file that could not be used is read again if READER (the rules for decoding, Pillow's version and the formats
        that it reads) differs from that of the saved index.
        """
        try:
            reader, reasons, kept = _read_index(self._place) if self._place else (READER, [], self.entries[:0])
        except FileNotFoundError:
            return
        except (OSError, ValueError, KeyError, TypeError) as error:
            self._tell(f"The index {show_name(str(self._place))} is not used ({error}). Every image is read again.")
            return
        rows, places = _match(self.entries, kept)
        states = kept["state"][places].astype(np.int64)
        numbers = np.array([_UNKNOWN, _SOUND, *(_BAD + self._number_reason(reason) for reason in reasons)])
        self.entries[rows] = kept[places]
        again = (states >= _BAD) & (reader != READER)
        self.entries["state"][rows] = np.where(again, _UNKNOWN, numbers[states])

    def save_sometimes(self) -> None:
        """Save the index if SAVED_EVERY seconds have passed since it was saved or opened."""
        if time.monotonic() - self._saved > SAVED_EVERY:
            self.save()

    def save(self) -> None:
        """Replace the file of the index, if there are new entries.

        If two processes write at the same time, the file of the last process remains. If the file cannot be written,
        `tell` is called with a message, and this process does not try to save the index again.
        """
        self._saved = time.monotonic()
        if self._place is None or not self._news:
            return
        try:
            self._write(self._place)
            self._news = False
        except OSError as error:
            self._tell(
                f"The index {show_name(str(self._place))} cannot be written ({error.strerror or error}), so the "
                "next start reads every image again. Use --cache with another folder."
            )
            self._place = None

    def _write(self, place: Path) -> None:
        latest = (self._asked - RECENT) * 1e9
        old = (self.entries["modified"] < latest) & (self.entries["changed"] < latest)
        # A file without a hash could not be read, perhaps because a disk or a network failed for a moment.
        kept = self.entries[old & (self.entries["state"] != _UNKNOWN) & self.entries["digest"].any(axis=1)]
        body = kept[np.unique(_mix(kept), return_index=True)[1]].tobytes()  # one entry for all hard links of a file
        head = {"reader": READER, "reasons": self._reasons, "checksum": _check(body)}
        place.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.closing(lock_file(place.with_name(place.name + ".lock"), wait=True)):
            write_atomically(place, lambda file: file.writelines((_MAGIC, json.dumps(head).encode() + b"\n", body)))

    def _number_reason(self, reason: str) -> int:
        """Return the number of a reason. After about 65000 different reasons, all new reasons get the last number."""
        if reason not in self._numbers and len(self._reasons) < np.iinfo(np.uint16).max - _BAD:
            self._numbers[reason] = len(self._reasons)
            self._reasons.append(reason)
        return self._numbers.get(reason, len(self._reasons) - 1)


@contextlib.contextmanager
def open_index(
    identities: np.ndarray, place: Path | None, tell: Callable[[str], object] = print
) -> Iterator[ImageIndex]:
    """Yield the index with the entries of an earlier start. At the end of the `with` block, save the index.

    The index is saved even after an exception.

    Args:
        identities: see `ImageIndex`.
        place: see `ImageIndex`.
        tell: see `ImageIndex`.
    """
    index = ImageIndex(identities, place, tell)
    index.recall()
    try:
        yield index
    finally:
        index.save()


def choose_index_place(root: Path, count: int, cache: Path | None) -> Path | None:
    """Return the path of the index of a folder. If no index is kept, return None.

    No index is kept for a few files without `--cache`, or if the user has no cache folder.

    Args:
        root: the folder of the images.
        count: number of its files.
        cache: the folder of `--cache`, or None.
    """
    if cache is None:
        if count < INDEXED:
            return None
        cache = find_user_cache()
        if cache is None:
            return None
    name = hashlib.blake2b(os.fsencode(os.path.realpath(root)), digest_size=8).hexdigest()
    return cache / f"{name}.index"


def read_identities(root: Path, paths: Sequence[str]) -> np.ndarray:
    """Return the identities of files, as the file system states them. No file is opened.

    Args:
        root: the folder.
        paths: n files, relative to the folder.

    Returns:
        (n, 5) int64 with the columns IDENTITY, times in nanoseconds. A row is -1 if the file system states nothing
        about the file, for example for a broken link.
    """
    kind = np.dtype((np.int64, len(IDENTITY)))
    return np.fromiter((_read_identity(os.path.join(root, path)) for path in paths), kind, len(paths))


def _read_identity(path: str) -> tuple[int, ...]:
    try:
        found = os.stat(path)
    except OSError:  # reading the file later raises an error with the reason
        return (-1,) * len(IDENTITY)
    inode = (found.st_ino + 2**63) % 2**64 - 2**63  # st_ino is an unsigned 64-bit number
    return found.st_dev, inode, found.st_size, found.st_mtime_ns, found.st_ctime_ns


def _mix(entries: np.ndarray) -> np.ndarray:
    """Return a hash of the identity of each entry, (n,) uint64."""
    mixed = np.zeros(len(entries), np.uint64)
    for name in IDENTITY:
        mixed = (mixed ^ entries[name].astype(np.uint64)) * np.uint64(0x9E3779B97F4A7C15)  # 2^64 / golden ratio
        mixed ^= mixed >> np.uint64(29)
    return mixed


def _match(entries: np.ndarray, kept: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the rows of `entries` whose file is also in `kept`, and the places of these files in `kept`."""
    if not len(kept):
        return np.empty(0, np.int64), np.empty(0, np.int64)
    numbers = _mix(kept)
    order = np.argsort(numbers)
    places = order[np.minimum(np.searchsorted(numbers[order], _mix(entries)), len(kept) - 1)]
    same = entries["size"] >= 0
    for name in IDENTITY:
        same &= entries[name] == kept[name][places]
    return np.flatnonzero(same), places[same]


def _check(body: bytes) -> str:
    return hashlib.blake2b(body, digest_size=16).hexdigest()


def _read_index(place: Path) -> tuple[str, list[str], np.ndarray]:
    """Return what a saved index contains: READER when it was written, the list of reasons, and the entries (m,).

    Raises:
        OSError: if the file cannot be read.
        ValueError: if the file is damaged.
    """
    content = read_regular_file(place, LARGEST_INDEX, "LARGEST_INDEX")
    if not content.startswith(_MAGIC):
        raise ValueError("it is not an index of this version")
    end = content.find(b"\n", len(_MAGIC))
    head = json.loads(content[len(_MAGIC) : end])
    body = content[end + 1 :]
    if end < 0 or head["checksum"] != _check(body) or len(body) % ENTRY.itemsize:
        raise ValueError("it is damaged")
    return head["reader"], head["reasons"], np.frombuffer(body, ENTRY)
