"""Tests the program `train` with tiny networks: its files, resuming, signals, initial weights, and errors.

A training that is interrupted and resumed must end with the same bits as one without the interruption.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from tensorboard.backend.event_processing import event_accumulator

from bench.learning import run_memory
from lowlevel_simclr import evaluate, ops, train
from lowlevel_simclr.data import batches
from lowlevel_simclr.evaluation import plots
from lowlevel_simclr.model import encoder
from lowlevel_simclr.model.stock_layers import build_in_stock_layers
from lowlevel_simclr.ops import lars_update_all
from lowlevel_simclr.run import checkpoint, results
from lowlevel_simclr.training import loop, progress, step
from lowlevel_simclr.training.session import Session
from tests.support.small_runs import draw_few_shapes, narrow_resnet20

ROOT = Path(__file__).parents[2]
SMALL = ["--image-size", "8", "--batch-size", "16", "--projection-widths", "16", "8", "--steps-per-call", "2"]
SMALL += ["--warmup-epochs", "0", "--knn-every", "0"]


@pytest.fixture(autouse=True)
def small_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make a run take seconds: 60 images for training, 40 for testing, and a ResNet with one block in each stage."""
    make_small(monkeypatch)


def make_small(patch: pytest.MonkeyPatch) -> None:
    draw_few_shapes(patch)
    narrow_resnet20(patch)


@pytest.fixture
def training_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Skip the evaluation and the pictures after training, which take most of the time of a tiny run."""
    monkeypatch.setattr(Session, "finish", lambda session: session.train())


def run(out: Path, *flags: str) -> int:
    return train.main([*SMALL, "--out", str(out), *flags])


def final_state(out: Path) -> dict[str, np.ndarray]:
    saved = checkpoint.load_latest(out / "checkpoints")
    assert saved is not None
    return saved.arrays


def cut_off_at(step_of_call: int) -> Callable[[step.Metrics, int], None]:
    """Return a function that interrupts the training when it is called with this step.

    Tests put it in the place of `refuse_non_finite_loss`. The program calls that function after each call of TensorFlow
    (which makes several steps), with the first step of the call.
    """

    def cut_off(metrics: step.Metrics, first_step: int) -> None:
        if first_step == step_of_call:
            raise step.NonFiniteLoss("cut off")

    return cut_off


def told(out: Path) -> list[tuple[float, float, float]]:
    return [(row["loss"], row["top1"], row["learning_rate"]) for row in results.read_metrics(out)]


def assert_same_state(one: Path, other: Path) -> None:
    first, second = final_state(one), final_state(other)
    assert first.keys() == second.keys()
    different = [name for name in first if first[name].tobytes() != second[name].tobytes()]
    assert different == []


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """Return the folder of a run of five steps with its evaluation and pictures, and what the run printed."""
    out, printed = tmp_path_factory.mktemp("whole") / "run", io.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(printed):
        make_small(patch)
        assert run(out, "--steps", "5", "--knn-every", "1") == 0
    return out, printed.getvalue()


@pytest.fixture
def finished(whole: tuple[Path, str], tmp_path: Path) -> Path:
    """Return a copy of the finished run."""
    return shutil.copytree(whole[0], tmp_path / "run")


def test_a_run_leaves_one_whole_folder(whole: tuple[Path, str]) -> None:
    out, said = whole
    words = ["resnet20", "parameters", "k-NN", "untrained", "pixels", "What to try next"]
    for word in (*words, "compiling", "writing encoder.keras", "linear probe, trained encoder"):
        assert word in said
    rows = results.read_metrics(out)
    assert [row["step"] for row in rows] == [1, 2, 3, 4, 5]
    assert all({"loss", "top1", "learning_rate", "pairs_per_second"} <= row.keys() for row in rows)
    assert any("knn" in row for row in rows)
    evaluation = json.loads((out / "evaluation.json").read_text())
    assert evaluation["schema"] == 1 and evaluation["train_on"] == "train"
    for name in ("knn", "knn_untrained", "knn_pixels"):
        assert set(evaluation[name]) == {"20", "200"} and all(0 <= value <= 1 for value in evaluation[name].values())
    assert {"linear", "linear_untrained", "linear_pixels"} <= evaluation.keys()
    environment = json.loads((out / "environment.json").read_text())
    assert environment["precision"] in ("float32", "bfloat16", "float16") and environment["implementation"] == "native"
    assert environment["data_on"] == ("device" if tf.config.list_physical_devices("GPU") else "host")
    trained = json.loads((out / "variables.json").read_text())["trained"]
    slots = [final_state(out)[f"optimizer/{place:04d}"] for place in range(len(trained))]
    assert [row["shape"] for row in trained] == [list(slot.shape) for slot in slots]
    assert [row["decayed"] for row in trained] == [slot.ndim > 1 for slot in slots]
    peak = environment["peak_memory_bytes"]
    assert peak["host"] > sum(array.nbytes for array in final_state(out).values())
    assert (peak["gpu"] is None) == (not tf.config.list_physical_devices("GPU"))
    assert run_memory.read_peak_memory(environment) == peak
    for name in ("views", "learning", "embedding", "neighbours"):
        assert (out / "plots" / f"{name}.png").read_bytes().startswith(b"\x89PNG")
        assert b"<svg" in (out / "plots" / f"{name}.svg").read_bytes()
    tags = event_accumulator.EventAccumulator(str(out / "tensorboard")).Reload().Tags()
    assert set(tags["images"]) == {"views", "embedding", "neighbours"} and "settings" in tags["tensors"]
    assert {"loss", "top1", "learning_rate"} <= set(tags["scalars"])
    report = (out / "report.html").read_text()
    assert "20-NN on held-out images" in report and 'class="map"' in report and "is missing" not in report


def test_evaluate_writes_the_report_again(finished: Path, tmp_path: Path) -> None:
    (finished / "report.html").unlink()
    assert evaluate.main([str(finished), "--protocol", "knn", "--out", str(tmp_path / "results.json")]) == 0
    assert not (finished / "report.html").exists()  # no report, because these results are outside the run's folder
    assert evaluate.main([str(finished), "--protocol", "knn"]) == 0
    assert "Accuracy on held-out images" in (finished / "report.html").read_text()


def test_evaluate_agrees_with_the_end_of_the_run(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = json.loads((finished / "evaluation.json").read_text())
    assert evaluate.main([str(finished)]) == 0
    assert json.loads((finished / "evaluation.json").read_text()) == before
    assert "k-NN" in capsys.readouterr().out


@pytest.mark.usefixtures("training_alone")
def test_the_same_seed_gives_the_same_bits_and_another_does_not(tmp_path: Path) -> None:
    for name, seed in (("a", "7"), ("b", "7"), ("c", "8")):
        assert run(tmp_path / name, "--steps", "4", "--seed", seed) == 0
    assert_same_state(tmp_path / "a", tmp_path / "b")
    rows = [[(row["loss"], row["top1"]) for row in results.read_metrics(tmp_path / name)] for name in "abc"]
    assert rows[0] == rows[1] and rows[0] != rows[2]


@pytest.mark.usefixtures("training_alone")
@pytest.mark.parametrize("optimizer", [pytest.param("adamw", marks=pytest.mark.slow), "lars"])
def test_a_run_cut_off_between_two_checkpoints_resumes_to_the_bit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, optimizer: str
) -> None:
    flags = ["--steps", "8", "--checkpoint-every", "3", "--optimizer", optimizer]
    assert run(tmp_path / "whole", *flags) == 0

    with monkeypatch.context() as patch:
        # Steps 4 and 5 are in metrics.jsonl, but the last checkpoint was written at step 3.
        patch.setattr(progress, "refuse_non_finite_loss", cut_off_at(6))
        assert run(tmp_path / "cut", *flags) == 1
    # The command that resumes makes another number of steps per call of TensorFlow, and saves after other numbers of
    # steps. The bits must not change.
    assert run(tmp_path / "cut", *flags, "--steps-per-call", "3", "--checkpoint-every", "4") == 0
    assert_same_state(tmp_path / "whole", tmp_path / "cut")
    losses = [[row["loss"] for row in results.read_metrics(tmp_path / name)] for name in ("whole", "cut")]
    assert losses[0] == losses[1] and len(losses[0]) == 8


@pytest.mark.usefixtures("training_alone")
def test_a_checkpoint_of_another_model_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Test a run whose checkpoint belongs to another network.

    This happens after an update to a version of this package that builds the encoder differently.
    """
    with monkeypatch.context() as patch:
        patch.setattr(progress, "refuse_non_finite_loss", cut_off_at(5))
        assert run(tmp_path / "run", "--steps", "6", "--checkpoint-every", "2") == 1
    before = final_state(tmp_path / "run")
    monkeypatch.setitem(encoder.BASIC, "resnet20", encoder.Basic((2, 1, 1), 8, projects=False))
    assert run(tmp_path / "run", "--steps", "6", "--checkpoint-every", "2") == 1
    said = capsys.readouterr().err
    assert "does not fit its config.json" in said and "--fresh" in said
    assert final_state(tmp_path / "run").keys() == before.keys()


@pytest.mark.usefixtures("training_alone")
@pytest.mark.parametrize(
    "flags",
    [
        (),
        pytest.param(("--micro-batch", "8"), marks=pytest.mark.slow),
        pytest.param(("--xla", "on"), marks=pytest.mark.slow),
    ],
    ids=["plain", "cached", "xla"],
)
def test_a_run_has_the_same_bits_wherever_its_images_lie(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, flags: tuple[str, ...]
) -> None:
    """Test images in main memory (host) and in the device's memory. In another run, the place changes when it resumes.

    Each run trains for 5 steps. An epoch has 3 steps, so the runs reach the second epoch.
    """
    given = ["--steps", "5", "--checkpoint-every", "2", *flags]
    assert run(tmp_path / "host", *given, "--data-on", "host") == 0
    with monkeypatch.context() as patch:
        patch.setattr(progress, "refuse_non_finite_loss", cut_off_at(5))
        assert run(tmp_path / "device", *given, "--data-on", "host") == 1
    shapes, resident = [], batches.keep_on_device

    def spied(images: np.ndarray, on_gpu: bool) -> batches.Gather:
        shapes.append(images.shape)
        return resident(images, on_gpu)

    monkeypatch.setattr(loop, "keep_on_device", spied)
    assert run(tmp_path / "device", *given, "--data-on", "device") == 0
    assert run(tmp_path / "whole", *given, "--data-on", "device") == 0
    assert shapes == [(60, 32, 32, 3)] * 2
    losses = [told(tmp_path / name) for name in ("host", "device", "whole")]
    assert losses[0] == losses[1] == losses[2] and len(losses[0]) == 5
    assert_same_state(tmp_path / "host", tmp_path / "device")
    assert_same_state(tmp_path / "host", tmp_path / "whole")


@pytest.mark.usefixtures("training_alone")
def test_a_finished_run_is_not_trained_again(tmp_path: Path) -> None:
    out = tmp_path / "run"
    assert run(out, "--steps", "2") == 0
    before = final_state(out)
    assert run(out, "--steps", "2") == 0
    assert all(np.array_equal(before[name], value) for name, value in final_state(out).items())
    assert len(results.read_metrics(out)) == 2


@pytest.mark.usefixtures("training_alone")
def test_another_configuration_is_refused_and_fresh_starts_beside(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    assert run(out, "--steps", "2") == 0
    assert run(out, "--steps", "2", "--temperature", "0.5") == 1
    assert "temperature: 0.1 -> 0.5" in capsys.readouterr().err
    assert run(out, "--steps", "2", "--temperature", "0.5", "--fresh") == 0
    assert len(results.read_metrics(tmp_path / "run-2")) == 2


def test_a_loss_that_is_no_number_stops_the_run_and_keeps_the_last_good_state(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    flags = ["--steps", "12", "--optimizer", "sgd", "--learning-rate", "1e30", "--checkpoint-every", "1"]
    assert run(out, *flags) == 1
    said = capsys.readouterr().err
    assert (
        "The loss became NaN or infinite" in said or "NaN or infinite after step" in said
    ) and "--learning-rate" in said
    saved = checkpoint.load_latest(out / "checkpoints")
    rows = results.read_metrics(out)
    assert all(np.isfinite(row["loss"]) for row in rows)
    assert saved is None or saved.step <= len(rows)
    assert saved is None or checkpoint.find_non_finite(saved.arrays) is None


def test_a_run_that_diverged_ends_with_a_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Test a training whose loss stays finite, although the trained encoder returns NaN."""
    flags = ["--steps", "2", "--learning-rate", "1e8", "--precision", "bfloat16", "--warmup-epochs", "0"]
    assert run(tmp_path / "run", *flags) == 1
    said = capsys.readouterr().err
    assert "NaN or infinite" in said and "Try a lower --learning-rate" in said
    assert "Traceback" not in said and "a mistake in lowlevel_simclr" not in said


def test_a_batch_larger_than_the_data_is_refused_before_a_folder_is_made(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(tmp_path / "run", "--batch-size", "61") == 1
    said = capsys.readouterr().err
    assert "61" in said and "60" in said
    assert not (tmp_path / "run").exists()


def test_preview_draws_the_views_and_nothing_else(tmp_path: Path) -> None:
    out = tmp_path / "run"
    assert run(out, "--preview") == 0
    assert {path.name for path in out.rglob("*") if path.is_file()} == {"views.png", "views.svg"}
    assert run(out, "--steps", "2") == 0  # training can use the folder of a preview


def test_a_run_in_bfloat16_trains_and_is_evaluated(tmp_path: Path) -> None:
    assert run(tmp_path / "run", "--steps", "3", "--precision", "bfloat16") == 0
    assert np.isfinite([row["loss"] for row in results.read_metrics(tmp_path / "run")]).all()
    assert "linear" in results.read_evaluation(tmp_path / "run")


@pytest.mark.usefixtures("training_alone")
def test_a_run_in_float16_trains(tmp_path: Path) -> None:
    """Test training only: the evaluation computes in float32 after every run, as after one in bfloat16."""
    assert run(tmp_path / "run", "--steps", "3", "--precision", "float16") == 0
    assert np.isfinite([row["loss"] for row in results.read_metrics(tmp_path / "run")]).all()


@pytest.mark.skipif(bool(tf.config.list_physical_devices("GPU")), reason="XLA casts gradients on a GPU")
@pytest.mark.usefixtures("training_alone")
def test_lars_is_given_every_kernels_gradient_in_bfloat16(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Test that the optimizer LARS gets the gradients of all weight matrices and filters in bfloat16.

    TensorFlow casts such a gradient to float32. The program must pass on the bfloat16 gradient from before the cast.
    """
    kinds: dict[int, set[tf.DType]] = {}

    def spied(weights: list[tf.Tensor], gradients: list[tf.Tensor], *others: Any, **choices: Any) -> Any:
        for weight, gradient in zip(weights, gradients):
            kinds.setdefault(len(weight.shape), set()).add(gradient.dtype)
        return lars_update_all(weights, gradients, *others, **choices)

    monkeypatch.setattr(ops, "lars_update_all", spied)
    assert run(tmp_path / "run", "--steps", "1", "--precision", "bfloat16", "--optimizer", "lars") == 0
    assert kinds.keys() == {1, 2, 4} and kinds[2] == kinds[4] == {tf.bfloat16}


@pytest.mark.usefixtures("training_alone")
def test_native_and_stock_ops_train_alike(tmp_path: Path) -> None:
    """Test that the first losses of native and stock ops are equal up to rounding errors.

    Later losses drift apart, because networks with BatchNorm amplify rounding errors.
    """
    names = ("native", "stock")
    for name in names:
        assert run(tmp_path / name, "--steps", "2", "--ops", name) == 0
    first, second = ([row["loss"] for row in results.read_metrics(tmp_path / name)] for name in names)
    assert first[0] == pytest.approx(second[0], rel=1e-5)
    assert first[1] == pytest.approx(second[1], rel=1e-2)


# Checkpoints that are saved in the background, and profiles


def test_a_checkpoint_that_cannot_be_written_ends_the_run_with_its_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(*_: object) -> None:
        raise checkpoint.CheckpointError("cannot save the checkpoint of step 2: the disk is full")

    monkeypatch.setattr(checkpoint, "save", full)
    assert run(tmp_path / "run", "--steps", "6", "--checkpoint-every", "2") == 1
    assert "the disk is full" in capsys.readouterr().err
    assert not (tmp_path / "run" / "evaluation.json").exists()


@pytest.mark.usefixtures("training_alone")
def test_a_profiled_run_trains_to_the_same_bits_and_says_where_a_step_goes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    profiled = os.fsdecode(b"profiled-\xff") if os.name == "posix" else "profiled"  # not UTF-8
    for name, flags in (("plain", []), (profiled, ["--profile"])):
        assert run(tmp_path / name, "--steps", "4", "--optimizer", "lars", *flags) == 0
    said = capsys.readouterr().out
    stages = ("views", "encoder (f), forward pass", "projection head (g), forward pass", "loss", "backward pass")
    for stage in (*stages, "optimizer update", "waiting for data"):
        assert f"\n{stage} " in said
    assert "The times below add up the work of all threads." in said
    assert list((tmp_path / profiled).glob("tensorboard/plugins/profile/*/*.xplane.pb"))
    assert_same_state(tmp_path / "plain", tmp_path / profiled)


# Training in a separate process, to which signals are sent

STEADY = [*SMALL, "--steps", "100000", "--checkpoint-every", "5"]


def start(out: Path, *flags: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "lowlevel_simclr.train", *STEADY, "--out", str(out), *flags]
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
    return subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def wait_for_rows(out: Path, process: subprocess.Popen[str], count: int) -> None:
    deadline = time.monotonic() + 240
    while time.monotonic() < deadline and process.poll() is None:
        metrics = out / "metrics.jsonl"
        if metrics.exists() and metrics.read_bytes().count(b"\n") >= count:
            return
        time.sleep(0.05)
    raise AssertionError(f"no {count} steps: {process.communicate() if process.poll() is not None else 'too slow'}")


@pytest.mark.parametrize(
    "number",
    [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.slow)],
    ids=["SIGTERM", "SIGINT"],
)
def test_a_signal_saves_and_ends_the_run(tmp_path: Path, number: signal.Signals) -> None:
    out = tmp_path / "run"
    process = start(out)
    wait_for_rows(out, process, 6)
    process.send_signal(number)
    said, errors = process.communicate(timeout=120)
    assert process.returncode == 128 + number, errors
    assert number.name in said and "Run the same command again to resume" in said
    saved = checkpoint.load_latest(out / "checkpoints")
    assert saved is not None and saved.step == len(results.read_metrics(out))


@pytest.mark.slow
def test_a_run_killed_ten_times_ends_in_the_same_bits(tmp_path: Path) -> None:
    """Kill a training (kill -9) at random moments. It saves after every second step, so a kill often hits a save."""
    flags = ["--steps", "500", "--checkpoint-every", "2"]
    whole = start(tmp_path / "whole", *flags)
    said, errors = whole.communicate(timeout=600)
    assert whole.returncode == 0, errors
    random = np.random.default_rng(0)
    killed, out = 0, tmp_path / "killed"
    while killed < 10:
        process = start(out, *flags)
        wait_for_rows(out, process, len(results.read_metrics(out)) + int(random.integers(4, 40)))
        time.sleep(random.uniform(0, 0.3))
        process.kill()
        process.communicate(timeout=60)
        assert process.returncode == -signal.SIGKILL
        killed += 1
    last = start(out, *flags)
    said, errors = last.communicate(timeout=600)
    assert last.returncode == 0, errors
    assert_same_state(tmp_path / "whole", out)
    losses = [[row["loss"] for row in results.read_metrics(tmp_path / name)] for name in ("whole", "killed")]
    assert losses[0] == losses[1] and len(losses[0]) == 500


# Initial weights


def save_weights(path: Path, spoil: bool = False) -> None:
    """Save the weights of the small encoder, built from Keras's own layers. With `spoil`, one array is NaN."""
    stock = build_in_stock_layers(encoder.build_encoder("resnet20", "cifar", 8, seed=3))
    weights = stock.get_weights()
    if spoil:
        weights[0][...] = np.nan
    stock.set_weights(weights)
    stock.save_weights(path)


@pytest.mark.usefixtures("training_alone")
def test_wrong_weights_leave_no_folder_behind(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Test a file that is missing, one that is empty, and one with NaN."""
    file = tmp_path / "f.weights.h5"
    wrong: tuple[Callable[[Path], None], ...] = (lambda path: None, Path.touch, lambda path: save_weights(path, True))
    for make in wrong:
        make(file)
        assert run(tmp_path / "run", "--steps", "2", "--weights", str(file)) == 1
        said = capsys.readouterr().err
        assert "error: " in said and "f.weights.h5" in said and not (tmp_path / "run").exists()
    assert run(tmp_path / "run", "--steps", "2") == 0  # the command without the wrong file works


@pytest.mark.parametrize(
    "flags",
    [
        ["--encoder", "resnet50", "--weights", "imagenet"],
        ["--image-size", "8", "--encoder", "resnet50", "--stem", "imagenet"],
    ],
)
def test_settings_of_the_encoder_that_do_not_fit_are_refused_before_the_images_are_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, flags: list[str]
) -> None:
    monkeypatch.setattr(
        "lowlevel_simclr.api.session.load_images", lambda *given, **more: pytest.fail("the images were read")
    )
    assert run(tmp_path / "run", *flags) == 1
    assert "error: " in capsys.readouterr().err and not (tmp_path / "run").exists()


@pytest.mark.slow
def test_a_run_goes_on_without_the_file_of_its_initial_weights(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "f.weights.h5"
    save_weights(file)
    flags = ["--weights", str(file), "--checkpoint-every", "2"]
    assert run(tmp_path / "whole", "--steps", "4", *flags) == 0
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(progress, "refuse_non_finite_loss", cut_off_at(3))
        assert run(tmp_path / "run", "--steps", "4", *flags) == 1
    file.unlink()
    assert run(tmp_path / "run", "--steps", "4", *flags) == 0
    assert_same_state(tmp_path / "whole", tmp_path / "run")
    assert "The untrained encoder is left out" in "".join(capsys.readouterr())
    assert "linear_untrained" not in results.read_evaluation(tmp_path / "run")
    assert (tmp_path / "run" / "plots" / "embedding.png").exists()


def test_pictures_that_fail_cost_the_run_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(path: Path, *given: object) -> None:
        raise ValueError("cannot be drawn")

    for name in ("plot_views", "plot_learning", "plot_embedding"):
        monkeypatch.setattr(plots, name, fail)
    assert run(tmp_path / "run", "--steps", "2") == 0
    said = capsys.readouterr().err
    assert all(f"{name}.png could not be drawn" in said for name in ("views", "learning", "embedding"))
    drawn = sorted(path.name for path in (tmp_path / "run" / "plots").iterdir())
    assert drawn == ["neighbours.png", "neighbours.svg", "report.json"]
    assert "<h2>Nearest neighbours</h2>" in (tmp_path / "run" / "report.html").read_text()
    assert (tmp_path / "run" / "encoder.keras").exists() and (tmp_path / "run" / "evaluation.json").exists()
