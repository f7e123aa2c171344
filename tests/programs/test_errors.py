"""Tests the error messages for mistakes of users, such as wrong flags, missing files or a full disk.

For each mistake, the program must end before any long work, with a message that says what happened and what to do. The
page docs/errors.md shows these messages. A test compares the page with the messages.
"""

from __future__ import annotations

import errno
import os
import re
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from lowlevel_simclr import evaluate, train
from lowlevel_simclr.api import session
from lowlevel_simclr.data import catalog, cifar
from lowlevel_simclr.ops import _library, _route
from lowlevel_simclr.run import checkpoint
from lowlevel_simclr.runtime import signals
from lowlevel_simclr.training import implementation, plan, replicas, workers

PAGE = Path(__file__).parents[2] / "docs" / "errors.md"
Prepare = Callable[[Path, pytest.MonkeyPatch], list[str]]  # prepares the working folder and returns the flags of train


@pytest.fixture(autouse=True)
def nothing_is_computed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fail the test if training begins, because the error must come earlier.

    Also make runs small, and give Keras an empty cache.
    """
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "keras"))
    monkeypatch.setattr("lowlevel_simclr.data.catalog.SHAPES_TRAIN", 60)
    monkeypatch.setattr("lowlevel_simclr.data.catalog.SHAPES_TEST", 40)
    monkeypatch.setattr(session, "Session", lambda *parts: pytest.fail("training began"))


def pictures(folder: str, count: int = 20, side: int = 16) -> None:
    Path(folder).mkdir(parents=True, exist_ok=True)
    for number in range(count):
        pixels = np.random.default_rng(number).integers(0, 256, (side, side, 3), np.uint8)
        Image.fromarray(pixels).save(f"{folder}/{number:02d}.png")


def flags(*given: str) -> Prepare:
    return lambda folder, monkeypatch: list(given)


def text_files(folder: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    Path("notes").mkdir()
    Path("notes/a.txt").write_text("text")
    return ["--dataset", "folder:notes"]


def all_bad(folder: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    pictures("pictures")
    for path in Path("pictures").iterdir():
        path.write_bytes(path.read_bytes()[:60])
    return ["--dataset", "folder:pictures", "--batch-size", "8"]


def tiny_images(folder: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    pictures("pictures", side=6)
    return ["--dataset", "folder:pictures", "--batch-size", "8"]


def few_images(folder: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    pictures("pictures")
    return ["--dataset", "folder:pictures", "--batch-size", "256"]


def two_readings(folder: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    pictures("pictures/bus")
    pictures("pictures/train")
    return ["--dataset", "folder:pictures", "--batch-size", "8"]


def other_labels(folder: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    pictures("pictures")
    Path("labels.csv").write_text("path,label\ncats/1.jpg,cat\n")
    return ["--dataset", "folder:pictures", "--labels", "labels.csv"]


def in_both_splits(folder: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    pictures("pictures")
    Path("split.csv").write_text("00.png,train\n01.png,test\n00.png,test\n")
    return ["--dataset", "folder:pictures", "--split", "split.csv"]


def two_images(folder: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    pictures("pictures", count=2)
    return ["--dataset", "folder:pictures", "--batch-size", "8"]


def grey(folder: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    np.savez("images.npz", images=np.zeros((20, 8, 8), np.uint8))
    three = ["0.5", "0.5", "0.5"]
    return ["--dataset", "npz:images.npz", "--batch-size", "8", "--input-mean", *three, "--input-std", *three]


def a_file(folder: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    Path("file").write_text("")
    return ["--dataset", "folder:file"]


def floats(folder: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    np.savez("images.npz", x_train=np.zeros((9, 8, 8, 3), np.float32))
    return ["--dataset", "npz:images.npz"]


def no_network(folder: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    here = cifar.CIFAR10._replace(url="http://127.0.0.1:1/cifar-10-python.tar.gz")
    monkeypatch.setattr(cifar, "CIFAR10", here)
    return ["--dataset", "cifar10"]


def full_disk(folder: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    def full(handle: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    monkeypatch.setattr(
        catalog, "load_dataset", lambda *given, **options: pytest.fail("the images were read before the error")
    )
    return []


def below_a_file(folder: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    Path("file").write_text("")
    return ["--out", "file/run"]


def streamed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    pictures("pictures")
    return ["--dataset", "folder:pictures", "--batch-size", "8", "--memory-limit", "0", "--data-on", "device"]


def two_replicas(folder: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    # TensorFlow has already started in this process, so it cannot get a second device. Therefore this function imitates
    # the list of devices (replicas) that train together, a `Team`.
    pair = workers.Team(local=(replicas.Replica(0, 2), replicas.Replica(1, 2)))
    monkeypatch.setattr(session, "gather_team", lambda *given: pair)
    return ["--batch-size", "16", "--devices", "cpu:2", "--data-on", "device"]


def old_xla(folder: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    why = "The XLA FFI of this TensorFlow is older than version 0.1, the oldest one that the library knows "
    monkeypatch.setattr(_route, "find_route_problem", lambda: f"{why}(TensorFlow 2.17.1).")
    monkeypatch.setattr(catalog, "load_dataset", lambda *_, **__: pytest.fail("the images were read before the error"))
    return ["--xla", "on"]


def no_platform(folder: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    monkeypatch.setattr(implementation, "expects_library", lambda: False)
    monkeypatch.setattr(implementation, "describe_platform", lambda: "macOS on arm64")
    monkeypatch.setattr(catalog, "load_dataset", lambda *_, **__: pytest.fail("the images were read before the error"))
    return ["--ops", "native"]


def no_xla(folder: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    said = "NotFoundError: could not find registered platform with id: 0x1"
    why = f"TensorFlow 2.15.1 cannot compile with XLA here ({said})."
    monkeypatch.setattr(plan, "find_xla_problem", lambda: why)
    monkeypatch.setattr(catalog, "load_dataset", lambda *_, **__: pytest.fail("the images were read before the error"))
    return ["--xla", "on", "--ops", "stock"]


def no_library(folder: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    monkeypatch.setattr(_library, "load_library", lambda: _library.load_and_check(folder / "_native.so"))
    monkeypatch.setattr(
        catalog, "load_dataset", lambda *given, **options: pytest.fail("the images were read before the error")
    )
    return []


def unwritable(folder: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Make writing fail as in a folder without write permission.

    A real folder without this permission is not enough: if the user root runs the tests, writing succeeds everywhere.
    """

    def refused(*given: Any, **options: Any) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr("tempfile.NamedTemporaryFile", refused)
    monkeypatch.setattr(
        catalog, "load_dataset", lambda *given, **options: pytest.fail("the images were read before the error")
    )
    return []


def other_things(folder: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    Path("run").mkdir()
    Path("run/thesis.tex").write_text("")
    monkeypatch.setattr(
        catalog, "load_dataset", lambda *given, **options: pytest.fail("the images were read before the error")
    )
    return []


def another_run(folder: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    stop_before_training(monkeypatch)
    assert train.main(["--out", "run", "--batch-size", "16"]) == 128 + signal.SIGTERM
    monkeypatch.setattr(
        catalog, "load_dataset", lambda *given, **options: pytest.fail("the images were read before the error")
    )
    return ["--batch-size", "16", "--temperature", "0.5"]


def stop_before_training(monkeypatch: pytest.MonkeyPatch) -> None:
    def stopped(*parts: Any, **more: Any) -> None:
        raise signals.Stopped("before the first step")

    monkeypatch.setattr(session, "Session", stopped)


# For each mistake: a function that prepares the mistake and returns the flags, and the message as in docs/errors.md.
WRONG: dict[str, tuple[Prepare, str]] = {
    "a folder that is not there": (
        flags("--dataset", "folder:pictuers"),
        "The folder pictuers does not exist. Use --dataset folder:PATH with the path of a folder of images.",
    ),
    "a file in place of a folder": (a_file, "file is a file. Use --dataset folder:PATH with the path of a folder"),
    "a folder of text files": (text_files, "notes contains no images (1 other file, such as a.txt). Give a folder"),
    "a folder of damaged images": (all_bad, "None of the 20 images in pictures can be used. "),
    "images smaller than a crop": (tiny_images, " in 00.png: smaller than 8 pixels on a side. Use another"),
    "a batch larger than the data": (
        flags("--batch-size", "61"),
        "The batch size (61) does not fit the training set (60 images). Use a batch size from 2 to 60.",
    ),
    "a batch larger than a folder": (few_images, "The batch size (256) is larger than the training set (18 images"),
    "two images": (two_images, "The smallest set that works has 2 images to train on and 1 to test with."),
    "a class named train": (
        two_readings,
        "--splits none takes bus, train for classes, and --splits named trains on train/ and ignores bus/. Give one",
    ),
    "labels of other images": (other_labels, "No path in labels.csv is an image in pictures. The first is"),
    "an image in both splits": (
        in_both_splits,
        "split.csv names 00.png twice: split train in line 1, split test in",
    ),
    "a data set that was not prepared": (
        flags("--dataset", "tfds:mnist", "--data-dir", "sets"),
        "There is no prepared data set mnist in sets. Prepare it with: tfds build mnist --data_dir sets",
    ),
    "three means for grey images": (
        grey,
        "--input-mean has 3 numbers, but the images have 1 channel. Give one number, or one per channel.",
    ),
    "a warm-up longer than the run": (
        flags("--batch-size", "20", "--steps", "4", "--warmup-epochs", "2"),
        "--warmup-epochs (2) is 6 steps here, but the run has 4 (--steps). Use --warmup-epochs 1.333 or less.",
    ),
    "no path after folder:": (
        flags("--dataset", "folder:"),
        "--dataset folder: needs a path. Use folder:PATH.",
    ),
    "an npz file that is not there": (flags("--dataset", "npz:x.npz"), "The file x.npz does not exist. Use"),
    "an npz file of floats": (floats, "x_train in images.npz is float32 (9, 8, 8, 3). It must be uint8"),
    "streamed images on the device": (
        streamed,
        "the images in memory, but those of folder:pictures are streamed from files. Use --data-on auto, or a larger",
    ),
    "images on several devices": (
        two_replicas,
        "--data-on device works with one replica, but there are 2. Use --data-on auto, or --devices 1.",
    ),
    "the largest micro-batch on a processor": (
        flags("--micro-batch", "auto"),
        "--micro-batch auto needs a GPU, but TensorFlow finds none. Use a number of images, or 0 for the whole batch.",
    ),
    "a native library that is not there": (
        no_library,
        "Run 'pip install -e .' in the project's folder, or install its wheel again. Alternat",
    ),
    "native ops on a platform without them": (
        no_platform,
        "needs the native library, which does not exist for macOS on arm64. Use --ops auto or --ops stock.",
    ),
    "xla on a platform without it": (no_xla, "--xla on does not work here. TensorFlow 2.15.1 cannot compile with XLA "),
    "native ops that cannot be compiled": (
        old_xla,
        "The native ops do not work under --xla on here. The XLA FFI of this TensorFlow is older than version 0.1, the "
        "oldest one that the library knows (TensorFlow 2.17.1). Use --ops stock, install TensorFlow 2.18 or later, or ",
    ),
    "no network": (no_network, "Put cifar-10-python.tar.gz into "),
    "a --data-dir without the files": (
        flags("--dataset", "cifar10", "--data-dir", "."),
        "contain data_batch_1, data_batch_2, data_batch_3, data_batch_4, data_batch_5, test_batch of CIFAR-10. Unpack",
    ),
    "a budget without a unit": (
        flags("--budget", "10"),
        "--budget is 10. Give a time above 0 with its unit, such as 90s, 10m or 1.5h.",
    ),
    "a budget beside epochs": (
        flags("--budget", "10m", "--epochs", "5"),
        "--budget is 10m and --epochs is 5. Give only one of them: a budget chooses the number of steps.",
    ),
    "a learning rate of zero": (flags("--learning-rate", "0"), "--learning-rate is 0.0. It must be a number above 0."),
    "an unknown preset": (flags("--preset", "shape"), "There is no --preset 'shape'. Did you mean shapes?"),
    "an unknown flag": (flags("--bach-size", "8"), "Unknown argument --bach-size. Did you mean --batch-size?"),
    "a full disk": (full_disk, "No space left on device. Free some disk space, then run the same command again."),
    "an --out below a file": (
        below_a_file,
        "Cannot make a run in file/run: Not a directory. A part of this path is a file",
    ),
    "an --out that cannot be written": (unwritable, "Cannot make a run in run: Permission denied. Check its"),
    "an --out with other things in it": (
        other_things,
        "run is not empty and is not a run folder (it contains thesis.tex)",
    ),
    "an --out with another run in it": (another_run, "run contains a run with other settings:"),
}


@pytest.mark.parametrize("what", WRONG)
def test_what_cannot_be_ends_at_once_in_one_sentence(
    what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    prepare, sentence = WRONG[what]
    given = prepare(tmp_path, monkeypatch)
    monkeypatch.setattr(session, "Session", lambda *parts: pytest.fail("training began"))
    before = sorted(str(path) for path in tmp_path.rglob("*"))
    try:
        code = train.main([*([] if "--out" in given else ["--out", "run"]), *given])
    except SystemExit as ended:
        code = int(ended.code or 0)
    said = capsys.readouterr().err
    error = said[said.index("error: ") :]
    assert code in (1, 2) and sentence in error
    assert error.count("\n") == (1 if what != "an --out with another run in it" else 3)  # its message has three lines
    left = {str(path) for path in tmp_path.rglob("*")} - set(before)
    assert {os.path.relpath(path, tmp_path).split("/")[0] for path in left} <= {"keras"}  # no run folder is created


def test_a_checkpoint_of_another_model_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Test a run whose checkpoint belongs to another network.

    This happens if a user edits config.json by hand, or copies a checkpoint from another run.
    """
    stop_before_training(monkeypatch)
    assert train.main(["--out", "run", "--batch-size", "16"]) == 128 + signal.SIGTERM
    (tmp_path / "run" / "checkpoints").mkdir()
    checkpoint.save(tmp_path / "run" / "checkpoints", 1, {"encoder/other": np.zeros(3, np.float32)}, {}, 1)
    capsys.readouterr()
    assert evaluate.main(["run"]) == 1
    said = capsys.readouterr().err
    assert said.startswith("error: The checkpoint in run does not fit its config.json: ") and said.count("\n") == 1


def test_a_folder_that_is_not_a_run_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert evaluate.main(["nowhere"]) == 1
    assert capsys.readouterr().err == (
        "error: nowhere is not a run folder (it has no config.json). Give the folder that training wrote.\n"
    )


def test_the_page_shows_every_one_of_them() -> None:
    """Test that docs/errors.md has a section for each mistake in WRONG, with the message that the program prints."""
    sections = re.split(r"^## ", PAGE.read_text(encoding="utf-8"), flags=re.MULTILINE)[1:]
    shown = {title.lower(): text for title, _, text in (section.partition("\n") for section in sections)}
    assert shown.keys() == {*WRONG, "a checkpoint of another model", "a folder that is not a run"}
    assert [what for what, (_, sentence) in WRONG.items() if sentence not in shown[what]] == []
