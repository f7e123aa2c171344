"""Tests a folder of images as a data set: training and test images, classes, unreadable files, and sizes.

The images are kept in memory, or they are streamed: read from their files during training.
"""

from __future__ import annotations

import json
import os
import threading
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from lowlevel_simclr.data import batches, catalog, dataset, image_file, image_folder, image_index
from lowlevel_simclr.data.image_walk import RUN
from tests.support.image_files import draw_picture, make_names, make_run_folder, write_pictures
from tests.support.odd_files import make_odd_files
from tests.support.permissions import obey_permissions
from tests.support.progress_lines import print_every_line


def load(root: Path, seed: int = 0, **options: Any) -> dataset.DataSet:
    return catalog.load_dataset(f"folder:{root}", None, seed, **options)


def numbers(images: Any) -> list[int]:
    """Return the number of each test picture, which is the value of its first pixel."""
    return [int(number) for number in np.asarray(images)[:, 0, 0, 0]]


# Training and test images (splits), and labels


def test_train_and_test_are_the_splits_and_the_parent_is_the_label(tmp_path: Path) -> None:
    paths = ["train/dog/a.png", "train/cat/deep/cat/b.png", "train/cat/c.png", "test/dog/d.png", "test/cat/e.PNG"]
    images = load(write_pictures(tmp_path, *paths))
    assert images.classes == ("cat", "dog")
    assert numbers(images.train.images) == [2, 1, 0] and list(images.train.labels) == [0, 0, 1]
    assert numbers(images.test.images) == [4, 3] and list(images.test.labels) == [0, 1]
    assert images.train.images.dtype == np.uint8 and images.train.labels.dtype == np.int64


def test_without_a_test_split_a_tenth_is_held_out_by_the_seed(tmp_path: Path) -> None:
    for root in (tmp_path / "plain", tmp_path / "below"):
        inner = "train/" if root.name == "below" else ""
        write_pictures(root, *make_names(f"{inner}a", 20), *make_names(f"{inner}b", 20))
        first, again, other = load(root), load(root), load(root, seed=1)
        assert len(first.train.images) == 36 and len(first.test.images) == 4
        assert numbers(first.test.images) == numbers(again.test.images) != numbers(other.test.images)
        assert sorted(len(np.unique(split.images.reshape(-1, 768), axis=0)) for split in (first.train, first.test))
        assert set(first.train.labels) == {0, 1}


def test_images_beside_a_train_split_are_counted_and_not_used(tmp_path: Path) -> None:
    images = load(
        write_pictures(tmp_path, *make_names("train/a", 2), *make_names("test/a", 2), *make_names("val/a", 3))
    )
    assert images.record["counts"]["outside_splits"] == 3
    assert len(images.train.images) == len(images.test.images) == 2


def test_a_test_split_alone_leaves_the_rest_to_train_on(tmp_path: Path) -> None:
    images = load(write_pictures(tmp_path, *make_names("test/a", 2), *make_names("a", 3)))
    assert (len(images.train.images), len(images.test.images)) == (3, 2)
    with pytest.raises(dataset.DataError, match="images only in test/. Put the images to train on in train/, or"):
        load(write_pictures(tmp_path / "only", *make_names("test/a", 2)))


def test_images_without_a_folder_of_their_own_have_no_label(tmp_path: Path) -> None:
    images = load(write_pictures(tmp_path, *(f"{number}.png" for number in range(20))))
    assert set(images.train.labels) == set(images.test.labels) == {-1} and images.classes == ()
    some = load(write_pictures(tmp_path / "splits", "train/a.png", "train/cat/b.png", "test/c.png"))
    assert list(some.train.labels) == [-1, 0] and list(some.test.labels) == [-1] and some.classes == ("cat",)


def test_hidden_files_and_other_endings_are_counted_and_links_followed_once(tmp_path: Path) -> None:
    root = write_pictures(tmp_path / "pictures", *make_names("a", 12), ".hidden/a.png", "a/._00.png")
    (root / "a" / "notes.txt").write_text("no image")
    (root / "b").symlink_to(write_pictures(tmp_path / "elsewhere", "x.png"))
    (root / "a" / "loop").symlink_to(root)
    images = load(root)
    assert images.record["counts"] == {"train": 12, "test": 1, "skipped": 0, "not_images": 1, "outside_splits": 0}
    assert images.classes == ("a", "b")


def test_a_link_to_a_file_is_read_and_a_broken_one_is_named(tmp_path: Path) -> None:
    elsewhere = write_pictures(tmp_path / "elsewhere", *(f"{number}.png" for number in range(12)))
    root = write_pictures(tmp_path / "pictures", "a/12.png")
    for path in elsewhere.iterdir():
        (root / "a" / path.name).symlink_to(path)
    (root / "a/gone.png").symlink_to(elsewhere / "gone.png")
    (root / "a/itself.png").symlink_to(root / "a/itself.png")
    images = load(root)
    assert len(images.train.images) + len(images.test.images) == 13
    assert {entry["path"]: entry["reason"] for entry in images.record["skipped"]} == {
        "a/gone.png": "cannot be read: No such file or directory",
        "a/itself.png": "cannot be read: Too many levels of symbolic links",
    }


def test_the_record_says_what_the_splits_are_and_what_was_left_out(tmp_path: Path) -> None:
    root = write_pictures(tmp_path, *make_names("Train/a", 2), *make_names("Val/a", 2), "extra/x.png", "Train/y.png")
    make_run_folder(root / "runs/old")
    (root / "Train/closed").mkdir(mode=0)
    (root / "Train/photo.HEIC").write_text("")
    with obey_permissions():
        record = load(root, own=root / "Val/none").record
    assert record["splits"] == {"train": ["Train/"], "test": ["Val/"], "unused": ["extra/"]}
    assert record["left_out"] == [
        {"path": "Train/closed/", "reason": "cannot be listed: Permission denied"},
        {"path": "Train/photo.HEIC", "reason": "HEIC images are not read"},
        {"path": "runs/old/", "reason": RUN},
    ]
    assert record["unlabelled"] == ["Train/y.png"] and record["counts"]["outside_splits"] == 1


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    root = write_pictures(tmp_path, *make_names("a", 12))
    (root / "a/03.png").chmod(0)
    with obey_permissions():
        skipped = load(root).record["skipped"]
    assert skipped == [{"path": "a/03.png", "reason": "cannot be read: Permission denied"}]


@pytest.mark.parametrize(("mode", "where"), [(0, "pictures"), (0, "."), (0o100, "pictures")])
def test_a_root_that_cannot_be_listed_is_refused(tmp_path: Path, mode: int, where: str) -> None:
    root = write_pictures(tmp_path / "above/pictures", *make_names("a", 12))
    closed = root.parent if where == "." else root
    closed.chmod(mode)
    try:
        with obey_permissions(), pytest.raises(dataset.DataError, match="pictures c.*Permission denied"):
            load(root)
    finally:
        closed.chmod(0o700)


def test_a_run_folder_is_no_data_set(tmp_path: Path) -> None:
    with pytest.raises(dataset.DataError, match="x is a run folder, and the pictures of a run are not data. Give the"):
        load(make_run_folder(tmp_path / "x"))
    with pytest.raises(
        dataset.DataError, match="no images that can be read .1 left out, the first is x/: a run folder"
    ):
        load(tmp_path)


# Files that cannot be read are skipped


def test_skipped_names_exactly_what_cannot_be_read_and_nothing_shifts(tmp_path: Path) -> None:
    root = write_pictures(
        tmp_path, *make_names("train/a", 30, "png"), *make_names("train/b", 30, "jpg"), *make_names("test/b", 20, "bmp")
    )
    sound = load(root)
    wrong = [f"train/a/{number:02d}.png" for number in (3, 4, 29)] + [f"train/b/{number:02d}.jpg" for number in (0, 7)]
    for path in wrong[:4]:
        (root / path).write_bytes((root / path).read_bytes()[:100])
    for path in (wrong[4], "test/b/19.bmp"):
        (root / path).write_bytes(b"")
    (root / "train/c").mkdir()
    (root / "train/c/text.jpg").write_text("not an image")  # c is a class, although none of its images can be read
    (root / "train/c/readme.txt").write_text("counted only")
    (root / "train/d.png").symlink_to(root / "nowhere.png")
    images = load(root)
    skipped = {entry["path"]: entry["reason"] for entry in images.record["skipped"]}
    assert set(skipped) == {*wrong, "test/b/19.bmp", "train/c/text.jpg", "train/d.png"}
    assert skipped["test/b/19.bmp"] == "empty file" and skipped["train/a/03.png"].startswith("damaged: ")
    assert skipped["train/c/text.jpg"] == "no JPEG, PNG, WebP, BMP, GIF, TIFF, JPEG 2000 or PPM image"
    assert skipped["train/d.png"] == "cannot be read: No such file or directory"
    assert images.record["counts"] == {"train": 55, "test": 19, "skipped": 8, "not_images": 1, "outside_splits": 0}
    kept = np.delete(np.arange(60), [3, 4, 29, 30, 37])
    np.testing.assert_array_equal(images.train.images, sound.train.images[kept])
    np.testing.assert_array_equal(images.train.labels, sound.train.labels[kept])
    np.testing.assert_array_equal(images.test.images, sound.test.images[:19])


def test_a_damaged_file_moves_no_other_between_the_splits(tmp_path: Path) -> None:
    root = write_pictures(tmp_path, *make_names("a", 40))
    before = numbers(load(root).test.images)
    (root / "a/00.png").write_bytes(b"")
    assert numbers(load(root).test.images) == [number for number in before if number != 0]


def test_all_bad_empty_or_too_few_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(dataset.DataError, match="The folder .*/nowhere does not exist. Use --dataset folder:PATH"):
        load(tmp_path / "nowhere")
    (tmp_path / "file").write_text("")
    with pytest.raises(dataset.DataError, match="file is a file. Use --dataset folder:PATH"):
        load(tmp_path / "file")
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(dataset.DataError, match="empty contains no images .0 other files.. Give a folder with .bmp"):
        load(empty)
    (empty / "a.txt").write_text("")
    with pytest.raises(dataset.DataError, match="empty contains no images .1 other file, such as a.txt.. Give a"):
        load(empty)
    bad = write_pictures(tmp_path / "bad", *make_names("a", 12))
    for path in bad.rglob("*.png"):
        path.write_bytes(path.read_bytes()[:60])
    with pytest.raises(
        dataset.DataError, match=r"None of the 12 images in .*/bad can be used. .* in a/0.*: damaged: .*Use"
    ):
        load(bad)
    with pytest.raises(
        dataset.DataError, match="no readable image to test with. It needs at least 2 to train on and 1 to test"
    ):
        load(write_pictures(tmp_path / "one", "a/0.png"))


def test_a_batch_that_cannot_be_filled_is_refused_before_a_file_is_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = write_pictures(tmp_path, *make_names("a", 20))
    monkeypatch.setattr(Path, "read_bytes", lambda path: pytest.fail(f"{path} was read"))
    monkeypatch.setattr(image_file, "read_shape", lambda path: pytest.fail(f"{path} was opened"))
    with pytest.raises(
        dataset.DataError, match=r"batch size \(19\) is .* \(18 images in .*\). Use a --batch-size from 2 to 18"
    ):
        load(root, at_least=19)


@pytest.mark.parametrize(("count", "found"), [(1, "is only 1 image"), (2, "is only 1 image")])
def test_a_set_too_small_for_any_batch_names_the_smallest_that_works(tmp_path: Path, count: int, found: str) -> None:
    """Test one and two images, so that only one is left for training. A batch needs two, so an error asks for more."""
    root = write_pictures(tmp_path, *make_names("a", count))
    with pytest.raises(dataset.DataError, match=f"There {found} to train on in .* works has 2 images to train on and"):
        load(root, at_least=8)


# Sizes


def test_images_of_one_size_keep_every_pixel_up_to_the_largest_side(tmp_path: Path) -> None:
    root = write_pictures(tmp_path, *make_names("a", 12), height=20, width=30)
    kept = load(root, largest_side=20)
    np.testing.assert_array_equal(kept.test.images[0], np.asarray(draw_picture(numbers(kept.test.images)[0], 20, 30)))
    assert load(root, largest_side=10).train.images.shape[1:] == (10, 15, 3)


SEVERAL = [(16, 90), (40, 24), (24, 24), (90, 50), (31, 24)]


def write_several(root: Path) -> Path:
    """Write pictures of several sizes, all for training except the last one, which is for testing."""
    for number, (height, width) in enumerate(SEVERAL):
        write_pictures(root, f"{'test' if number == 4 else 'train'}/a/{number}.png", height=height, width=width)
    return root


def test_images_of_several_sizes_keep_their_aspect_in_one_array(tmp_path: Path) -> None:
    """Test that the shorter side of an image is reduced to at most 24 pixels, the median of all shorter sides."""
    images = load(write_several(tmp_path))
    assert images.train.images.sizes.tolist() == [[16, 90], [40, 24], [24, 24], [43, 24]]
    assert images.train.images.canvases.shape == (4, 43, 90, 3)
    assert images.record["frames"] == {"shorter": 24, "longer": 90, "canvas": [43, 90]}
    unchanged, reduced = images.train.images.cut_frames(np.array([1, 3]))
    np.testing.assert_array_equal(unchanged, np.asarray(draw_picture(numbers(unchanged[None])[0], 40, 24)))
    assert reduced.shape == (43, 24, 3)
    small = load(tmp_path, largest_side=12)
    assert small.train.images.sizes.tolist() == [[12, 68], [20, 12], [12, 12], [22, 12]]
    assert small.record["shape"] == [12, 12, 3]


def test_an_evaluation_sees_the_square_in_the_middle_of_each_image(tmp_path: Path) -> None:
    images = load(write_several(tmp_path)).train.images
    assert images.shape == (4, 24, 24, 3) and np.asarray(images).shape == images.shape
    np.testing.assert_array_equal(images[np.array([1])][0], images.cut_frames(np.array([1]))[0][8:32])
    assert images[np.array([0])].shape == (1, 24, 24, 3)  # image 0 has only 16 rows, so its square was enlarged


def test_the_padding_is_black_and_everything_else_is_the_file(tmp_path: Path) -> None:
    images = load(write_several(tmp_path)).train.images
    for canvas, (height, width) in zip(images.canvases, images.sizes):
        inside = np.zeros(canvas.shape[:2], bool)
        inside[:height, :width] = True
        assert not canvas[~inside].any() and canvas[inside].any(axis=-1).mean() > 0.5


def test_a_run_from_before_images_had_frames_continues_with_its_squares(tmp_path: Path) -> None:
    known = {**load(write_several(tmp_path)).record, "shape": [24, 24, 3]}
    del known["frames"]
    images = load(tmp_path, before=known)
    assert isinstance(images.train.images, np.ndarray) and images.train.images.shape == (4, 24, 24, 3)
    for number, pixels in enumerate(images.train.images):
        content = (tmp_path / f"train/a/{number}.png").read_bytes()
        np.testing.assert_array_equal(pixels, image_file.read_pixels(content, image_file.Shape(24, 24, 3)))
    assert "frames" not in images.record and images.record["shape"] == [24, 24, 3]
    os.utime(tmp_path / "train/a/0.png", (1, 1))  # the file looks changed, so the next start reads it again
    np.testing.assert_array_equal(load(tmp_path, before=known).train.images, images.train.images)


def test_a_run_with_frames_resumes_with_them(tmp_path: Path) -> None:
    first = load(write_several(tmp_path))
    known = json.loads(json.dumps(first.record))
    os.utime(tmp_path / "train/a/0.png", (1, 1))
    for before in (first.record, known):
        again = load(tmp_path, before=before)
        np.testing.assert_array_equal(again.train.images.canvases, first.train.images.canvases)
        np.testing.assert_array_equal(again.train.images.sizes, first.train.images.sizes)
    with pytest.raises(dataset.DataError, match="have changed since this run began"):
        load(tmp_path, before={**known, "frames": {**known["frames"], "longer": 80}})


def test_an_orientation_of_the_camera_turns_the_frame(tmp_path: Path) -> None:
    write_several(tmp_path)
    pixels = np.add.outer(5 * np.arange(20), 3 * np.arange(40)).astype(np.uint8)  # smooth, so that JPEG loses little
    picture, exif = Image.fromarray(np.stack([pixels] * 3, axis=-1)), Image.Exif()
    exif[0x0112] = 6
    picture.save(tmp_path / "train/a/9.jpg", exif=exif, quality=95)
    images = load(tmp_path).train.images
    assert images.sizes[-1].tolist() == [40, 20]
    turned = np.asarray(picture.transpose(Image.Transpose.ROTATE_270)).astype(int)
    assert np.abs(images.cut_frames(np.array([4]))[0] - turned).mean() < 3


def test_only_all_grey_images_have_one_channel(tmp_path: Path) -> None:
    root = write_pictures(tmp_path, *make_names("a", 12))
    for path in root.rglob("*.png"):
        Image.open(path).convert("L").save(path)
    assert load(root).train.images.shape[1:] == (16, 16, 1)
    write_pictures(root, "b/colour.png")
    assert load(root).train.images.shape[1:] == (16, 16, 3)


def test_images_of_a_few_pixels_are_left_out(tmp_path: Path) -> None:
    root = write_pictures(tmp_path, *make_names("a", 12))
    write_pictures(root, "a/tracker.png", height=1, width=1)
    assert [entry["reason"] for entry in load(root).record["skipped"]] == ["1x1 pixels: smaller than 8 on a side"]
    with pytest.raises(dataset.DataError, match="can be used.*: smaller than 8 pixels on a side. Use another"):
        for number in range(12):
            write_pictures(root, f"a/{number:02d}.png", height=4, width=4)
        load(root)


# Streamed images


def mixed(root: Path) -> Path:
    """Write image files of all kinds and of several sizes, one of them damaged. Return their folder."""
    for number, ending in enumerate(["png", "jpg", "webp", "bmp"] * 8):
        write_pictures(root, f"{'ab'[number % 2]}/{number:02d}.{ending}", height=20 + number, width=50 - number)
    (root / "a/08.png").write_bytes(b"\x89PNG")
    return root


def test_streamed_pixels_are_those_in_memory(tmp_path: Path) -> None:
    root = mixed(tmp_path)
    held, streamed = load(root, largest_side=24), load(root, largest_side=24, memory_limit=0)
    assert not catalog.is_streamed(held) and catalog.is_streamed(streamed)
    assert held.record == streamed.record and held.classes == streamed.classes
    for one, other in ((held.train, streamed.train), (held.test, streamed.test)):
        assert other.images.shape == one.images.shape
        np.testing.assert_array_equal(np.asarray(other.images.canvases), one.images.canvases)
        np.testing.assert_array_equal(other.images.sizes, one.images.sizes)
        np.testing.assert_array_equal(np.asarray(other.images), np.asarray(one.images))
        np.testing.assert_array_equal(other.labels, one.labels)
        rows = np.array([[1, 0], [2, 1]])
        np.testing.assert_array_equal(other.images[rows], one.images[rows])
        np.testing.assert_array_equal(other.images[1:3][np.array([1])], one.images[np.array([2])])
    everything = (np.asarray(catalog.select_training_images(one, "all")) for one in (held, streamed))
    np.testing.assert_array_equal(*everything)


@pytest.mark.parametrize(("first", "own"), [(0, None), (3, None), (7, None), (2, [0, 3]), (0, [4, 1])])
def test_streamed_batches_are_those_in_memory_wherever_a_run_resumes(
    tmp_path: Path, first: int, own: list[int] | None
) -> None:
    """Test whole batches, and the part of each batch that one of several devices (replicas) gets."""
    root, share = mixed(tmp_path), None if own is None else np.array(own)
    both = [load(root, largest_side=24, memory_limit=limit).train.images for limit in (4, 0)]
    held, streamed = (list(batches.make_batches(images, 5, 3, first, 12, share)) for images in both)
    assert len(held) == len(streamed) == 12 - first
    specs = [batches.make_batches(images, 5, 3, first, 12, share).element_spec for images in both]
    assert specs[0] == specs[1]
    for one, other in zip(held, streamed):
        for a, b in zip(one, other):
            np.testing.assert_array_equal(a, b)


def test_batches_are_decoded_ahead_and_by_several_threads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images = load(mixed(tmp_path), memory_limit=0).train.images.canvases
    read, together, threads = image_file.read_frame, threading.Barrier(2), set()

    def waits(content: bytes, bounds: image_file.Bounds, channels: int) -> np.ndarray:
        threads.add(threading.get_ident())
        together.wait(timeout=20)  # returns only if two threads decode at the same time
        return read(content, bounds, channels)

    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    pooled = image_folder.FolderImages(images._source, images.chosen, images._shape, frames=images._frames)
    monkeypatch.setattr(image_file, "read_frame", waits)
    started = pooled.read_ahead(iter([np.array([0, 1]), np.array([2, 3]), np.array([4, 5])]), 1)
    assert next(started).shape[0] == 2
    assert len(threads) == 2 and pooled._pool._work_queue.qsize() <= 2
    assert sum(1 for _ in started) == 2


def test_a_file_that_goes_while_it_is_streamed_is_named(tmp_path: Path) -> None:
    images = load(mixed(tmp_path), memory_limit=0).train.images
    gone = Path(images.canvases._source.name(images.canvases.chosen[2]))
    gone.unlink()
    with pytest.raises(dataset.DataError, match=f"{gone} can no longer be read .*No such file"):
        images[np.arange(4)]
    with pytest.raises(tf.errors.OpError, match="can no longer be read") as told:
        list(batches.make_batches(images, len(images), 0, 0, 1))
    sentence = str(batches.recover_data_error(told.value))
    assert sentence.startswith(f"{gone} can no") and sentence.endswith("run with --fresh.")
    assert batches.recover_data_error(tf.errors.UnknownError(None, None, "another")) is None


# data.json, in which a run keeps its list of images


def test_a_valid_index_is_taken_as_it_stands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = mixed(tmp_path)
    first = load(root, memory_limit=0)
    known = json.loads(json.dumps(first.record))
    with monkeypatch.context() as patch:
        patch.setattr(image_file, "read_content", lambda path: pytest.fail(f"{path} was read"))
        again = load(root, memory_limit=0, before=known)
    assert again.record == first.record
    np.testing.assert_array_equal(np.asarray(again.train.images), np.asarray(first.train.images))
    held = load(root, before=known)
    np.testing.assert_array_equal(np.asarray(held.train.images), np.asarray(first.train.images))


def test_nothing_is_opened_again_if_all_images_have_one_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = write_pictures(tmp_path, *make_names("a", 12))
    first = load(root, memory_limit=0)
    monkeypatch.setattr(image_file, "read_content", lambda path: pytest.fail(f"{path} was read"))
    monkeypatch.setattr(image_file, "read_shape", lambda path: pytest.fail(f"{path} was opened"))
    assert load(root, memory_limit=0, before=first.record).record == first.record


@pytest.mark.parametrize("limit", [0, 4])
def test_files_that_only_look_changed_are_read_anew_and_changed_ones_refused(tmp_path: Path, limit: float) -> None:
    root = mixed(tmp_path)
    known = json.loads(json.dumps(load(root, memory_limit=limit).record))
    os.utime(root / "a/00.png", (1, 1))
    touched = load(root, memory_limit=limit, before=known).record
    assert touched["listing"] != known["listing"] and touched["content"] == known["content"]
    known["skipped"][0]["reason"] = "the words of another version of Pillow"
    assert load(root, memory_limit=limit, before=known).record["content"] == known["content"]
    write_pictures(root, "a/00.png", height=20, width=49)
    with pytest.raises(dataset.DataError, match="have changed since this run began .*start a new run with --fresh"):
        load(root, memory_limit=limit, before=known)


def test_reading_shows_progress_where_it_takes_long(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    load(write_pictures(tmp_path, *make_names("a", 5)))
    assert capsys.readouterr() == ("", "")  # reading takes little time, so it prints no progress
    print_every_line(monkeypatch)
    load(tmp_path)
    printed = capsys.readouterr().err
    assert "reading the sizes of images: 5 of 5 images, " in printed and "reading images: 5 of 5 images, " in printed


# Entries of a folder that are FIFOs, devices or huge


@pytest.mark.parametrize("memory_limit", [4.0, 0.0])
def test_only_regular_files_of_a_reasonable_size_are_read(tmp_path: Path, memory_limit: float) -> None:
    """Test a folder with a FIFO, links to /dev/urandom and /dev/zero, and a huge sparse file. None may be read.

    Reading a FIFO would wait for ever, the two devices have no end, and the sparse file would fill the memory.
    """
    write_pictures(tmp_path, *make_names("train", 5), *make_names("test", 2))
    odd = make_odd_files(tmp_path / "train", ".png")
    images = load(tmp_path, memory_limit=memory_limit)
    skipped = {entry["path"]: entry["reason"] for entry in images.record["skipped"]}
    assert len(images.train.images) == 5 and skipped.keys() == {f"train/{name}" for name in odd}
    assert all(f"cannot be read: {odd[path[6:]]}" in reason for path, reason in skipped.items())
    assert "LARGEST_IMAGE_FILE" in skipped["train/sparse.png"]


def test_a_folder_of_nothing_else_says_why(tmp_path: Path) -> None:
    make_odd_files(tmp_path, ".png")
    with pytest.raises(dataset.DataError, match="None of the 4 images .*png: cannot be read: it (is a|has)"):
        load(tmp_path, seed=1)


def test_a_file_that_became_a_fifo_ends_a_streamed_run(tmp_path: Path) -> None:
    images = load(write_pictures(tmp_path, *make_names("train", 3), *make_names("test", 2)), memory_limit=0.0)
    (tmp_path / "train/01.png").unlink()
    os.mkfifo(tmp_path / "train/01.png")
    with pytest.raises(dataset.DataError, match="01.png can no longer be read .cannot be read: it is a FIFO"):
        images.train.images[np.arange(3)]


# Names with control characters


def test_odd_names_are_read_and_shown_in_one_printable_line(tmp_path: Path) -> None:
    odd = ["train/000\x1b]0;PWNED\x07\x1b[31m.png", "train/two\nlines/1.png", os.fsdecode(b"train/caf\xe9/2.png")]
    write_pictures(tmp_path, *odd, *make_names("test/a", 2))
    images = load(tmp_path)
    assert len(images.train.images) == 3 and set(images.classes) == {"two\nlines", "caf\udce9", "a"}
    assert json.loads(json.dumps(catalog.describe_dataset(images)))["classes"] == list(images.classes)
    for path in odd:
        (tmp_path / path).write_bytes(b"")
    (tmp_path / "test/a/01.png").write_bytes(b"")
    (tmp_path / "test/a/00.png").write_bytes(b"")
    with pytest.raises(dataset.DataError) as told:
        load(tmp_path)
    assert r"000\x1b]0;PWNED\x07\x1b[31m.png" in str(told.value) and str(told.value).isprintable()


# The index: a file in the cache that lists the images which were already read


def measure_files(root: Path, count: int) -> int:
    """Load a folder of `count` files in a new process. Return the peak memory of the process in bytes."""
    write_pictures(root, "0.png")
    for number in range(1, count):
        os.link(root / "0.png", root / f"{number:07d}.png")
    tracemalloc.start()
    try:
        assert len(load(root, memory_limit=0).train.images) > count / 2
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_a_million_files_need_less_than_two_gibibytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    few, many = (measure_files(tmp_path / str(count), count) for count in (400, 2400))
    assert (many - few) / 2000 < 2**31 / 1e6  # bytes for one more file


def test_a_second_start_opens_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Load the same images twice, as two different runs would do. The second time, no file may be opened."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(image_index, "INDEXED", 33)
    monkeypatch.setattr(image_index, "RECENT", -3600.0)
    root = mixed(tmp_path / "data")
    small = load(root, memory_limit=0)  # 32 files
    assert not (tmp_path / "home").exists()
    (root / "a/32.png").write_bytes(b"")
    first = load(root, memory_limit=0)
    with monkeypatch.context() as patch:
        patch.setattr(image_file, "read_content", lambda path: pytest.fail(f"{path} was read"))
        patch.setattr(image_file, "read_shape", lambda path: pytest.fail(f"{path} was opened"))
        again = load(root, memory_limit=0)
    assert again.record == first.record != small.record
    np.testing.assert_array_equal(np.asarray(again.train.images), np.asarray(first.train.images))
    assert [path.parent.name for path in (tmp_path / "home").rglob("*.index")] == ["lowlevel_simclr"]
    assert not list(root.rglob("*.index*"))
    write_pictures(root, "b/11.jpg", height=31, width=39)
    opened, read = [], image_file.read_content
    monkeypatch.setattr(image_file, "read_content", lambda path: (opened.append(path), read(path))[1])
    assert load(root, memory_limit=0).record["content"] != first.record["content"]
    assert opened == [root / "b/11.jpg"]
