"""Tests the pictures that the program `embed` draws of similar images: each image must be in its row and column.

Odd names of image files must do no harm.
"""

from __future__ import annotations

import os
import xml.etree.ElementTree
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lowlevel_simclr.evaluation.embedding.pictures import GAP, HEAD, LINE, MARGIN, SIDE, Tile, draw_tiles, shorten_name


def paint(*colour: int, shape: tuple[int, int] = (20, 20)) -> np.ndarray:
    return np.broadcast_to(np.array(colour, np.uint8), (*shape, len(colour))).copy()


def test_each_image_is_in_its_row_and_column(tmp_path: Path) -> None:
    colours = [[(200, 10 * row, 90 * place) for place in range(2)] for row in range(3)]
    rows = [[Tile(paint(*colour), f"{number}.png", "0.99") for number, colour in enumerate(row)] for row in colours]
    draw_tiles(tmp_path / "new" / "a.png", rows, ["first", "second"])
    with Image.open(tmp_path / "new" / "a.png") as opened:
        picture = np.asarray(opened.convert("RGB"))
    assert picture.shape[0] == 3 * LINE + HEAD + MARGIN
    for row in range(3):
        for place in range(2):
            x, y = MARGIN + place * (SIDE + GAP) + SIDE // 2, HEAD + row * LINE + SIDE // 2
            assert picture[y, x].tolist() == list(colours[row][place])


@pytest.mark.parametrize("columns", [1, 3])
def test_odd_names_and_shapes_are_drawn(tmp_path: Path, columns: int) -> None:
    names = ["a\x1b[31m.png", "b$\\frac$.png", "_c<&>.png", "d\udcff.png", "e\n.png", "漢字.png", "f" * 200]
    images = [paint(9), paint(1, 2, 3, shape=(8, 300)), paint(4, 5, 6, shape=(500, 9))]
    rows = [[Tile(images[number % 3], name), Tile(images[0], "")] for number, name in enumerate(names)]
    path = tmp_path / ("h\udcff.png" if os.name == "posix" else "h.png")
    draw_tiles(path, rows, ["first", ""], columns=columns)
    with Image.open(path) as picture:
        assert picture.width > columns * 2 * SIDE
    root = xml.etree.ElementTree.parse(path.with_suffix(".svg")).getroot()
    assert len(list(root.iter("{http://www.w3.org/2000/svg}image"))) == 2 * len(names)


def test_the_same_images_give_the_same_files(tmp_path: Path) -> None:
    rows = [[Tile(paint(1, 2, 3), "a.png")]]
    for folder in ("x", "y"):
        draw_tiles(tmp_path / folder / "a.png", rows, ["first"])
    for name in ("a.png", "a.svg"):
        assert (tmp_path / "x" / name).read_bytes() == (tmp_path / "y" / name).read_bytes()


def test_names_are_short_and_printable() -> None:
    assert shorten_name("folder/a.png") == "a.png" and shorten_name("x/\x1b.png") == "\\x1b.png"
    assert shorten_name("_c$1$.png") == "_c$1$.png"  # Matplotlib must not read this as mathematics
    assert shorten_name("p" * 100 + "1.png").endswith("pp1.png") and len(shorten_name("p" * 100)) == 17
