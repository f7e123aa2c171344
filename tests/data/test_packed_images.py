"""Tests --cache, which stores the decoded pixels of all images of a data set in one file (the packed images).

The file is written once, and gets its final name only when it is complete. A damaged file must not be used.
"""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import PIL
import pytest

from lowlevel_simclr.data import batches, catalog, image_file, image_index, packed_images
from lowlevel_simclr.data.dataset import DataError, DataSet
from lowlevel_simclr.data.image_file import Shape
from lowlevel_simclr.runtime.files import lock_file
from tests.support import other_process
from tests.support.image_files import make_names, write_pictures

SHAPE = Shape(4, 5, 3)


@pytest.fixture(autouse=True)
def small_blocks_and_old_files(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the blocks of the packed file small: four images of 16x16 pixels each.

    Also make the index of images trust files that were just written.
    """
    monkeypatch.setattr(image_index, "RECENT", -3600.0)
    monkeypatch.setattr(packed_images, "BLOCK", 4 * 16 * 16 * 3)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Write a folder of 18 images, two of which are damaged."""
    root = write_pictures(
        tmp_path / "data", *make_names("train/a", 10), *make_names("train/b", 5), *make_names("test", 3)
    )
    (root / "train/a/03.png").write_bytes(b"\x89PNG")
    (root / "train/b/04.png").write_bytes(b"")
    return root


def load(root: Path, memory_limit: float = 4, cache: bool = True, **options: Any) -> DataSet:
    place = str(root.parent / "cache") if cache else None
    return catalog.load_dataset(f"folder:{root}", memory_limit=memory_limit, cache=place, **options)


def find_packed(root: Path) -> Path:
    (found,) = (root.parent / "cache").glob("*.pixels")
    return found


def check_same(one: DataSet, other: DataSet) -> None:
    assert one.record == other.record and one.classes == other.classes
    for first, second in ((one.train, other.train), (one.test, other.test)):
        assert first.images.shape == second.images.shape
        np.testing.assert_array_equal(np.asarray(first.images), np.asarray(second.images))
        np.testing.assert_array_equal(first.labels, second.labels)


class Decoded(NamedTuple):
    """Lists of the images that were decoded so far."""

    rows: list[int]


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> Iterator[Decoded]:
    counted, read = Decoded([]), image_file.read_pixels

    def count(content: bytes, shape: Shape) -> np.ndarray:
        counted.rows.append(len(content))
        return read(content, shape)

    monkeypatch.setattr(image_file, "read_pixels", count)
    yield counted


@pytest.mark.parametrize("memory_limit", [4, 0])
def test_packed_pixels_are_those_of_the_files_and_are_decoded_once(
    root: Path, memory_limit: float, decoded: Decoded, capsys: pytest.CaptureFixture[str]
) -> None:
    plain = load(root, cache=False)
    assert len(decoded.rows) == 18
    check_same(load(root, memory_limit), plain)
    assert len(decoded.rows) == 36
    assert capsys.readouterr().out == f"packing 18 images of 16 x 16 pixels: 0.00 GiB in {root.parent / 'cache'}\n"
    again = load(root, memory_limit)
    check_same(again, plain)
    assert catalog.is_streamed(again) == (memory_limit == 0)
    assert len(decoded.rows) == 36 and capsys.readouterr().out == ""
    assert sorted(path.suffix for path in (root.parent / "cache").iterdir()) == [".index", ".lock", ".lock", ".pixels"]


def test_the_same_files_elsewhere_and_other_held_out_images_share_a_file(root: Path, decoded: Decoded) -> None:
    load(root)
    whole = find_packed(root)
    os.rename(root, root.parent / "moved")
    check_same(load(root.parent / "moved"), load(root.parent / "moved", cache=False))
    first, second = (load(root.parent / "moved", 0, seed=seed, splits="none") for seed in (0, 1))
    assert first.record["content"] != second.record["content"]
    check_same(second, load(root.parent / "moved", seed=1, splits="none", cache=False))
    assert find_packed(root) == whole


def test_other_pixels_are_another_file(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    load(root)
    load(root, largest_side=8)
    write_pictures(root, "train/b/04.png")
    load(root)
    rules, pillow = image_file.PIXEL_RULES
    assert pillow == int(PIL.__version__.split(".")[0])
    for others in ((rules + 1, pillow), (rules, pillow + 1)):
        monkeypatch.setattr(packed_images, "PIXEL_RULES", others)
        load(root)
    assert len(list((root.parent / "cache").glob("*.pixels"))) == 5


@pytest.mark.parametrize(("first", "own"), [(0, None), (2, None), (1, [3, 0])])
def test_batches_are_those_in_memory(root: Path, first: int, own: list[int] | None) -> None:
    share = None if own is None else np.array(own)
    both = [load(root, limit, cache=limit == 0) for limit in (4, 0)]
    held, packed = (batches.make_batches(each.train.images, 5, 3, first, 7, share) for each in both)
    assert held.element_spec == packed.element_spec
    for one, other in zip(held, packed):
        for a, b in zip(one, other):
            np.testing.assert_array_equal(a, b)
    everything = [catalog.select_training_images(each, "all") for each in both]
    np.testing.assert_array_equal(everything[0], np.asarray(everything[1]))
    np.testing.assert_array_equal(everything[0][[[1, 0]]], everything[1][[[1, 0]]])
    with pytest.raises(ValueError, match="cannot be kept on a device"):
        batches.make_batches(both[1].train.images, 5, 3, 0, 7, with_images=False)


# Prints by how many bytes the memory of a process grows with the first batch. The process gathers from 400 MB of packed
# images, with deterministic ops as in training.
FIRST_BATCH = """
import os, re, numpy as np, tensorflow as tf
from pathlib import Path
from lowlevel_simclr.data import batches, packed_images
def read_memory(name):
    found = re.search(rf"^{name}:\\s+(\\d+) kB", Path("/proc/self/status").read_text(), re.MULTILINE)
    return 1024 * int(found[1])
tf.keras.utils.set_random_seed(1)
tf.config.experimental.enable_op_determinism()
pixels = np.memmap(os.environ["PIXELS"], np.uint8, "w+", shape=(2000, 256, 256, 3))
images = packed_images.PackedImages(pixels, np.arange(1000))
before = read_memory("VmRSS")
Path("/proc/self/clear_refs").write_text("5")  # the peak becomes the memory of now
((_, index, batch),) = batches.make_batches(images, 4, 0, 3, 4)
assert batch.shape == (4, 256, 256, 3) and len(set(index.numpy())) == 4
print(read_memory("VmHWM") - before)
"""


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="only Linux can reset the peak of the memory")
def test_batches_read_only_their_own_images(tmp_path: Path) -> None:
    """Test a process of its own. Once, to make an iterator took as much memory as all images."""
    grown = int(other_process.output_of(FIRST_BATCH, PIXELS=str(tmp_path / "pixels")))
    assert grown < 1e8  # 14 MB were measured, and 423 MB for the old form


def test_an_iterator_keeps_the_images_of_its_dataset(root: Path) -> None:
    images = load(root, 0, cache=True).train.images
    expected = [batch.numpy() for _, _, batch in batches.make_batches(images, 4, 0, 0, 3)]
    iterator = iter(batches.make_batches(images, 4, 0, 0, 3))
    gc.collect()
    for batch, (_, _, found) in zip(expected, iterator, strict=True):
        np.testing.assert_array_equal(batch, found)


def test_no_python_function_gathers_a_batch(root: Path) -> None:
    decoded, packed = (batches.make_batches(load(root, 0, cache).train.images, 4, 0, 0, 3) for cache in (False, True))
    assert b"PyFunc" not in decoded._as_serialized_graph().numpy()
    assert b"PyFunc" not in packed._as_serialized_graph().numpy()


def test_batches_need_no_rewriting_that_tensorflow_reports_as_an_error(root: Path) -> None:
    """Test that no call is parallel. With deterministic ops, TensorFlow would print an error in each training run."""
    for cache in (False, True):
        made = batches.make_batches(load(root, 4 if not cache else 0, cache).train.images, 4, 0, 0, 3)
        assert b"ParallelMap" not in made._as_serialized_graph().numpy()


# Damaged files, a full disk, and a cache that cannot be written


@pytest.mark.parametrize("place", ["pixels", "sizes", "magic", "cut", "empty"])
def test_damage_is_named_and_the_file_is_made_again(root: Path, place: str, capsys: pytest.CaptureFixture[str]) -> None:
    plain = load(root)
    path = find_packed(root)
    content = bytearray(path.read_bytes())
    position = {"pixels": 5 * 768, "sizes": 18 * 768 + 3, "magic": -9}.get(place)
    if position is not None:
        content[position] ^= 1
    path.write_bytes({"cut": content[:-7], "empty": b""}.get(place, content))
    capsys.readouterr()
    check_same(load(root), plain)
    printed = capsys.readouterr().out.splitlines()
    assert printed[0].startswith(f"The packed images {path} are damaged (") and printed[1].startswith(
        "packing 18 images"
    )
    check_same(load(root), plain)
    assert capsys.readouterr().out == ""


def test_a_full_disk_is_refused_before_a_file_is_decoded(
    root: Path, decoded: Decoded, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(packed_images.shutil, "disk_usage", lambda path: SimpleNamespace(free=10))
    with pytest.raises(DataError, match=r"needs 0.00 GiB in .*cache, which has 0.00 GiB free. Free some space, "):
        load(root)
    assert decoded.rows == []


def test_a_cache_that_cannot_be_written_is_refused(root: Path) -> None:
    (root.parent / "cache").write_text("a file")
    with pytest.raises(DataError, match=r"Cannot pack the images in .*cache: .*File exists. Free some space there, or"):
        load(root)


# Interruptions and other processes


def test_what_was_packed_before_an_interruption_is_not_decoded_again(
    root: Path, decoded: Decoded, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = load(root, cache=False)
    add = packed_images.Packing.add

    def stop_in_the_third_block(packing: packed_images.Packing, block: np.ndarray) -> None:
        if packing.done == 8:
            raise KeyboardInterrupt
        add(packing, block)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(packed_images.Packing, "add", stop_in_the_third_block)
        load(root)
    decoded.rows.clear()
    check_same(load(root), plain)
    assert len(decoded.rows) == 10  # all 18 except the 8 that were already packed
    assert not list((root.parent / "cache").glob("*.partial*"))


def interrupt(*unused: object) -> None:
    raise KeyboardInterrupt


def test_a_partial_block_that_is_damaged_is_made_again(
    root: Path, decoded: Decoded, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = load(root, cache=False)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(packed_images.Packing, "finish", interrupt)
        load(root)
    (partial,) = (root.parent / "cache").glob("*.partial")
    content = bytearray(partial.read_bytes())
    content[4 * 768] ^= 1
    partial.write_bytes(content)
    decoded.rows.clear()
    check_same(load(root), plain)
    assert 10 <= len(decoded.rows) < 14  # all blocks but the first, without the images that are known to be damaged


def test_a_process_that_is_killed_leaves_no_file_under_the_final_name(root: Path) -> None:
    program = (
        "import os\n"
        "from lowlevel_simclr.data import catalog, packed_images\n"
        f"packed_images.BLOCK = {packed_images.BLOCK}\n"
        "packed_images.Packing.finish = lambda *unused: os.kill(os.getpid(), 9)\n"
        f"catalog.load_dataset({f'folder:{root}'!r}, cache={str(root.parent / 'cache')!r})\n"
    )
    assert subprocess.run([sys.executable, "-c", program], capture_output=True).returncode == -9
    assert not list((root.parent / "cache").glob("*.pixels"))
    check_same(load(root), load(root, cache=False))


def test_a_second_process_waits_and_then_finds_the_packed_images(
    root: Path, decoded: Decoded, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    load(root)
    (lock,) = (path for path in (root.parent / "cache").glob("*.lock") if len(path.stem) == 32)
    made = [find_packed(root), *(root.parent / "cache").glob("*.index")]
    for path in made:
        path.rename(f"{path}.aside")
    decoded.rows.clear()
    capsys.readouterr()
    held = lock_file(lock, wait=False)

    def finish_elsewhere() -> None:
        for path in made:
            Path(f"{path}.aside").rename(path)
        held.close()

    wait = packed_images.lock_file

    def start_the_other(path: Path, wait_for: bool = True, **options: Any) -> Any:
        if options.get("wait", wait_for):
            threading.Timer(0.2, finish_elsewhere).start()
        return wait(path, options.get("wait", wait_for))

    monkeypatch.setattr(packed_images, "lock_file", start_the_other)
    load(root)
    assert capsys.readouterr().out == "Waiting for another process that packs the same images.\n"
    assert decoded.rows == []


def test_only_some_blocks_of_a_large_file_are_checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packed_images, "CHECKED", 2)
    monkeypatch.setattr(packed_images, "BLOCK", 60)
    with packed_images.open_packing(tmp_path, "name", 9, SHAPE) as packing:
        for _ in range(9):
            packing.add(np.ones((1, *SHAPE), np.uint8))
        packing.finish("key", np.ones((9, 2), np.int32))
    content = bytearray((tmp_path / "key.pixels").read_bytes())
    content[5 * 60] = 7
    (tmp_path / "key.pixels").write_bytes(content)
    found = packed_images.open_packed(tmp_path, "key", pytest.fail)
    assert found is not None and found[5, 0, 0, 0] == 7
    content[8 * 60] = 7
    (tmp_path / "key.pixels").write_bytes(content)
    told: list[str] = []
    assert packed_images.open_packed(tmp_path, "key", told.append) is None and "block 8 of 9" in told[0]
