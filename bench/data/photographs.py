"""Draws synthetic photographs: smooth noise of 500 x 375 pixels, as JPEG of quality 90, about 55 kB each."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
from PIL import Image

HEIGHT, WIDTH = 375, 500
_WAVES = ((8, 60), (32, 30), (128, 15))  # for each layer of smooth noise: its grid points in a row, and its amplitude
_GRAIN = 4  # standard deviation of the noise of each pixel


def draw_photograph(seed: int) -> Image.Image:
    """Return one photograph."""
    random = np.random.default_rng(seed)
    pixels = random.normal(128, _GRAIN, (HEIGHT, WIDTH, 3))
    for points, amplitude in _WAVES:
        grid = random.normal(0, amplitude, (points * HEIGHT // WIDTH + 2, points, 3)).astype(np.float32)
        for channel in range(3):
            wave = Image.fromarray(grid[..., channel]).resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC)
            pixels[..., channel] += np.asarray(wave)
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def write_photographs(root: Path, count: int, different: int) -> None:
    """Write photographs in ten classes.

    Args:
        root: a new folder.
        count: number of files.
        different: number of photographs that are drawn. The other files are hard links to these.
    """
    paths = [root / f"{number % 10}" / f"{number:07d}.jpg" for number in range(count)]
    for number, path in enumerate(paths):
        path.parent.mkdir(parents=True, exist_ok=True)
        if number < different:
            draw_photograph(number).save(path, "JPEG", quality=90)
        else:
            os.link(paths[number % different], path)
