"""Tests the program `evaluate`, which judges a trained encoder in several ways (protocols), such as k-NN."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from lowlevel_simclr import evaluate
from lowlevel_simclr.config import command_line, identity
from lowlevel_simclr.evaluation import cache, fine_tune
from lowlevel_simclr.model import encoder, projection
from lowlevel_simclr.run import checkpoint
from lowlevel_simclr.runtime import keras
from tests.support.small_runs import draw_few_shapes

SMALL = ["--image-size", "8", "--batch-size", "16", "--projection-widths", "16", "8", "--warmup-epochs", "0"]
SMALL += ["--precision", "float32", "--xla", "off", "--no-deterministic"]
QUICK = ["--finetune-steps", "2", "--finetune-batch-size", "16", "--probe-passes", "1"]


@pytest.fixture(scope="module", autouse=True)
def small_encoder() -> Iterator[None]:
    """Build ResNet-20 with a third of its layers. Its h keeps 64 numbers."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(encoder.BASIC, "resnet20", encoder.Basic((1, 1, 1), 16, projects=False))
        yield


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write the folder of a run with an untrained ResNet-20, for the data set `shapes` in 8 x 8 pixels."""
    out = tmp_path_factory.mktemp("runs") / "run"
    written, _ = command_line.parse_run(SMALL)
    f, g = encoder.build_encoder("resnet20", "cifar", 8, seed=5), projection.build_projection_head(64, (16, 8), seed=5)
    variables = {**keras.name_variables("encoder", f), **keras.name_variables("projection", g)}
    checkpoint.save(
        out / "checkpoints", 2, {name: variable.numpy() for name, variable in variables.items()}, {}, keep=1
    )
    (out / "config.json").write_text(json.dumps(identity.to_dict(written)))
    return out


def evaluation_of(run: Path) -> dict:
    return json.loads((run / "evaluation.json").read_text())


def test_every_protocol_over_seeds_is_in_one_evaluation(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    draw_few_shapes(monkeypatch)
    flags = ["--protocol", "knn,linear,linear-augmented,finetune", "--label-fraction", "0.3,1", "--seeds", "2"]
    assert evaluate.main([str(run), *flags, *QUICK]) == 0
    said, found = capsys.readouterr().out, evaluation_of(run)
    rows = ("", "_untrained", "_pixels")
    kinds = {name + row for name in ("knn", "linear") for row in rows}
    assert set(found) - {"notes"} == kinds | {
        "schema",
        "step",
        "train_on",
        "transform",
        "linear_augmented",
        "finetune",
        "seeds",
    }
    assert found["knn"] != found["knn_untrained"]
    assert set(found["finetune"]) == set(found["seeds"]["finetune"]) == {"0.3", "1"}
    told = [found["seeds"]["linear"], found["seeds"]["linear_augmented"], *found["seeds"]["finetune"].values()]
    assert all(each["n"] == 2 and 0 <= each["mean"] <= 1 and each["std"] >= 0 for each in told)
    assert found["finetune"]["1"] == found["seeds"]["finetune"]["1"]["mean"]
    assert found["seeds"]["finetune"]["1"]["recipe"]["steps"] == int(QUICK[QUICK.index("--finetune-steps") + 1])
    for words in ("fine-tuned on 30% of the labels", "trained on views", "(2 seeds)", "32x32 resized to 8x8"):
        assert words in said
    assert len(list((run / "h").rglob("*.npz"))) == 4


def test_h_in_the_run_folder_is_used_again(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    draw_few_shapes(monkeypatch)
    assert evaluate.main([str(run), "--protocol", "knn"]) == 0

    def refuse(*given: object) -> None:
        raise AssertionError("h was computed again")

    monkeypatch.setattr(cache, "represent_splits", refuse)
    assert evaluate.main([str(run), "--protocol", "knn"]) == 0
    files = list((run / "h").rglob("*.npz"))
    assert files and all(np.load(file)["h"].dtype == np.float32 for file in files)


def test_what_was_measured_before_is_not_trained_again(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    draw_few_shapes(monkeypatch)
    flags = [str(run), "--protocol", "finetune", "--label-fraction", "0.5", *QUICK]
    assert evaluate.main(flags) == 0
    line = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("fine-tuning on 50%"))

    def refuse(*given: object) -> None:
        raise AssertionError("it was trained again")

    monkeypatch.setattr(fine_tune.ClassifierTrainer, "train", refuse)
    assert evaluate.main(flags) == 0
    assert f"{line} (from an earlier evaluation)" in capsys.readouterr().out
    flags[flags.index("--finetune-steps") + 1] = "3"
    assert evaluate.main(flags) == 1
    assert "AssertionError: it was trained again" in capsys.readouterr().err


def test_a_training_that_diverges_is_one_sentence(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    draw_few_shapes(monkeypatch)

    def diverge(*given: object) -> None:
        raise fine_tune.Diverged("the classifier's loss is nan")

    monkeypatch.setattr(fine_tune, "fine_tune", diverge)
    assert evaluate.main([str(run), "--protocol", "finetune"]) == 1
    assert capsys.readouterr().err == "error: the classifier's loss is nan\n"


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (["--protocol", "knn,lineal"], "There is no protocol 'lineal'. Known names: knn, linear,"),
        (["--label-fraction", "0.1,1.5"], "The value is '1.5'. It must be a number above 0 and at most 1."),
        (["--label-fraction", "0"], "The value is '0'. It must be a number above 0 and at most 1."),
        (["--seeds", "0"], "The value is '0'. It must be a whole number of at least 1."),
        (["--finetune-learning-rate", "nan"], "The value is 'nan'. It must be a number above 0."),
        (["--protocoll", "knn"], "Did you mean --protocol?"),
    ],
)
def test_what_cannot_be_measured_is_refused_at_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], flags: list[str], sentence: str
) -> None:
    with pytest.raises(SystemExit) as ended:
        evaluate.main([str(tmp_path), *flags])
    assert ended.value.code == 2
    assert sentence in capsys.readouterr().err


def test_a_folder_without_a_run_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert evaluate.main([str(tmp_path)]) == 1
    assert "is not a run folder" in capsys.readouterr().err


def test_results_go_to_the_file_of_out(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    draw_few_shapes(monkeypatch)
    (run / "evaluation.json").unlink(missing_ok=True)
    assert evaluate.main([str(run), "--protocol", "knn", "--out", str(tmp_path / "results.json")]) == 0
    assert "knn" in json.loads((tmp_path / "results.json").read_text())
    assert not (run / "evaluation.json").exists()


def test_a_run_is_evaluated_without_the_file_of_its_initial_weights(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    draw_few_shapes(monkeypatch)
    moved = tmp_path / "moved"
    shutil.copytree(run, moved)
    config = json.loads((run / "config.json").read_text())
    config["model"]["weights"] = str(tmp_path / "gone.weights.h5")
    (moved / "config.json").write_text(json.dumps(config))
    assert evaluate.main([str(moved), "--protocol", "knn"]) == 0
    said = capsys.readouterr().out
    assert (
        "The untrained encoder is left out" in said
        and "trained encoder  " in said
        and "untrained encoder  " not in said
    )
    assert "knn_untrained" not in evaluation_of(moved)
