"""Similar images, for the program `embed`: prints and draws nearest neighbours, and lists and draws near-duplicates."""

from __future__ import annotations

import csv
import io
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from lowlevel_simclr.config.names import format_count, show_name
from lowlevel_simclr.evaluation.drawing import import_drawing
from lowlevel_simclr.evaluation.embedding.given import EmbedError, Given
from lowlevel_simclr.evaluation.embedding.job import Embedding, Job
from lowlevel_simclr.evaluation.embedding.reading import choose_batch_size, compute_all
from lowlevel_simclr.evaluation.embedding.similar import (
    MOST_PAIRS,
    Pairs,
    find_nearest,
    find_pairs,
    sample_similarities,
)
from lowlevel_simclr.evaluation.embedding.tables import make_text
from lowlevel_simclr.runtime.files import write_atomically
from lowlevel_simclr.training.pictures import draw_or_name

NEIGHBOURS = 5  # images that are shown for each photograph
DRAWN_QUERIES, DRAWN_PAIRS = 20, 24  # at most this many photographs, and this many pairs, are drawn


Row = tuple[int, float]  # the position of a row in the embedding, and its similarity to the photograph


class Photographs(NamedTuple):
    """The images whose nearest neighbours the user wants to see.

    Attributes:
        names: the name of each of the q images.
        rows: the row (h or z) of each image, (q, d) float32.
        pixels: the images to draw, (H, W, C) uint8 each. They belong to the first entries of `names`.
    """

    names: list[str]
    rows: NDArray[np.float32]
    pixels: list[NDArray[np.uint8]]


def read_photographs(job: Job, wanted: Given) -> Photographs:
    """Read and embed the images whose neighbours are wanted. Images that cannot be read are listed on stderr.

    Args:
        job: the job that embeds the images to search. Its encoder embeds the wanted images too.
        wanted: the images whose neighbours are wanted.

    Raises:
        EmbedError: if no image can be read.
    """
    # The same batch size as for the images to search, so that TensorFlow compiles the encoder once.
    found = compute_all(wanted.source, job.decode, job.embed, choose_batch_size(len(job.given.source)))
    for place, reason in found.bad:
        print(f"Skipped {show_name(wanted.source.name(place))}: {show_name(reason)}", file=sys.stderr)
    places = found.places.tolist()
    if not places:
        place, reason = found.bad[0]
        name = wanted.source.name(place)
        raise EmbedError(f"No image of --neighbours could be read. First problem: {name}: {reason}.")
    pixels = [job.decode(wanted.source.read(place)) for place in places[:DRAWN_QUERIES]]
    return Photographs([wanted.source.name(place) for place in places], found.rows, pixels)


def print_neighbours(embedding: Embedding, photographs: Photographs, out: Path) -> None:
    """Print the nearest images of photographs, and draw them into a picture in the folder of `out`.

    A photograph is not its own neighbour: an image with the same path is left out.

    Args:
        embedding: the images to search.
        photographs: the photographs.
        out: the file of the embedding. For h.npz, the picture is named h-neighbours.png.
    """
    found = find_nearest(photographs.rows, embedding.read_rows(), NEIGHBOURS + 1)
    nearest = [_leave_itself_out(embedding, name, *each) for name, *each in zip(photographs.names, *found)]
    for name, rows in zip(photographs.names, nearest):
        print(f"Nearest to {show_name(name)} (cosine similarity of {embedding.job.output}):")
        for row, similarity in rows:
            print(f"  {similarity:.4f}  {show_name(embedding.name(row))}")
    neighbours = "its neighbours" if len(nearest) == 1 else "their neighbours"
    what = f"{_count(len(photographs.pixels), len(nearest), 'photograph')} with {neighbours}"
    _draw(_name_beside(out, "neighbours.png"), what, lambda path: _draw_rows(path, embedding, photographs, nearest))


def _leave_itself_out(
    embedding: Embedding, name: str, places: NDArray[np.int64], similarities: NDArray[np.float32]
) -> list[Row]:
    own = os.path.realpath(name)
    rows = zip(places.tolist(), similarities.tolist())
    return [(row, each) for row, each in rows if os.path.realpath(embedding.name(row)) != own][:NEIGHBOURS]


def _draw_rows(path: Path, embedding: Embedding, photographs: Photographs, nearest: Sequence[Sequence[Row]]) -> None:
    pictures = import_drawing("embedding.pictures")
    rows = []
    for pixels, name, found in zip(photographs.pixels, photographs.names, nearest):
        row = [pictures.Tile(pixels, name)]
        for number, similarity in found:
            row.append(pictures.Tile(embedding.load_pixels(number), embedding.name(number), f"{similarity:.4f}"))
        rows.append(row)
    headings = ["photograph", f"nearest in {embedding.job.output}, from left to right"]
    pictures.draw_tiles(path, rows, [*headings, *[""] * (NEIGHBOURS - 1)])


def write_duplicates(embedding: Embedding, threshold: float, out: Path) -> None:
    """Write the pairs of images that are nearly the same into a CSV file in the folder of `out`, and draw some of them.

    Args:
        embedding: the embedded images.
        threshold: the least cosine similarity of such a pair, in (0, 1].
        out: the file of the embedding. For h.npz, the files are named h-duplicates.csv and h-duplicates.png.

    Raises:
        OSError: if the CSV file or the temporary file of the rows cannot be written.
    """
    rows = embedding.store_rows()
    pairs = find_pairs(rows, threshold, "looking for near-duplicates")
    table, picture = _name_beside(out, "duplicates.csv"), _name_beside(out, "duplicates.png")
    _forget(picture)
    write_atomically(table, lambda file: file.write(_format_pairs(embedding, pairs).encode()))
    what = f"with a cosine similarity of {embedding.job.output} of at least {threshold}"
    print(f"Found {format_count(pairs.found, 'pair')} {what}, written to {show_name(table)}.")
    if pairs.found > MOST_PAIRS:
        print(f"Only the {MOST_PAIRS} most similar pairs are written. Use a higher --duplicates to see fewer.")
    if len(rows) > 1:
        sample = sample_similarities(rows)
        half, rare = np.quantile(sample, [0.5, 0.999])
        print(f"For comparison: of random pairs, half are above {half:.4f}, and one in a thousand is above {rare:.4f}.")
    if not pairs.found:
        return
    shown = np.unique(np.linspace(0, len(pairs.places) - 1, min(DRAWN_PAIRS, len(pairs.places))).astype(np.int64))
    drawn = _count(len(shown), pairs.found, "pair")
    drawn += ", evenly spread from the most to the least similar" if pairs.found > 1 else ""
    _draw(picture, drawn, lambda path: _draw_pairs(path, embedding, pairs, shown))


def _format_pairs(embedding: Embedding, pairs: Pairs) -> str:
    """Return a CSV with the columns first, second and similarity."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["first", "second", "similarity"])
    for (first, second), similarity in zip(pairs.places.tolist(), pairs.similarities.tolist()):
        names = (make_text(embedding.name(row)) for row in (first, second))
        writer.writerow([*names, f"{similarity:.6f}"])
    return text.getvalue()


def _draw_pairs(path: Path, embedding: Embedding, pairs: Pairs, shown: NDArray[np.int64]) -> None:
    pictures = import_drawing("embedding.pictures")
    rows = []
    for places, similarity in zip(pairs.places[shown].tolist(), pairs.similarities[shown].tolist()):
        texts = (f"{similarity:.4f}", " ")
        tiles = [
            pictures.Tile(embedding.load_pixels(row), embedding.name(row), text) for row, text in zip(places, texts)
        ]
        rows.append(tiles)
    pictures.draw_tiles(path, rows, ["first", "second"], columns=3)


def _name_beside(out: Path, ending: str) -> Path:
    """Return the path of a file in the folder of `out`, such as h-neighbours.png for h.npz."""
    return out.with_name(f"{out.stem}-{ending}")


def _count(drawn: int, count: int, noun: str) -> str:
    """Return a text such as "20 of 31 pairs", or "20 pairs" if all of them are drawn."""
    whole = format_count(count, noun)
    return whole if drawn == count else f"{drawn} of {whole}"


def _forget(picture: Path) -> None:
    """Remove the picture of an earlier call, both the PNG and the SVG file."""
    for old in (picture, picture.with_suffix(".svg")):
        old.unlink(missing_ok=True)


def _draw(picture: Path, what: str, draw: Callable[[Path], object]) -> None:
    """Draw a picture, and replace an older one. Print its name, or a warning with the reason if it cannot be drawn."""
    _forget(picture)
    draw_or_name(picture, draw)
    if picture.exists():
        print(f"Drew {what}: {show_name(picture)} and .svg.")
