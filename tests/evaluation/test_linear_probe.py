"""Tests that the linear probe is logistic regression on standardised columns."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import optimize
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from lowlevel_simclr.evaluation import linear_probe
from tests.support.labelled_images import draw_clouds
from tests.support.progress_lines import print_every_line


def test_the_probe_is_scikit_learns_on_standard_columns() -> None:
    (train_h, train_labels), (test_h, test_labels) = draw_clouds(400), draw_clouds(300, seed=1)
    probe = linear_probe.fit_linear_probe(train_h, train_labels, test_h, test_labels)
    scaler = StandardScaler().fit(train_h)
    exact = LogisticRegression(C=0.01, tol=1e-8, max_iter=2000).fit(scaler.transform(train_h), train_labels)
    assert probe.accuracy == pytest.approx(exact.score(scaler.transform(test_h), test_labels), abs=0.01)
    assert probe.converged
    assert 0.4 < probe.accuracy < 0.95


def test_units_of_h_do_not_matter_to_the_probe() -> None:
    (train_h, train_labels), (test_h, test_labels) = draw_clouds(400), draw_clouds(300, seed=1)
    unit, zero = np.float32([1, 1000, 0.01, 1, 1, 5]), np.float32([0, 300, 0, 0, 7, 0])
    one = linear_probe.fit_linear_probe(train_h, train_labels, test_h, test_labels)
    other = linear_probe.fit_linear_probe(train_h * unit + zero, train_labels, test_h * unit + zero, test_labels)
    assert other.accuracy == pytest.approx(one.accuracy, abs=0.01)


def test_a_probe_that_stopped_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(linear_probe, "PROBE_ITERATIONS", 2)
    (train_h, train_labels), (test_h, test_labels) = draw_clouds(400), draw_clouds(300, seed=1)
    assert linear_probe.fit_linear_probe(train_h, train_labels, test_h, test_labels)[1:] == (2, False)


def test_a_probe_with_a_title_shows_its_iterations_and_finds_the_same(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    given = *draw_clouds(400), *draw_clouds(300, seed=1)
    minimize = optimize.minimize
    plain = linear_probe.fit_linear_probe(*given)
    print_every_line(monkeypatch)
    assert capsys.readouterr() == ("", "") and linear_probe.fit_linear_probe(*given) == plain
    assert capsys.readouterr() == ("", "")
    assert linear_probe.fit_linear_probe(*given, title="linear probe") == plain
    lines = capsys.readouterr().err.splitlines()
    assert optimize.minimize is minimize
    ends = [line for line in lines if f"linear probe (may end earlier): {plain.iterations} of 300 iterations, " in line]
    assert len(ends) == 1
