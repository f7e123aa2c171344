"""Tests that training never loses checkpoints or metrics, never saves weights with NaN, and never resumes from them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from lowlevel_simclr import embed, evaluate, train
from lowlevel_simclr.run import checkpoint
from lowlevel_simclr.training import learner, saving
from lowlevel_simclr.training.session import Session
from tests.support.small_runs import draw_few_shapes, narrow_resnet20

STEADY = [
    "--image-size",
    "8",
    "--batch-size",
    "16",
    "--projection-widths",
    "16",
    "8",
    "--knn-every",
    "0",
    "--ops",
    "stock",
]
STEADY += ["--warmup-epochs", "0", "--checkpoint-every", "2", "--steps-per-call", "2", "--precision", "float32"]
STEADY += ["--xla", "off"]


def make_small(patch: pytest.MonkeyPatch) -> None:
    """Draw few images, and build a narrow encoder."""
    draw_few_shapes(patch)
    narrow_resnet20(patch)


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make runs small, and end them after the last step: without the evaluation and the pictures."""
    make_small(monkeypatch)
    monkeypatch.setattr(Session, "finish", lambda session: session.train())


def run(out: Path, *flags: str) -> int:
    return train.main([*STEADY, "--steps", "6", "--out", str(out), *flags])


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a run with its evaluation and its pictures. The tests damage copies of it."""
    out = tmp_path_factory.mktemp("trained") / "run"
    with pytest.MonkeyPatch.context() as patch:
        make_small(patch)
        assert run(out) == 0
    return out


@pytest.fixture
def finished(trained: Path, tmp_path: Path) -> Path:
    """Return a copy of the finished run."""
    return shutil.copytree(trained, tmp_path / "run")


def contents(folder: Path) -> dict[str, bytes]:
    """Return the content of every file of a run, except the files that a run writes before it reads its checkpoint."""
    early = {"config.json", "environment.json", "data.json", "variables.json"}
    files = (path for path in folder.rglob("*") if path.is_file() and path.name not in early)
    return {str(path.relative_to(folder)): path.read_bytes() for path in files if not path.name.startswith(".")}


def refuse_to_read(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    """Make every attempt to read a checkpoint raise `error`. Other files can be read."""

    def read(path: Path, limit: int, limit_name: str) -> bytes:
        raise error

    monkeypatch.setattr(checkpoint, "read_regular_file", read)


@pytest.mark.parametrize(
    "error",
    [
        PermissionError(13, "Permission denied"),
        pytest.param(OSError(5, "Input/output error"), marks=pytest.mark.slow),
        pytest.param(MemoryError(), marks=pytest.mark.slow),
    ],
)
def test_checkpoints_that_cannot_be_read_end_the_run_and_stay(
    finished: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    error: BaseException,
) -> None:
    before = contents(finished)
    with monkeypatch.context() as patch:
        refuse_to_read(patch, error)
        assert run(finished) == 1
        said = capsys.readouterr().err
        assert "error: Cannot read the checkpoints in" in said and "Nothing was changed" in said
        images = [str(finished / "plots")]
        for main, given in ((evaluate.main, []), (embed.main, [*images, "--out", str(tmp_path / "h.npz")])):
            assert main([str(finished), *given]) == 1
            assert "error: Cannot read the checkpoints in" in capsys.readouterr().err
    assert contents(finished) == before
    assert run(finished) == 0  # the finished run is still complete


def test_checkpoints_that_are_all_damaged_end_the_run_and_stay(
    finished: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for path in (finished / "checkpoints").iterdir():
        path.write_bytes(path.read_bytes()[:-40])
    before = contents(finished)
    assert run(finished) == 1
    assert "error: None of the 3 checkpoints in" in capsys.readouterr().err
    assert contents(finished) == before


def test_a_damaged_newest_checkpoint_is_kept_under_another_name(
    finished: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    newest = finished / "checkpoints" / "step-00000006.npz"
    whole, damaged = newest.read_bytes(), newest.read_bytes()[:-40]
    newest.write_bytes(damaged)
    assert run(finished) == 0
    said = capsys.readouterr()
    assert "step-00000006.npz cannot be used" in said.err and "step-00000006.npz.unused." in said.err
    assert "resumes at step 4" in said.out
    assert newest.with_name("step-00000006.npz.unused").read_bytes() == damaged
    assert newest.read_bytes() == whole  # steps 5 and 6 were trained again, with the same result


def test_metrics_without_a_checkpoint_are_renamed_and_not_cut(
    finished: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = (finished / "metrics.jsonl").read_bytes()
    for path in (finished / "checkpoints").iterdir():
        path.unlink()
    assert run(finished) == 0
    assert "has no checkpoint. Training starts at step 0" in capsys.readouterr().out
    assert (finished / "metrics.jsonl.unused").read_bytes() == rows
    assert len((finished / "metrics.jsonl").read_bytes().splitlines()) == 6


def test_damaged_rows_are_counted_and_the_file_is_kept(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = finished / "metrics.jsonl"
    lines = path.read_bytes().split(b"\n")
    lines[1], lines[3] = lines[1][:-9], b"\x00\xff"
    path.write_bytes(b"\n".join(lines))
    damaged = path.read_bytes()
    assert run(finished) == 0
    assert "Removed 2 damaged lines from" in capsys.readouterr().err
    assert path.with_name("metrics.jsonl.damaged").read_bytes() == damaged
    assert [json.loads(line)["step"] for line in path.read_bytes().splitlines()] == [1, 3, 5, 6]


# States with NaN


def test_weights_of_nan_are_refused_before_the_first_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    build = learner.build_starting_encoder

    def with_nan(*given: object, **options: object) -> object:
        f = build(*given, **options)
        weights = f.get_weights()
        weights[0][0, 0, 0, 0] = np.nan
        f.set_weights(weights)
        return f

    monkeypatch.setattr(learner, "build_starting_encoder", with_nan)
    assert run(tmp_path / "run") == 1
    said = capsys.readouterr().err
    assert "error: encoder/000/" in said and "NaN or infinite before the first step. Use other --weights" in said
    assert not list((tmp_path / "run").glob("checkpoints/*"))


def test_an_input_out_of_range_ends_the_run_with_the_variables_name(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Test inputs that are so large that the activations overflow.

    The loss does not show this: ReLU turns NaN into 0. So the loss is finite; it is the loss of equal similarities.
    """
    flags = ["--input-mean", "0", "0", "0", "--input-std", "1e-38", "1e-38", "1e-38"]
    assert run(tmp_path / "run", *flags) == 1
    said = capsys.readouterr().err
    assert "error: encoder/" in said and "has a number that is NaN or infinite after step 1" in said
    assert not list((tmp_path / "run").glob("checkpoints/*"))


def test_a_diverging_run_leaves_no_checkpoint_that_is_not_finite(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ["--optimizer", "lars", "--learning-rate", "1e30", "--checkpoint-every", "1", "--steps-per-call", "1"]
    assert run(tmp_path / "run", *flags, "--trust-coefficient", "1e10") == 1
    assert "error: " in capsys.readouterr().err
    for path in (tmp_path / "run" / "checkpoints").glob("step-*.npz"):
        assert checkpoint.find_non_finite(checkpoint.load(path).arrays) is None


def test_a_state_that_is_not_finite_is_not_saved(tmp_path: Path) -> None:
    with pytest.raises(
        saving.NonFiniteState, match="encoder/000/kernel has a number that is NaN or infinite after step 7"
    ):
        saving.refuse_non_finite_state(
            7, {"step": np.array(7), "encoder/000/kernel": np.array([0, np.inf], np.float32)}
        )
    saving.refuse_non_finite_state(7, {"a": np.array([3e38, 3e38], np.float32), "b": np.array(["text"])})
