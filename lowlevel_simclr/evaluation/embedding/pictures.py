"""Draws rows of small images with a caption below each: an image with its most similar images, or near-duplicate pairs.

Each picture is written as PNG and as SVG.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import matplotlib
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image

from lowlevel_simclr.config.names import show_name
from lowlevel_simclr.evaluation.plots import DPI, INK, STYLE
from lowlevel_simclr.runtime.files import write_atomically

SIDE, GAP, LINE, MARGIN, HEAD = 96, 14, 134, 12, 22  # pixels: an image, between images, a row, the edge, the headings
LONGEST_NAME = 17  # characters below an image


class Tile(NamedTuple):
    """An image (H, W, C) uint8 with one or three channels, its name, and an optional text above the name."""

    pixels: NDArray[np.uint8]
    name: str
    text: str = ""


def draw_tiles(path: Path, rows: Sequence[Sequence[Tile]], headings: Sequence[str], columns: int = 1) -> None:
    """Draw rows of images.

    Args:
        path: the PNG file. The SVG file has the same name with the ending .svg.
        rows: the images of each row. All rows have the same number of images.
        headings: the text above each column of images. A column with an empty text has no heading.
        columns: the number of rows that are drawn side by side.

    Raises:
        OSError: if a file cannot be written.
    """
    columns = min(columns, len(rows))
    deep, wide = -(-len(rows) // columns), len(headings) * (SIDE + GAP) + 2 * GAP
    width, height = columns * wide - 3 * GAP, deep * LINE
    full = width + 2 * MARGIN, height + HEAD + MARGIN
    with matplotlib.rc_context({**STYLE, "svg.hashsalt": show_name(path.name)}), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the font may not have every letter of a name
        figure = Figure(figsize=(full[0] / DPI, full[1] / DPI), dpi=DPI)
        axes = figure.add_axes((MARGIN / full[0], MARGIN / full[1], width / full[0], height / full[1]))
        axes.set(xlim=(0, width), ylim=(height, 0))
        axes.set_axis_off()
        for number, row in enumerate(rows):
            left, top = number // deep * wide, number % deep * LINE
            for place, tile in enumerate(row):
                x = left + place * (SIDE + GAP)
                extent = _fit(tile.pixels, x, top)
                axes.imshow(_make_rgb(tile.pixels), extent=extent, interpolation="nearest", clip_on=False)
                caption = "\n".join(filter(None, [tile.text, shorten_name(tile.name)]))
                axes.text(x + SIDE / 2, top + SIDE + 4, caption, ha="center", va="top", size=7, parse_math=False)
                if number % deep == 0 and headings[place]:
                    axes.text(x, -6, headings[place], weight="bold", color=INK)
        axes.set(xlim=(0, width), ylim=(height, 0))
        _save(figure, path)


def _fit(pixels: NDArray[np.uint8], x: float, y: float) -> tuple[float, float, float, float]:
    """Fit an image into a square of SIDE pixels. Return its left, right, bottom and top edge."""
    height, width = (extent * SIDE / max(pixels.shape[:2]) for extent in pixels.shape[:2])
    left, top = x + (SIDE - width) / 2, y + (SIDE - height) / 2
    return left, left + width, top + height, top


def _make_rgb(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return an image (H, W, C) with three channels, reduced to at most 2 SIDE x 2 SIDE pixels."""
    image = Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels).convert("RGB")
    image.thumbnail((2 * SIDE, 2 * SIDE), Image.Resampling.BOX)
    return np.asarray(image)


def shorten_name(name: str) -> str:
    """Return the end of the name of an image, as one printable line.

    Examples:
        >>> shorten_name("holidays/2024/photograph-0001.jpg")
        '...graph-0001.jpg'
    """
    end = show_name(name.rpartition("/")[2])
    return end if len(end) <= LONGEST_NAME else "..." + end[3 - LONGEST_NAME :]


def _save(figure: Figure, path: Path) -> None:
    png, svg = io.BytesIO(), io.BytesIO()
    FigureCanvasAgg(figure).print_png(png)
    FigureCanvasSVG(figure).print_svg(svg, metadata={"Date": None})
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, lambda file: file.write(png.getvalue()))
    write_atomically(path.with_suffix(".svg"), lambda file: file.write(svg.getvalue()))
