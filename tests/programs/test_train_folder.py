"""Runs on a folder of images, with damaged files, without colours and without labels."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lowlevel_simclr import evaluate, train
from lowlevel_simclr.run.results import read_config, read_metrics
from tests.support.image_files import make_names, write_pictures
from tests.support.small_runs import narrow_resnet20

ROOT = Path(__file__).parents[2]
ARCHIVE = ROOT.parent / "shared" / "data" / "cifar10-jpeg.tar.xz"
SMALL = ["--image-size", "8", "--batch-size", "8", "--projection-widths", "8", "--warmup-epochs", "0", "--steps", "2"]
SMALL += ["--knn-every", "0", "--precision", "float32", "--xla", "off"]


@pytest.fixture
def small_encoder(monkeypatch: pytest.MonkeyPatch) -> None:
    """Use one block a stage, so that a run takes seconds."""
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
    assert run(root, out, "--memory-limit", "0") == 0  # the images are streamed
    record = json.loads((out / "data.json").read_text())
    assert sorted(entry["path"] for entry in record["skipped"]) == sorted([*damaged, *empty])
    assert record["counts"] == {"train": 50, "test": 9, "skipped": 13, "not_images": 1, "outside_splits": 0}
    said = capsys.readouterr().out
    assert "decoded when a batch needs them" in said and "skipped 13 images, see data.json" in said and "k-NN" in said
    results = json.loads((out / "evaluation.json").read_text())
    assert run(root, out) == 0  # the same run, with the images in memory
    assert json.loads((out / "evaluation.json").read_text()) == results
    (root / damaged[0]).unlink()
    for command in (lambda: run(root, out), lambda: evaluate.main([str(out)])):
        assert command() == 1
        assert "have changed since this run began" in capsys.readouterr().err


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
    assert "12 images to train on, 0 classes" in said and "stored as 16x16 pixels, grey" in said
    assert np.isfinite([row["loss"] for row in read_metrics(tmp_path / "run")]).all()
    stored = read_config(tmp_path / "run")["views"]
    assert (stored["saturation"], stored["hue"], stored["grey_probability"]) == ([1, 1], [0, 0], 0)


@pytest.mark.usefixtures("small_encoder")
def test_a_run_in_its_data_folder_resumes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its own pictures are no data. Another run, a preview and an evaluation do not see them either."""
    monkeypatch.chdir(write_pictures(tmp_path, *make_names("cat", 20), *make_names("dog", 20), "stray.png"))
    flags = [*SMALL, "--dataset", "folder:."]
    assert train.main(flags) == 0 and train.main(flags) == 0
    assert train.main([*flags, "--preview", "--out", "looked"]) == 0
    assert train.main([*flags, "--out", "dog/run"]) == 0
    said = capsys.readouterr().out
    assert said.count("37 images to train on, 2 classes") == 3 and "resumes at step 2 of 2" in said
    assert "1 of 41 images have no label" in said and "linear" in said
    assert evaluate.main(["dog/run", "--protocol", "finetune,linear-augmented", "--finetune-steps", "1"]) == 0
    assert "1 of 41 images have no label" in capsys.readouterr().out
    record = json.loads(Path("dog/run/data.json").read_text())
    assert {entry["path"] for entry in record["left_out"]} == {"looked/", "runs/folder-./"}


@pytest.mark.usefixtures("small_encoder")
def test_the_smallest_set_that_works_works(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Two images to train on and one to test with, whose pictures are drawn from what there is."""
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


@pytest.mark.slow
@pytest.mark.skipif(not ARCHIVE.is_file(), reason=f"there is no {ARCHIVE.name} beside the checkout")
def test_cifar10_as_jpeg_files_with_damage_among_them(tmp_path: Path) -> None:
    """Of 60,000 files ten are cut off, three are empty and one is a text file."""
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
