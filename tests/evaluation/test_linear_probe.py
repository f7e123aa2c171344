"""Tests the linear probe, a linear classifier on the encoder's output.

It must give the same classifier as scikit-learn's logistic regression on standardised columns, in the same number of
iterations. The objective (loss plus penalty) and its gradient are compared with their formulas.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
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


@pytest.mark.parametrize("classes", [2, 3, 7])
@pytest.mark.parametrize("block", [1, 30, 10**6])
def test_the_probe_makes_the_iterations_of_scikit_learn(
    monkeypatch: pytest.MonkeyPatch, classes: int, block: int
) -> None:
    monkeypatch.setattr(linear_probe, "_BLOCK", block)
    (train_h, train_labels), (test_h, test_labels) = (draw_clouds(403, 6, classes, seed) for seed in (0, 1))
    probe = linear_probe.fit_linear_probe(train_h, 3 * train_labels, test_h, 3 * test_labels)
    scaler = StandardScaler().fit(train_h)
    theirs = LogisticRegression(C=0.01, tol=1e-3, max_iter=300).fit(scaler.transform(train_h), train_labels)
    assert probe.accuracy == theirs.score(scaler.transform(test_h), test_labels)
    assert probe.iterations == theirs.n_iter_.max() > 3


def compute_by_the_formula(
    weights: np.ndarray, bias: np.ndarray, rows: np.ndarray, labels: np.ndarray
) -> tuple[float, np.ndarray]:
    """Return the objective in float64, and its gradient to the weights and the bias in one array (classes, d + 1)."""
    value, slope = np.sum(weights**2) / (2 * 0.01 * len(rows)), np.c_[weights / (0.01 * len(rows)), 0 * bias]
    for x, label in zip(rows.astype(np.float64), labels):
        p = np.exp(weights @ x + bias) / np.exp(weights @ x + bias).sum()
        value -= np.log(p[label]) / len(rows)
        slope += np.outer(p - np.eye(len(bias))[label], np.append(x, 1)) / len(rows)
    return float(value), slope


@pytest.mark.parametrize("count", [1, 17, 50])  # fewer rows than _SHARES, one more than _SHARES, and several blocks
def test_the_objective_is_the_formula(monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    monkeypatch.setattr(linear_probe, "_BLOCK", 12)  # a block has two rows
    (rows, labels), weights = draw_clouds(count), np.random.default_rng(5).standard_normal((4, 7))
    with ThreadPoolExecutor(3) as pool:
        value, slope = linear_probe.Objective(rows, labels, 4, pool)(weights.reshape(-1))
    expected, rise = compute_by_the_formula(weights[:, :-1], weights[:, -1], rows, labels)
    # A result needs at most 7 + 50 additions and one division, of numbers below 20. Each has a relative error of 2^-53.
    assert value == pytest.approx(expected, abs=60 * 20 * 2.0**-52)
    np.testing.assert_allclose(slope.reshape(4, 7), rise, rtol=0, atol=60 * 20 * 2.0**-52)


def test_two_classes_are_one_score_beside_zero() -> None:
    (rows, labels), weights = draw_clouds(40, classes=2), np.random.default_rng(5).standard_normal(7)
    with ThreadPoolExecutor(1) as pool:
        value, slope = linear_probe.Objective(rows, labels, 2, pool)(weights)
    both = np.stack([np.zeros(7), weights])
    expected, rise = compute_by_the_formula(both[:, :-1], both[:, -1], rows, labels)
    assert value == pytest.approx(expected, abs=60 * 20 * 2.0**-52)
    np.testing.assert_allclose(slope, rise[1], rtol=0, atol=60 * 20 * 2.0**-52)


def test_the_result_does_not_depend_on_the_number_of_threads() -> None:
    (rows, labels), weights = draw_clouds(403), np.random.default_rng(5).standard_normal(28)
    found = []
    for threads in (1, 5):
        with ThreadPoolExecutor(threads) as pool:
            found.append(linear_probe.Objective(rows, labels, 4, pool)(weights))
    assert found[0][0] == found[1][0]
    np.testing.assert_array_equal(found[0][1], found[1][1])


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
    plain = linear_probe.fit_linear_probe(*given)
    print_every_line(monkeypatch)
    assert capsys.readouterr() == ("", "") and linear_probe.fit_linear_probe(*given) == plain
    assert capsys.readouterr() == ("", "")
    assert linear_probe.fit_linear_probe(*given, title="linear probe") == plain
    lines = capsys.readouterr().err.splitlines()
    ends = [line for line in lines if f"linear probe (may end earlier): {plain.iterations} of 300 iterations, " in line]
    assert len(ends) == 1
