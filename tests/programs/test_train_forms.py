"""Tests the programs on every form of data set: lists of files, tables of labels, TFRecord, Parquet and others.

For each form, a network is trained, evaluated, resumed, and used to embed images. The files in tests/data test the
errors of each form.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from lowlevel_simclr import embed, evaluate, train
from lowlevel_simclr.run.results import read_config
from lowlevel_simclr.training.session import Session
from tests.support.image_files import make_names, write_pictures
from tests.support.record_files import write_parquet, write_pictures_as_records, write_tfds
from tests.support.small_runs import narrow_resnet20

SMALL = ["--image-size", "8", "--batch-size", "8", "--projection-widths", "8", "--warmup-epochs", "0", "--steps", "2"]
SMALL += ["--knn-every", "0", "--precision", "float32", "--xla", "off"]


@pytest.fixture(autouse=True)
def small_encoder(monkeypatch: pytest.MonkeyPatch) -> None:
    """Use a ResNet with only one block in each stage, so that training takes seconds."""
    narrow_resnet20(monkeypatch)


def write_form(form: str, root: Path) -> list[str]:
    """Write 20 pictures for training and 6 for testing, in two classes. Return the flags for training on them."""
    if form == "tfds":
        pytest.importorskip("tensorflow_datasets")
        write_tfds(root, train=range(20), test=range(100, 106))
        return ["--dataset", "tfds:pets", "--data-dir", str(root)]
    if form == "parquet":
        pytest.importorskip("pyarrow")
        write_parquet(root / "train-0.parquet", range(20))
        write_parquet(root / "test-0.parquet", range(100, 106))
        return ["--dataset", f"parquet:{root}"]
    if form == "tfrecord":
        write_pictures_as_records(root / "train.tfrecord", range(20))
        write_pictures_as_records(root / "test.tfrecord", range(100, 106))
        return ["--dataset", f"tfrecord:{root}"]
    names = [*make_names("all", 26)]
    write_pictures(root, *names)
    lines = [f"{name},{'train' if place < 20 else 'test'},{'ab'[place % 2]}\n" for place, name in enumerate(names)]
    (root / "table.csv").write_text("path,split,label\n" + "".join(lines))
    (root / "list.txt").write_text("\n".join(names))
    dataset = {"list": f"list:{root / 'list.txt'}", "glob": f"glob:{root}/**/*.png", "folder": f"folder:{root}"}[form]
    return ["--dataset", dataset, "--labels", str(root / "table.csv"), "--split", str(root / "table.csv")]


@pytest.mark.parametrize(
    "form",
    [
        "tfds",
        "parquet",
        "tfrecord",
        "list",
        pytest.param("glob", marks=pytest.mark.slow),
        pytest.param("folder", marks=pytest.mark.slow),  # test_train_folder.py does the same with mixed sizes
    ],
)
def test_every_form_trains_evaluates_resumes_and_embeds(
    form: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    root, out = tmp_path / "data", tmp_path / "run"
    command = [*SMALL, *write_form(form, root), "--out", str(out)]
    assert train.main([*command, "--memory-limit", "0"]) == 0
    said = capsys.readouterr().out
    assert "20 images to train on, 2 classes" in said and "decoded when a batch needs them" in said
    first = json.loads((out / "evaluation.json").read_text())
    assert set(first["knn"]) == {"20", "200"}
    assert train.main(command) == 0  # the same run, with the images in memory
    assert "resumes at step 2 of 2" in capsys.readouterr().out
    assert json.loads((out / "evaluation.json").read_text()) == first
    (out / "evaluation.json").unlink()
    assert evaluate.main([str(out), "--protocol", "knn"]) == 0
    assert json.loads((out / "evaluation.json").read_text())["knn"] == first["knn"]
    monkeypatch.setenv("TFDS_DATA_DIR", str(root))
    given = command[command.index("--dataset") + 1]
    if form == "folder":
        given = given.removeprefix("folder:")
    assert embed.main([str(out), given, "--out", str(tmp_path / "h.npz")]) == 0
    assert len(np.load(tmp_path / "h.npz")["h"]) == 26
    assert len(set(np.load(tmp_path / "h.npz")["paths"].tolist())) == 26


def test_without_a_preset_the_size_of_the_records_chooses_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_pictures_as_records(tmp_path / "a.tfrecord", range(40))
    small = [flag for pair in zip(SMALL[::2], SMALL[1::2]) if pair[0] != "--batch-size" for flag in pair]
    command = [*small, "--dataset", f"tfrecord:{tmp_path / 'a.tfrecord'}", "--out", str(tmp_path / "run"), "--preview"]
    assert train.main(command) == 0
    assert "the shorter side of the images has 16 pixels (median)" in (said := capsys.readouterr().out)
    assert "32 of 36 images per step" in said


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (["--dataset", "list:"], "--dataset list: needs a file. Use list:FILE."),
        (["--dataset", "tfds:"], "--dataset tfds: needs a name. Use tfds:NAME."),
        (["--dataset", "tfrecords:x"], "There is no --dataset 'tfrecords:x'. Did you mean tfrecord:?"),
        (
            ["--labels", "x.csv"],
            "--labels describes image files, but --dataset is shapes. Use one of folder:PATH",
        ),
        (["--dataset", "tfds:x", "--split", "x"], "--split describes image files, but --dataset is tfds:x."),
        (
            ["--dataset", "folder:x", "--split", "s", "--splits", "named"],
            "--split is s and --splits is named. Give",
        ),
    ],
)
def test_impossible_settings_are_refused_at_once(
    tmp_path: Path, flags: list[str], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        train.main([*flags, "--out", str(tmp_path / "run")])
    assert ended.value.code == 2 and sentence in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (["--dataset", "list:gone.txt"], "gone.txt cannot be read: No such file"),
        (["--dataset", "glob:a/*.jpg"], "matches none of the 12 images"),
        (["--dataset", "tfrecord:gone"], "gone does not exist"),
        (["--dataset", "tfrecord:a"], "has no files of the form tfrecord"),
        (["--dataset", "tfds:gone"], "There is no prepared data set gone"),
        (["--dataset", "folder:a", "--labels", "gone.csv"], "--labels gone.csv cannot be read: No such file"),
        (["--dataset", "folder:a", "--split", "bad.csv"], "gives 00.png the split 'foo' in line 1"),
        (["--dataset", "list:few.txt"], "There is only 1 image to train on in few.txt"),
    ],
)
def test_what_is_refused_with_the_data_leaves_no_run_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, flags: list[str], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(write_pictures(tmp_path, *make_names("a", 12)))
    monkeypatch.delenv("TFDS_DATA_DIR", raising=False)
    (tmp_path / "bad.csv").write_text("a/00.png,foo\n")
    (tmp_path / "few.txt").write_text("a/00.png\na/01.png\n")
    assert train.main([*SMALL, *flags, "--out", "run"]) == 1
    said = capsys.readouterr().err
    assert sentence in said and "Traceback" not in said and not Path("run").exists()


def test_a_run_on_tables_keeps_working_when_they_move(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Test tables that are moved before the run resumes. A run depends on their content and not on their path."""
    monkeypatch.setattr(Session, "finish", lambda session: session.train())  # without the evaluation and the pictures
    root, out = tmp_path / "data", tmp_path / "run"
    command = [*SMALL, *write_form("folder", root), "--out", str(out)]
    assert train.main(command) == 0
    moved = (root / "table.csv").rename(root / "all/other.csv")
    again = [str(moved) if flag == str(root / "table.csv") else flag for flag in command]
    assert train.main(again) == 0 and "resumes at step 2 of 2" in capsys.readouterr().out
    moved.write_text(moved.read_text().replace("train,a", "train,b", 1))
    assert train.main(again) == 1
    assert "The images, splits or labels in" in capsys.readouterr().err
    assert read_config(out)["data"]["labels"] == str(moved)
