"""Tests the command that `train` prints at its end, with which the encoder can be trained for longer.

The command starts a new run with the encoder of the first run.
"""

from __future__ import annotations

import contextlib
import io
import json
import shlex
import shutil
from pathlib import Path

import numpy as np
import pytest

from lowlevel_simclr import evaluate, train
from lowlevel_simclr.run import checkpoint
from lowlevel_simclr.run.results import read_metrics
from tests.support.small_runs import narrow_resnet20

SMALL = "--image-size 8 --batch-size 16 --projection-widths 16 8 --warmup-epochs 0 --knn-every 0 --xla off --steps 2"


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """Return a folder with images and a run on them, and the command that the run prints to train longer."""
    folder, printed = tmp_path_factory.mktemp("trained"), io.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(printed):
        narrow_resnet20(patch)
        patch.chdir(folder)
        images = np.random.default_rng(0).integers(0, 256, (40, 8, 8, 3), np.uint8)
        np.savez("images.npz", images=images, labels=np.arange(40) % 2)
        flags = [*SMALL.split(), "--dataset", "npz:images.npz", "--out", "runs/one", "--temperature", "0.3"]
        assert train.main(flags) == 0
    lines = printed.getvalue().splitlines()
    (longer,) = (line for line in lines if line.startswith("  train longer"))
    return folder, longer.removeprefix("  train longer").strip()


@pytest.fixture
def finished(trained: tuple[Path, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Work in a copy of the folder. Return the command that the run prints to train longer."""
    narrow_resnet20(monkeypatch)
    monkeypatch.chdir(shutil.copytree(trained[0], tmp_path / "copy"))
    return trained[1]


def test_the_printed_command_trains_on_from_the_encoder(finished: str, capsys: pytest.CaptureFixture[str]) -> None:
    words = shlex.split(finished)
    assert words[:3] == ["python", "-m", "lowlevel_simclr.train"]
    assert train.main(words[3:]) == 0
    said = capsys.readouterr().out
    assert "starts from          the encoder of runs/one at step 2; projection head, optimizer and schedule" in said
    longer = Path("runs/one-longer")
    config = json.loads((longer / "config.json").read_text())
    assert config["loss"]["temperature"] == 0.3 and config["train"]["steps"] == 2
    assert [row["step"] for row in read_metrics(longer)] == [1, 2]
    assert "untrained encoder" in said and (longer / "report.html").exists()
    assert train.main(words[3:]) == 0  # the second run is finished, so the same command has nothing to train
    for path in (Path("runs/one/checkpoints")).iterdir():
        path.unlink()
    assert evaluate.main([str(longer), "--protocol", "knn"]) == 0
    said = capsys.readouterr().out
    assert "warning: The untrained encoder is left out. The run runs/one has no checkpoint yet." in said
    assert train.main(words[3:]) == 0  # the command works without the first run's checkpoints


def test_another_encoder_is_refused_with_the_flags_to_use(finished: str, capsys: pytest.CaptureFixture[str]) -> None:
    flags = [*SMALL.split(), "--dataset", "npz:images.npz", "--encoder", "resnet18", "--input-mean", "0.5"]
    assert train.main([*flags, "--input-std", "0.5", "--weights", "runs/one", "--out", "two"]) == 1
    said = capsys.readouterr().err
    assert "Use --encoder resnet20, no --input-mean, no --input-std, as that run has" in said
    assert checkpoint.has_any(Path("runs/one/checkpoints")) and not Path("two").exists()
