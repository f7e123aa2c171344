"""Computes the rows (encoder output h or projection z) of many images part by part, and reads them from these parts."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lowlevel_simclr.config.names import format_none
from lowlevel_simclr.evaluation.embedding.given import EmbedError, Given
from lowlevel_simclr.evaluation.embedding.parts import PartFolder
from lowlevel_simclr.evaluation.embedding.reading import (
    CHUNK,
    Decode,
    Embed,
    choose_batch_size,
    compute_part,
    count_images,
    read_chunks,
    split_range,
)
from lowlevel_simclr.evaluation.embedding.similar import store_rows
from lowlevel_simclr.evaluation.embedding.tables import Block, Table
from lowlevel_simclr.runtime.progress_bar import open_bar


class Job(NamedTuple):
    """The images to embed, and the functions that read and embed them.

    Attributes:
        given: the images.
        decode: a function that takes the bytes of a file and returns pixels (H, W, C) uint8.
        embed: a function that takes images (B, H, W, C) uint8 and returns rows (B, d) float32.
        output: the name of the rows, "h" or "z".
        made_of: all values that the rows depend on, as JSON values.
    """

    given: Given
    decode: Decode
    embed: Embed
    output: str
    made_of: Mapping[str, Any]


class NothingRead(EmbedError):
    """No image could be read."""


class Embedding:
    """The rows of all readable images, in the order of the images. Each access reads them from the part files."""

    def __init__(self, job: Job, parts: PartFolder) -> None:
        """Use the parts, which must all have been computed.

        Raises:
            NothingRead: if no image could be read.
            EmbedError: if a part is damaged.
        """
        self.job, self._parts = job, parts
        found = [parts.load_places(number) for number in range(len(parts.list_ranges()))]
        self.bad = [(job.given.source.name(place), reason) for part in found for place, reason in part.bad]
        self._places = np.concatenate([part.places for part in found])  # (n,), the image position of each row
        if not len(self._places):
            count, (name, reason) = len(job.given.source), self.bad[0]
            raise NothingRead(f"{format_none(count, 'image')} could be read. First problem: {name}: {reason}.")
        self.width = next(self.read_rows()).shape[1]

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self._places)

    def name(self, row: int) -> str:
        """Return the name of the image of a row."""
        return self.job.given.source.name(int(self._places[row]))

    def load_pixels(self, row: int) -> NDArray[np.uint8]:
        """Return the image (H, W, C) of a row, as the encoder saw it.

        Raises:
            UnreadableError: if the image cannot be read any more.
        """
        return self.job.decode(self.job.given.source.read(int(self._places[row])))

    def read_rows(self) -> Iterator[NDArray[np.float32]]:
        """Yield all rows in blocks (m, d)."""
        return (part.rows for part in self._parts.load_all() if len(part.rows))

    def store_rows(self) -> NDArray[np.float32]:
        """Write all rows, scaled to length 1, into a file beside the parts. Return an array that reads from this file.

        Raises:
            OSError: if that file cannot be written.
        """
        return store_rows(self._parts.choose_scratch(), self.read_rows(), len(self), self.width)

    def make_table(self) -> Table:
        """Return the rows together with the names of their images."""
        return Table(self.job.output, len(self), self.width, bool(self.job.given.labels), self._read_blocks)

    def _read_blocks(self) -> Iterator[Block]:
        source, labels = self.job.given.source, self.job.given.labels
        for part in self._parts.load_all():
            if not len(part.rows):
                continue
            places = part.places.tolist()
            yield Block(
                part.rows, [source.name(place) for place in places], [labels[place] for place in places if labels]
            )


def fill_parts(job: Job, parts: PartFolder) -> None:
    """Compute the parts that are missing, and show the progress.

    Raises:
        EmbedError: see `reading.compute_part`.
        OSError: if a part cannot be written.
    """
    ranges, missing = parts.list_ranges(), parts.find_missing()
    pieces = [piece for number in missing for piece in split_range(ranges[number], CHUNK)]
    done = parts.count - sum(map(len, pieces))
    with open_bar(f"reading images and computing {job.output}", parts.count, "images", done=done) as bar:
        chunks = count_images(read_chunks(job.given.source, job.decode, pieces), bar.update)
        for number in missing:
            own = itertools.islice(chunks, len(split_range(ranges[number], CHUNK)))
            parts.save(number, compute_part(own, job.embed, choose_batch_size(parts.count)))
