"""Writes image files with small numbered pictures, for tests of data sets."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from lowlevel_simclr.config.identity import to_dict
from lowlevel_simclr.config.settings import Config


def draw_picture(number: int, height: int = 16, width: int = 16) -> Image.Image:
    """Return a random picture whose first pixel has the value `number`."""
    pixels = np.random.default_rng(number).integers(0, 256, (height, width, 3), np.uint8)
    pixels[0, 0] = number
    return Image.fromarray(pixels)


def write_pictures(root: Path, *paths: str, **options: Any) -> Path:
    """Write an image file to each path. The first file has picture 0, the next one picture 1, ... Return the folder."""
    for number, path in enumerate(paths):
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        draw_picture(number, **options).save(root / path)
    return root


def make_names(folder: str, count: int, ending: str = "png") -> list[str]:
    """Return the paths of `count` files in a folder, named 00.png, 01.png and so on."""
    return [f"{folder}/{number:02d}.{ending}" for number in range(count)]


def make_run_folder(folder: Path) -> Path:
    """Write the config.json and two of the pictures that a training run has in its folder. Return the folder."""
    write_pictures(folder, "plots/views.png", "plots/learning.png")
    (folder / "config.json").write_text(json.dumps(to_dict(Config())))
    return folder
