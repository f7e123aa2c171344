"""Makes damaged files for the tests of faults: wrong content for files of a training, damaged images and archives."""

from __future__ import annotations

import io
import os
import pickle
import random
import tarfile
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from lowlevel_simclr.data import array_pickle, cifar, image_file, npz
from lowlevel_simclr.data.dataset import DataError
from lowlevel_simclr.data.image_file import Shape, UnreadableError

Make = Callable[[Path, bytes, random.Random], object]


def flip_bit(data: bytes, chance: random.Random) -> bytes:
    """Return the bytes with one bit flipped."""
    if not data:
        return b"\0"
    place = chance.randrange(len(data))
    return data[:place] + bytes([data[place] ^ 1 << chance.randrange(8)]) + data[place + 1 :]


WRONG_THINGS: dict[str, Make] = {
    "nothing": lambda path, before, chance: None,
    "an empty file": lambda path, before, chance: path.write_bytes(b""),
    "half of it": lambda path, before, chance: path.write_bytes(before[: len(before) // 2]),
    "a flipped bit": lambda path, before, chance: path.write_bytes(flip_bit(before, chance)),
    "random bytes": lambda path, before, chance: path.write_bytes(chance.randbytes(max(1, len(before)))),
    "a list": lambda path, before, chance: path.write_text("[1, 2]"),
    "an object of other names": lambda path, before, chance: path.write_text('{"a": {"b": [null, 1e999]}}'),
    "deep nesting": lambda path, before, chance: path.write_text("[" * 100_000),
    "a folder": lambda path, before, chance: path.mkdir(),
    "a FIFO": lambda path, before, chance: os.mkfifo(path),
    "a link to /dev/zero": lambda path, before, chance: path.symlink_to("/dev/zero"),
    "a broken link": lambda path, before, chance: path.symlink_to("nowhere"),
    "a sparse file of a terabyte": lambda path, before, chance: _make_sparse(path),
    "it twice": lambda path, before, chance: path.write_bytes(before + before),
}


def _make_sparse(path: Path) -> None:
    with open(path, "wb") as file:
        file.truncate(2**40)


def draw_photos(folder: Path) -> None:
    """Write a folder of three small pictures."""
    folder.mkdir()
    for number in range(3):
        pixels = np.random.default_rng(number).integers(0, 256, (20, 24, 3), np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")


def _damage(data: bytes, chance: random.Random) -> bytes:
    """Damage the data one to four times: flip a bit, cut off the end, remove up to 15 bytes, or insert random bytes."""
    for _ in range(chance.randint(1, 4)):
        kind, place = chance.randrange(4), chance.randrange(max(1, len(data)))
        if kind == 0:
            data = flip_bit(data, chance)
        elif kind == 1 and chance.random() < 0.3:
            data = data[:place]
        elif kind == 2:
            data = data[:place] + data[place + chance.randrange(16) :]
        else:
            data = data[:place] + chance.randbytes(chance.randrange(1, 9)) + data[place:]
    return data


def _draw_image(chance: random.Random) -> bytes:
    """Return a small image in one of the formats and modes that the package reads."""
    mode = chance.choice(["RGB", "L", "P", "RGBA", "LA", "1"])
    form = chance.choice(["PNG", "JPEG", "WEBP", "BMP"])
    size = chance.randint(8, 40), chance.randint(8, 40)
    pixels = np.frombuffer(chance.randbytes(size[0] * size[1] * 4), np.uint8).reshape(size[1], size[0], 4)
    image = Image.fromarray(pixels, "RGBA").convert(mode)
    if form in ("JPEG", "BMP") and mode in ("RGBA", "LA", "P"):
        image = image.convert("RGB")
    if form == "WEBP":
        image = image.convert("RGBA" if "A" in mode else "RGB")
    file = io.BytesIO()
    image.save(file, form)
    return file.getvalue()


def read_damaged_image(chance: random.Random, folder: Path) -> str:
    """Read a damaged image. Return "" if this works or raises the right error, otherwise what was wrong."""
    data = _damage(_draw_image(chance), chance)
    try:
        pixels = image_file.read_pixels(data, Shape(16, 16, 3))
    except UnreadableError:
        return ""
    except Exception as error:  # noqa: BLE001, any other error is what the campaign looks for
        return f"{type(error).__name__}: {error}"
    return "" if pixels.shape == (16, 16, 3) and pixels.dtype == np.uint8 else f"{pixels.shape} {pixels.dtype}"


def read_damaged_npz(chance: random.Random, folder: Path) -> str:
    """Read a damaged npz file. Return "" if this works or raises the right error, otherwise what was wrong."""
    file = io.BytesIO()
    images = np.frombuffer(chance.randbytes(12 * 8 * 8 * 3), np.uint8).reshape(12, 8, 8, 3)
    save = chance.choice([np.savez, np.savez_compressed])
    save(file, x_train=images[:8], y_train=np.arange(8) % 2, x_test=images[8:], y_test=np.arange(4) % 2)
    path = folder / "damaged.npz"
    path.write_bytes(_damage(file.getvalue(), chance))
    try:
        npz.load(path, 0)
    except DataError:
        return ""
    except Exception as error:  # noqa: BLE001, any other error is what the campaign looks for
        return f"{type(error).__name__}: {error}"
    return ""


def read_damaged_pickle(chance: random.Random, folder: Path) -> str:
    """Read a damaged pickle of arrays. Return "" if this works or raises the right error, otherwise what was wrong."""
    content = {b"data": np.arange(48, dtype=np.uint8).reshape(2, 24), b"labels": [1, 2], b"names": [b"a", "b"]}
    path = folder / "damaged"
    path.write_bytes(_damage(pickle.dumps(content, protocol=chance.choice([2, 4])), chance))
    try:
        array_pickle.read_pickle(path, "Unpack it again.")
    except DataError:
        return ""
    except Exception as error:  # noqa: BLE001, any other error is what the campaign looks for
        return f"{type(error).__name__}: {error}"
    return ""


def read_damaged_archive(chance: random.Random, folder: Path) -> str:
    """Unpack a damaged tar archive, as if its SHA-256 had not been checked.

    Return "" if this works or raises the right error, otherwise what was wrong.
    """
    batch = pickle.dumps({b"data": np.zeros((2, 3072), np.uint8), b"labels": [1, 2]}, protocol=2)
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode=chance.choice(["w:gz", "w"])) as archive:
        for name in (*cifar.CIFAR100.train, cifar.CIFAR100.test):
            member = tarfile.TarInfo(f"{cifar.CIFAR100.folder}/{name}")
            member.size = len(batch)
            archive.addfile(member, io.BytesIO(batch))
    with tempfile.TemporaryDirectory(dir=folder) as cache:
        path = Path(cache) / "damaged.tar.gz"
        path.write_bytes(_damage(file.getvalue(), chance))
        try:
            cifar._unpack(cifar.CIFAR100, path, Path(cache))
            cifar.load(cifar.CIFAR100, cache)
        except DataError:
            return ""
        except Exception as error:  # noqa: BLE001, any other error is what the campaign looks for
            return f"{type(error).__name__}: {error}"
    return ""


READERS = (read_damaged_image, read_damaged_npz, read_damaged_pickle, read_damaged_archive)
