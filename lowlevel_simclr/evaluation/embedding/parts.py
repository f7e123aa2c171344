"""Stores the computed rows of images in parts on the disk. A program that was stopped computes only the missing parts.

While the output FILE is not complete, the folder FILE.parts/ holds one file for each thousand images, and job.json. The
file job.json says what the parts were made from: the encoder, the images and the settings. Parts that were made from
anything else are not used. Each file is written either completely or not at all. When FILE is complete, the folder is
removed.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from lowlevel_simclr.config.names import show_name
from lowlevel_simclr.evaluation.embedding.given import EmbedError
from lowlevel_simclr.evaluation.embedding.reading import CHUNK, Part
from lowlevel_simclr.runtime.files import lock_file, write_atomically

PART = 16 * CHUNK  # images in a part
_JOB, _LOCK = "job.json", "lock"


class PartFolder:
    """The folder with the parts of one output file. `open_parts` creates it."""

    def __init__(self, place: Path, count: int) -> None:
        """Store the folder and the number of images."""
        self.place, self.count, self.removed = place, count, False

    def list_ranges(self) -> list[range]:
        """Return for each part the range of the positions of its images."""
        return [range(first, min(first + PART, self.count)) for first in range(0, self.count, PART)]

    def find_missing(self) -> list[int]:
        """Return the numbers of the parts that do not exist yet."""
        return [number for number in range(len(self.list_ranges())) if not self._name(number).exists()]

    def save(self, number: int, part: Part) -> None:
        """Write one part.

        Raises:
            OSError: if it cannot be written.
        """
        bad = np.frombuffer(json.dumps(part.bad).encode(), np.uint8)
        write_atomically(self._name(number), lambda file: np.savez(file, rows=part.rows, places=part.places, bad=bad))

    def load(self, number: int) -> Part:
        """Return one part.

        Raises:
            EmbedError: if its file is damaged.
        """
        with self._open(number) as found:
            return Part(found["rows"], found["places"], _parse_bad(found["bad"]))

    def load_places(self, number: int) -> Part:
        """Return one part without its rows, which takes less time.

        Raises:
            EmbedError: if its file is damaged.
        """
        with self._open(number) as found:
            return Part(np.zeros((0, 0), np.float32), found["places"], _parse_bad(found["bad"]))

    @contextlib.contextmanager
    def _open(self, number: int) -> Iterator[Mapping[str, np.ndarray]]:
        try:
            with np.load(self._name(number), allow_pickle=False) as found:
                yield found
        except Exception as error:  # a damaged archive raises many types, from zipfile.BadZipFile to KeyError
            raise EmbedError(f"{self._name(number)} is damaged. Remove it, and run the same command again.") from error

    def load_all(self) -> Iterator[Part]:
        """Return an iterator over all parts, in order."""
        return map(self.load, range(len(self.list_ranges())))

    def choose_scratch(self) -> Path:
        """Return the path of a temporary file in the folder. It is removed together with the parts."""
        return self.place / "rows.npy"

    def remove(self) -> None:
        """Remove the parts.

        `open_parts` then removes the folder at its end, if the user has put no other files into it.
        """
        for path in [*self.place.glob("part-*.npz*"), self.choose_scratch(), *self.place.glob(f"{_JOB}*")]:
            path.unlink(missing_ok=True)
        self.removed = True

    def start(self, job: Mapping[str, Any]) -> None:
        """Keep the existing parts if they belong to this job. Otherwise remove them.

        Args:
            job: what the parts are made from, as JSON values.
        """
        text = json.dumps(job, indent=2, sort_keys=True) + "\n"
        path = self.place / _JOB
        if path.exists() and path.read_text(encoding="utf-8", errors="replace") == text:
            return
        old = list(self.place.glob("part-*.npz*"))
        if old:
            print(f"The parts in {show_name(self.place)} are of other images or settings, and are replaced.")
        for part in old:
            part.unlink(missing_ok=True)
        write_atomically(path, lambda file: file.write(text.encode()))

    def _name(self, number: int) -> Path:
        return self.place / f"part-{number:06d}.npz"


def _parse_bad(stored: np.ndarray) -> list[tuple[int, str]]:
    return [(int(place), str(reason)) for place, reason in json.loads(stored.tobytes())]


@contextlib.contextmanager
def open_parts(out: Path, job: Mapping[str, Any], count: int) -> Iterator[PartFolder]:
    """Open the parts of an output file. Only one process at a time can have them open.

    Args:
        out: the output file that is to be written.
        job: what the parts are made from, as JSON values.
        count: the number of images.

    Yields:
        The folder of the parts. It holds the parts that an earlier process has computed for the same job.

    Raises:
        EmbedError: if another process has the parts open.
        OSError: if the folder cannot be written.
    """
    place = out.with_name(out.name + ".parts")
    place.mkdir(parents=True, exist_ok=True)
    try:
        lock = lock_file(place / _LOCK, wait=False)
    except BlockingIOError:
        raise EmbedError(f"Another process is writing {out}. Wait until it ends, or use another --out.") from None
    parts = PartFolder(place, count)
    try:
        with lock:
            parts.start(job)
            yield parts
    finally:
        if parts.removed:
            with contextlib.suppress(OSError):  # another process may have opened the parts
                (place / _LOCK).unlink()  # only after the lock is released: Windows does not delete an open file
                place.rmdir()
