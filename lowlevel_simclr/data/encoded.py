"""Encoded images, which can be read one by one: the image files of a folder, or arrays in memory.

`Encoded` is the common interface. The rest of the package only uses this interface to list, decode and stream images.
`records.py` implements it for images inside larger files. So the same decoder (`image_file.py`) reads all images, with
the same error messages.
"""

from __future__ import annotations

import bisect
import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from lowlevel_simclr.data import image_file
from lowlevel_simclr.data.image_file import Shape


class Encoded(Protocol):
    """A sequence of encoded images (such as JPEG files). Several threads may call the methods at the same time.

    `row` is the position of an image in the sequence, from 0.
    """

    def __len__(self) -> int:
        """Return the number of images."""

    def name(self, row: int) -> str:
        """Return the name of an image, with the path of its file, for messages."""

    def read(self, row: int) -> bytes:
        """Return the encoded bytes of an image.

        Raises:
            UnreadableError: if the bytes cannot be read.
        """

    def read_shape(self, row: int) -> Shape:
        """Return the shape that the header of an image states. It is the shape after turning the image upright.

        Raises:
            UnreadableError: if the header cannot be read, or is not that of an image.
        """


class Files:
    """The image files of a folder. `paths` may also contain absolute paths to files outside the folder."""

    def __init__(self, root: Path, paths: Sequence[str]) -> None:
        """Take paths relative to the folder `root`."""
        self._root, self._paths = root, paths

    def __len__(self) -> int:
        """Return the number of files."""
        return len(self._paths)

    def path(self, row: int) -> Path:
        """Return the path of a file."""
        return self._root / self._paths[row]

    def name(self, row: int) -> str:
        """Return the path of a file, see `Encoded`."""
        return str(self.path(row))

    def read(self, row: int) -> bytes:
        """Return the bytes of a file, see `Encoded`."""
        return image_file.read_content(self.path(row))

    def read_shape(self, row: int) -> Shape:
        """Return the shape of an image from the first bytes of its file, see `Encoded`."""
        return image_file.read_shape(self.path(row))


class Drawn:
    """Images that are arrays in memory. `read` encodes one of them, so that the same decoder reads arrays and files."""

    def __init__(self, title: str, images: NDArray[np.uint8]) -> None:
        """Take images (n, H, W, C) uint8, with one or three channels. Their names are TITLE#0, TITLE#1, and so on."""
        self._title, self._images = title, images

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self._images)

    def name(self, row: int) -> str:
        """Return the name of an image, see `Encoded`."""
        return f"{self._title}#{row}"

    def read(self, row: int) -> bytes:
        """Return an image as a PPM or PGM file, which stores the pixels as they are, see `Encoded`."""
        height, width, channels = self._images.shape[1:]
        kind = b"P5" if channels == 1 else b"P6"
        return b"%b %d %d 255\n" % (kind, width, height) + self._images[row].tobytes()

    def read_shape(self, row: int) -> Shape:
        """Return the shape of an image, see `Encoded`."""
        return Shape(*self._images.shape[1:])


class Selected:
    """Some images of another source, in another order, see `Encoded`."""

    def __init__(self, source: Encoded, rows: np.ndarray) -> None:
        """Take the positions (n,) of the images in `source`."""
        self._source, self._rows = source, rows

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self._rows)

    def name(self, row: int) -> str:
        """Return the name of an image, see `Encoded`."""
        return self._source.name(int(self._rows[row]))

    def read(self, row: int) -> bytes:
        """Return the bytes of an image, see `Encoded`."""
        return self._source.read(int(self._rows[row]))

    def read_shape(self, row: int) -> Shape:
        """Return the shape of an image, see `Encoded`."""
        return self._source.read_shape(int(self._rows[row]))


class Joined:
    """The images of several sources, one after the other, see `Encoded`."""

    def __init__(self, sources: Sequence[Encoded]) -> None:
        """Take the sources in order."""
        self._sources = sources
        self._ends = list(itertools.accumulate(len(source) for source in sources))

    def __len__(self) -> int:
        """Return the number of images."""
        return self._ends[-1] if self._ends else 0

    def _find(self, row: int) -> tuple[Encoded, int]:
        """Return the source of an image, and its position there."""
        place = bisect.bisect_right(self._ends, row)
        return self._sources[place], row - (self._ends[place - 1] if place else 0)

    def name(self, row: int) -> str:
        """Return the name of an image, see `Encoded`."""
        source, place = self._find(row)
        return source.name(place)

    def read(self, row: int) -> bytes:
        """Return the bytes of an image, see `Encoded`."""
        source, place = self._find(row)
        return source.read(place)

    def read_shape(self, row: int) -> Shape:
        """Return the shape of an image, see `Encoded`."""
        source, place = self._find(row)
        return source.read_shape(place)
