"""Tests training on a folder of images: damaged files, grey images, missing labels, and images of different sizes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lowlevel_simclr import embed, evaluate, train
from lowlevel_simclr.data import file_reading, frames
from lowlevel_simclr.data.catalog import load_dataset
from lowlevel_simclr.data.image_file import Shape
from lowlevel_simclr.evaluation import plots
from lowlevel_simclr.evaluation.turns import choose_in_turn
from lowlevel_simclr.run.checkpoint import load_latest
from lowlevel_simclr.run.results import read_config, read_metrics
from lowlevel_simclr.training.session import Session
from tests.support.image_files import make_names, write_pictures
from tests.support.small_runs import narrow_resnet20

ROOT = Path(__file__).parents[2]
ARCHIVE = ROOT.parent / "shared" / "data" / "cifar10-jpeg.tar.xz"
SMALL = ["--image-size", "8", "--batch-size", "8", "--projection-widths", "8", "--warmup-epochs", "0", "--steps", "2"]
SMALL += ["--knn-every", "0", "--precision", "float32", "--xla", "off"]
QUICK = ["--protocol", "finetune,linear-augmented", "--finetune-steps", "1", "--probe-passes", "1"]


@pytest.fixture
def small_encoder(monkeypatch: pytest.MonkeyPatch) -> None:
    """Use a ResNet with only one block in each stage, so that training takes seconds."""
    narrow_resnet20(monkeypatch)


def run(root: Path, out: Path, *flags: str) -> int:
    return train.main([*SMALL, "--dataset", f"folder:{root}", "--out", str(out), *flags])


@pytest.mark.usefixtures("small_encoder")
def test_a_folder_with_damaged_files_trains_and_data_json_names_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = write_pictures(tmp_path / "pictures", *make_names("train/a", 30, "jpg"), *make_names("train/b", 30, "jpg"))
    write_pictures(root, *make_names("test/a", 6, "jpg"), *make_names("test/b", 6, "jpg"))
    damaged = [*make_names("train/a", 8, "jpg"), *make_names("test/b", 2, "jpg")]
    for path in damaged:
        (root / path).write_bytes((root / path).read_bytes()[:300])
    for path in (empty := ["train/b/10.jpg", "train/b/20.jpg", "test/a/05.jpg"]):
        (root / path).write_bytes(b"")
    (root / "train/a/notes.txt").write_text("text")
    out = tmp_path / "run"
    assert run(root, out, "--memory-limit", "0") == 0  # the images are read again for each batch
    record = json.loads((out / "data.json").read_text())
    assert sorted(entry["path"] for entry in record["skipped"]) == sorted([*damaged, *empty])
    assert record["counts"] == {"train": 50, "test": 9, "skipped": 13, "not_images": 1, "outside_splits": 0}
    said = capsys.readouterr().out
    assert "decoded when a batch needs them" in said and "skipped 13 images, see data.json" in said and "k-NN" in said
    results = json.loads((out / "evaluation.json").read_text())
    assert run(root, out) == 0  # resumed, with the images in memory
    assert json.loads((out / "evaluation.json").read_text()) == results
    (root / damaged[0]).unlink()
    for command in (lambda: run(root, out), lambda: evaluate.main([str(out)])):
        assert command() == 1
        assert "have changed since this run began" in capsys.readouterr().err


@pytest.mark.usefixtures("small_encoder")
def test_packed_images_train_as_the_files_do(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = write_pictures(tmp_path / "pictures", *make_names("train/a", 20), *make_names("train/b", 20))
    # The test images have another height than the training images, which have 16 rows.
    write_pictures(root, *make_names("test/a", 4), *make_names("test/b", 4), height=20)
    assert run(root, tmp_path / "plain") == 0
    cache = ["--cache", str(tmp_path / "cache")]
    assert run(root, tmp_path / "packed", *cache, "--memory-limit", "0") == 0
    said = capsys.readouterr().out
    assert "packing 48 images of 20 x 16 pixels: 0.00 GiB in" in said and ", packed in one file" in said
    plain, packed = (read_metrics(tmp_path / name) for name in ("plain", "packed"))
    assert [row["loss"] for row in plain] == [row["loss"] for row in packed]
    results = [json.loads((tmp_path / name / "evaluation.json").read_text()) for name in ("plain", "packed")]
    assert results[0]["knn"] == results[1]["knn"]
    (tmp_path / "cache").rename(tmp_path / "elsewhere")
    assert evaluate.main([str(tmp_path / "packed")]) == 0 and not (tmp_path / "cache").exists()


@pytest.mark.usefixtures("small_encoder")
def test_grey_images_without_labels_train_on_both_splits_and_every_table_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = write_pictures(tmp_path / "pictures", *(f"{number}.png" for number in range(12)))
    for path in root.glob("*.png"):
        Image.open(path).convert("L").save(path)
    assert run(root, tmp_path / "run", "--train-on", "all") == 0
    said = capsys.readouterr().out
    assert run(root, tmp_path / "run", "--train-on", "all") == 0  # resumes
    for table in (said, capsys.readouterr().out):
        assert "k-NN and linear probe were skipped, because they need labels of at least two classes" in table
        assert "trained on train and test images together, which inflates" in table
    assert "12 images to train on, no labels" in said and "stored as 16x16 pixels, grey" in said
    assert np.isfinite([row["loss"] for row in read_metrics(tmp_path / "run")]).all()
    stored = read_config(tmp_path / "run")["views"]
    assert (stored["saturation"], stored["hue"], stored["grey_probability"]) == ([1, 1], [0, 0], 0)


@pytest.mark.usefixtures("small_encoder")
def test_a_run_in_its_data_folder_resumes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Test a training whose own folder is inside the folder of the images.

    The pictures that it draws must never be used as images: not when it resumes, and not in another training, a preview
    or an evaluation.
    """
    monkeypatch.chdir(write_pictures(tmp_path, *make_names("cat", 20), *make_names("dog", 20), "stray.png"))
    flags = [*SMALL, "--dataset", "folder:."]
    assert train.main(flags) == 0
    monkeypatch.setattr(Session, "finish", lambda session: session.train())  # from here on without pictures
    assert train.main(flags) == 0
    assert train.main([*flags, "--preview", "--out", "looked"]) == 0
    assert train.main([*flags, "--out", "dog/run"]) == 0
    said = capsys.readouterr().out
    assert said.count("37 images to train on, 2 classes") == 3 and "resumes at step 2 of 2" in said
    assert "1 of 41 images has no label" in said and "linear" in said
    assert evaluate.main(["dog/run", *QUICK]) == 0
    assert "1 of 41 images has no label" in capsys.readouterr().out
    record = json.loads(Path("dog/run/data.json").read_text())
    assert {entry["path"] for entry in record["left_out"]} == {"looked/", f"runs/folder-{Path.cwd().name}/"}


@pytest.mark.usefixtures("small_encoder")
def test_the_smallest_set_that_works_works(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Test two images for training and one for testing. The pictures of the run can show only these three images."""
    root = write_pictures(tmp_path / "pictures", "0.png", "1.png", "2.png")
    flags = ["--batch-size", "2"]
    assert run(root, tmp_path / "looked", *flags, "--preview") == 0
    assert "Drew the views of 2 images" in capsys.readouterr().out
    assert run(root, tmp_path / "run", *flags) == 0
    assert "warning" not in capsys.readouterr().err
    assert {path.name for path in (tmp_path / "run/plots").iterdir()} >= {
        "views.png",
        "embedding.png",
        "neighbours.png",
    }


def write_mixed(root: Path) -> Path:
    """Write pictures of many sizes in two classes: 24 for training and 8 for testing."""
    for number in range(32):
        split, height, width = ("train", "test")[number >= 24], 20 + number % 7, 34 - number % 5
        write_pictures(root, f"{split}/{'ab'[number % 2]}/{number:02d}.png", height=height, width=width)
    return root


@pytest.mark.slow
@pytest.mark.usefixtures("small_encoder")
def test_pictures_of_mixed_sizes_train_alike_wherever_they_are_kept(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = write_mixed(tmp_path / "pictures")
    ways = {
        "memory": (),
        "streamed": ("--memory-limit", "0"),
        "device": ("--data-on", "device"),
        "packed": ("--memory-limit", "0", "--cache", str(tmp_path / "cache")),
    }
    losses = {}
    for name, flags in ways.items():
        assert run(root, tmp_path / name, *flags) == 0
        losses[name] = [row["loss"] for row in read_metrics(tmp_path / name)]
    assert len(losses["memory"]) == 2 and all(found == losses["memory"] for found in losses.values())
    assert "pixels at most, each in its own aspect, in colour" in capsys.readouterr().out


@pytest.mark.usefixtures("small_encoder")
@pytest.mark.parametrize("flags", [("--micro-batch", "4"), ("--ops", "stock")], ids=["micro", "stock"])
def test_pictures_of_mixed_sizes_train_by_every_way_of_a_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, flags: tuple[str, ...]
) -> None:
    monkeypatch.setattr(Session, "finish", lambda session: session.train())  # without the evaluation and the pictures
    root = write_mixed(tmp_path / "pictures")
    assert run(root, tmp_path / "run", *flags) == 0
    assert np.isfinite([row["loss"] for row in read_metrics(tmp_path / "run")]).all()


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["threads", "strategy"])
def test_replicas_train_on_pictures_of_mixed_sizes(tmp_path: Path, engine: str) -> None:
    """Test two replicas in a separate process, because the process must start with two devices."""
    root = write_mixed(tmp_path / "pictures")
    flags = [*SMALL, "--devices", "cpu:2", "--engine", engine, "--dataset", f"folder:{root}"]
    flags += ["--out", str(tmp_path / "run")]
    subprocess.run([sys.executable, "-m", "lowlevel_simclr.train", *flags], check=True, cwd=ROOT, timeout=600)
    assert np.isfinite([row["loss"] for row in read_metrics(tmp_path / "run")]).all()


@pytest.mark.usefixtures("small_encoder")
def test_a_run_on_pictures_of_mixed_sizes_resumes_is_evaluated_and_embeds(tmp_path: Path) -> None:
    root, out = write_mixed(tmp_path / "pictures"), tmp_path / "run"
    assert run(root, out) == 0
    results = json.loads((out / "evaluation.json").read_text())
    assert run(root, out) == 0
    assert json.loads((out / "evaluation.json").read_text()) == results
    assert evaluate.main([str(out), *QUICK, "--label-fraction", "0.5"]) == 0
    assert embed.main([str(out), str(root / "test"), "--out", str(tmp_path / "h.npz")]) == 0
    found = np.load(tmp_path / "h.npz")
    kept = load_latest(out / "h" / "trained-test")
    assert kept is not None
    order = [str(path) for path in sorted((root / "test").rglob("*.png"))]
    assert list(found["paths"]) == order
    np.testing.assert_allclose(found["h"], kept.arrays["h"], atol=1e-5)


@pytest.mark.usefixtures("small_encoder")
def test_the_picture_of_views_shows_whole_pictures_and_no_padding(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, drawn, read = write_mixed(tmp_path / "pictures"), [], frames.read_canvas

    def read_with_white_padding(content: bytes, shape: Shape, given: frames.Frames, row: int) -> np.ndarray:
        canvas = read(content, shape, given, row)
        height, width = given.sizes[row]
        canvas[height:], canvas[:, width:] = 255, 255
        return canvas

    monkeypatch.setattr(plots, "plot_views", lambda path, *images: drawn.append(images))
    assert run(root, tmp_path / "black", "--preview") == 0
    monkeypatch.setattr(file_reading, "read_canvas", read_with_white_padding)
    assert run(root, tmp_path / "white", "--preview") == 0
    for one, other in zip(drawn[0], drawn[1], strict=True):
        assert len(one) == len(other) == 10
        for image, same in zip(one, other):
            np.testing.assert_array_equal(image, same)
    stored = load_dataset(f"folder:{root}").train.images
    assert (stored.canvases == 255).all(axis=(1, 3)).any(), "the test did not make the padding white"
    chosen = choose_in_turn(load_dataset(f"folder:{root}").train.labels, 10)
    assert [image.shape[:2] for image in drawn[0][0]] == [tuple(size) for size in stored.sizes[chosen].tolist()]


@pytest.mark.slow
@pytest.mark.skipif(not ARCHIVE.is_file(), reason=f"{ARCHIVE.name} is not in the folder that contains the repository")
def test_cifar10_as_jpeg_files_with_damage_among_them(tmp_path: Path) -> None:
    """Test 60,000 JPEG files, ten of which are cut off and three of which are empty, and a text file."""
    layout = ARCHIVE.with_name("cifar10_layout.py")
    subprocess.run([sys.executable, layout, "folder", tmp_path / "pictures"], check=True)
    root = tmp_path / "pictures"
    files = sorted(path.relative_to(root).as_posix() for path in root.rglob("*.jpg"))
    wrong = list(np.random.default_rng(0).choice(files, 13, replace=False))
    for path in wrong[:10]:
        (root / path).write_bytes((root / path).read_bytes()[: (root / path).stat().st_size // 2])
    for path in wrong[10:]:
        (root / path).write_bytes(b"")
    (root / "train" / "cat" / "readme.txt").write_text("text")
    flags = ["--dataset", f"folder:{root}", "--steps", "3", "--warmup-epochs", "0", "--out", str(tmp_path / "run")]
    assert train.main(flags) == 0
    record = json.loads((tmp_path / "run" / "data.json").read_text())
    assert {entry["path"] for entry in record["skipped"]} == set(wrong)
    assert record["counts"]["not_images"] == 1 and record["counts"]["skipped"] == 13
