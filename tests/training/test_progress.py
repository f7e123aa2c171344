"""Tests what training reports: a row of metrics for each step, the progress bar, and a warning if it learns nothing.

The warning appears if the loss stays at the chance level: the loss if all similarities are equal. A host call is one
call of TensorFlow from Python, which makes several training steps.
"""

from __future__ import annotations

import types
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from tqdm import tqdm

from lowlevel_simclr.runtime.progress_bar import open_bar
from lowlevel_simclr.training.loss import compute_chance_loss
from lowlevel_simclr.training.progress import Progress
from lowlevel_simclr.training.step import Metrics, NonFiniteLoss

CHANCE = compute_chance_loss(64)


def record(losses: list[list[float]]) -> list[dict[str, Any]]:
    """Return the rows of metrics for batches of 64 images. `losses` has one list of losses for each host call."""
    rows: list[dict[str, Any]] = []
    plan = types.SimpleNamespace(batch_size=64, loss_reduction="mean")
    run = types.SimpleNamespace(append=rows.extend)
    with tqdm(total=9, disable=True) as bar:
        progress = Progress(plan, run, bar)
        for call in losses:
            values = tf.constant(call, tf.float32)
            progress.record(len(rows), Metrics(values, 0 * values, 0 * values, np.nan * values), 0.5, {})
    return rows


def said_of(losses: list[list[float]], capsys: pytest.CaptureFixture[str]) -> int:
    """Return how many times a run with these losses prints the warning about the chance level."""
    record(losses)
    said = capsys.readouterr()
    return (said.out + said.err).count("The loss has been exactly the chance level")


def test_a_loss_at_the_chance_level_is_told_once_after_three_steps(capsys: pytest.CaptureFixture[str]) -> None:
    assert said_of([[4.0, CHANCE], [CHANCE]], capsys) == 0
    assert said_of([[4.0, CHANCE], [CHANCE, CHANCE], [CHANCE] * 3, [4.0], [CHANCE] * 5], capsys) == 1
    record([[4.0, CHANCE], [CHANCE, CHANCE]])
    said = capsys.readouterr()
    assert f"The loss has been exactly the chance level ({CHANCE:.3f}) since step 2" in said.out + said.err


def test_a_loss_near_the_chance_level_is_not(capsys: pytest.CaptureFixture[str]) -> None:
    near = CHANCE + 1e-5
    assert said_of([[near] * 5, [CHANCE, near, CHANCE, near, CHANCE, CHANCE]], capsys) == 0


def test_rounding_of_the_mean_of_equal_losses_is_still_the_chance_level(capsys: pytest.CaptureFixture[str]) -> None:
    ulp = float(np.spacing(np.float32(CHANCE)))
    assert said_of([[CHANCE + 3 * ulp, CHANCE - 3 * ulp, CHANCE]], capsys) == 1


def test_rows_have_their_steps_and_the_rate_of_their_call() -> None:
    rows = record([[4.0, 3.5], [3.25]])
    assert [row["step"] for row in rows] == [1, 2, 3]
    assert [row["loss"] for row in rows] == [4.0, 3.5, 3.25]
    assert [row["pairs_per_second"] for row in rows] == [256.0, 256.0, 128.0]  # a step: 64 images; a call: 0.5 s


def test_the_measures_of_a_check_up_stand_in_the_row_of_its_step() -> None:
    """Test three host calls, of two, one and two steps.

    Only the second call ends with a check-up (measurement of the encoder). So only its row has the gradient norm.
    """
    written: list[dict[str, Any]] = []
    watched: list[list[int]] = []
    plan = types.SimpleNamespace(batch_size=64, loss_reduction="mean")
    run = types.SimpleNamespace(append=written.extend)
    with tqdm(total=9, disable=True) as bar:
        progress = Progress(plan, run, bar, lambda rows: watched.append([row["step"] for row in rows]))
        for norms, measured in (([np.nan, np.nan], {}), ([0.5], {"knn": 0.25, "rank_h": 3.0}), ([np.nan] * 2, {})):
            values = tf.ones([len(norms)])
            progress.record(len(written), Metrics(values, values, values, tf.constant(norms)), 0.5, measured)
    assert watched == [[1, 2], [3], [4, 5]]
    found = {name: [row["step"] for row in written if name in row] for name in ("gradient_norm", "knn", "rank_h")}
    assert found == {"gradient_norm": [3], "knn": [3], "rank_h": [3]}
    assert written[2]["gradient_norm"] == 0.5 and written[2]["knn"] == 0.25


def test_the_time_of_the_call_that_compiled_counts_for_nothing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Test that the printed speed leaves out the first call, because it includes the compilation.

    In this test, the first call makes one step in a minute. Each later call makes ten steps in a second.
    """
    now = [1000.0]
    monkeypatch.setattr("tqdm.std.time", lambda: now[0])
    plan = types.SimpleNamespace(batch_size=64, loss_reduction="mean")
    run = types.SimpleNamespace(append=lambda rows: None)
    with open_bar("training", 101, "steps", keep=True) as bar:
        progress = Progress(plan, run, bar)
        for count, seconds in ((1, 60.0), (10, 1.0), (10, 1.0)):
            now[0] += seconds
            values = tf.ones([count])
            progress.record(bar.n, Metrics(values, values, values, values), seconds, {})
    assert capsys.readouterr().err == (
        f"training: 21 of 101 steps, 10 steps/s, 00:08 left, loss 1.000 (chance {CHANCE:.3f}), top-1 1.000, "
        "640 images/s\n"
    )


def test_a_loss_that_is_not_finite_ends_the_run_with_its_step() -> None:
    with pytest.raises(NonFiniteLoss, match=r"The loss became NaN or infinite \(nan\) at step 2"):
        record([[4.0, float("nan")]])
