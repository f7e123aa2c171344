"""Tests the lines that a training prints at its start and at its end."""

from __future__ import annotations

import os
import shlex
import types
from pathlib import Path

import pytest

from lowlevel_simclr.config import identity, presets
from lowlevel_simclr.data import catalog
from lowlevel_simclr.training import messages, workers
from lowlevel_simclr.training.learner import build_learner
from lowlevel_simclr.training.plan import make_plan
from tests.support.image_files import make_names, write_pictures
from tests.support.labelled_images import draw_cifar_images

SMALL = {"image_size": 16, "batch_size": 4, "steps": 1, "warmup_epochs": 0.0, "xla": "off", "precision": "float32"}


def test_a_run_says_which_convention_and_head_it_has(capsys: pytest.CaptureFixture[str]) -> None:
    chosen = identity.replace(
        presets.load_preset("shapes"), loss_reduction="google", projection_batch_norm="google", **SMALL
    )
    chosen, images = identity.replace(chosen, projection_widths=(16, 8), ops="stock"), draw_cifar_images()
    plan = make_plan(chosen, images)
    learner = build_learner(plan, 3)
    run = types.SimpleNamespace(folder="runs/one")
    messages.print_start(plan, run, images, learner, 0, workers.Workers())
    said = capsys.readouterr().out
    assert "10 classes (labels unused)" in said
    assert "2 x the mean over both views of every image" in said and "16 and 8 units, BatchNorm (google)" in said
    assert "float32 numbers, stock ops (TensorFlow's), no XLA" in said and "cifar stem, for small images" in said
    assert "representation (h) of 64 numbers" in said and "pixels, in colour" in said
    shapes = [weight.shape for weight in learner.projection.get_weights()]
    assert sorted(shapes) == sorted([(64, 16), *[(16,)] * 4, (16, 8), *[(8,)] * 3])  # the last BatchNorm has no beta


def test_a_skipped_file_is_named_in_one_printable_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bad = os.fsdecode(b"train/0\x1b[31m\n\xe9.png")
    write_pictures(tmp_path, *make_names("train", 3), *make_names("test", 2))
    (tmp_path / bad).write_bytes(b"")
    images = catalog.load_dataset(f"folder:{tmp_path}")
    messages.print_reading(types.SimpleNamespace(data_on="host", train_on="train"), images)
    said = capsys.readouterr().out
    assert r"skipped 1 image, see data.json; first train/0\x1b[31m\n\xe9.png (empty file)" in said
    assert all(line.isprintable() for line in said.splitlines()) and said.count("\n") == 3


@pytest.mark.parametrize("with_knn", [True, False])
def test_the_numbers_of_the_progress_are_explained_before_the_first_step(
    with_knn: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    messages.print_before_steps(workers.Workers(), with_knn)
    said = capsys.readouterr().out
    assert "loss: must fall below chance" in said and "top-1: " in said and ("k-NN: " in said) == with_knn
    assert said.splitlines()[-1].startswith("compiling            before the first step")
    messages.print_before_steps(workers.Workers(count=2, rank=1), with_knn)
    assert capsys.readouterr().out == ""


def test_a_run_says_which_folders_became_which_split_and_what_was_left_out() -> None:
    record = {
        "splits": {"train": ["Train/"], "test": [], "unused": ["extra/"]},
        "counts": {"outside_splits": 3},
        "left_out": [{"path": "a/", "reason": "cannot be listed: Permission denied"}],
        "unlabelled": ["Train/x.png"],
    }
    assert messages.list_left_out(record) == [
        "trains on Train/, holds out a tenth of them, drawn by the seed",
        "ignores 3 images outside these folders, in extra/",
        "left out 1, see data.json; first a/ (cannot be listed: Permission denied)",
        "1 image without a label, not evaluated, see data.json; first Train/x.png",
    ]
    assert messages.list_left_out({"counts": {"train": 3}}) == []


@pytest.mark.parametrize(
    ("dataset", "labelled", "said", "unsaid"),
    [
        ("shapes", True, "--seed 4", "embed"),
        ("folder:pictures", True, "lowlevel_simclr.evaluate", "no-labels.md"),
        ("folder:pictures", True, "--config runs/one/config.json --weights runs/one --out runs/one-longer", "images,"),
        ("memory:ab", True, "train(images, 'runs/one-longer', config='runs/one/config.json'", "--config"),
        ("folder:pictures", False, "lowlevel_simclr.embed runs/one IMAGES", "lowlevel_simclr.evaluate"),
    ],
)
def test_the_next_steps_fit_the_run(
    capsys: pytest.CaptureFixture[str], dataset: str, labelled: bool, said: str, unsaid: str
) -> None:
    plan = types.SimpleNamespace(dataset=dataset, epochs=10, seed=3)
    run = types.SimpleNamespace(folder=Path("runs/one"), plots=Path("runs/one/plots"))
    messages.print_results(plan, run, labelled)
    out = capsys.readouterr().out
    assert said in out and unsaid not in out


@pytest.mark.parametrize(
    ("folder", "shown"),
    [("one", "--weights ./one "), ("-x", "--weights ./-x "), ("/a b/c", "--weights '/a b/c' "), ("-x/y", "./-x/y")],
)
def test_the_folder_of_a_longer_run_is_a_path(folder: str, shown: str) -> None:
    command = messages.write_longer(Path(folder), "cifar10")
    assert shown in command
    config, weights, out = (shlex.split(command)[at] for at in (4, 6, 8))
    assert (config, out) == (f"{weights}/config.json", f"{weights}-longer")
