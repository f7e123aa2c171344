"""`python -m lowlevel_simclr.check` passes right implementations and fails every mutant."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import tensorflow as tf

from lowlevel_simclr import check, ops, stock

TILE = 96


def implementation(mutation: str = "none") -> SimpleNamespace:
    """NT-Xent written once more, plainly, with one thing wrong."""

    def losses(z: tf.Tensor, temperature: tf.Tensor, own: tf.Tensor | None = None) -> tf.Tensor:
        length = tf.norm(z, axis=1, keepdims=True)
        u = tf.math.divide_no_nan(z, length)
        rows = u.shape[0]
        own = tf.range(rows) if own is None else own
        s = tf.matmul(tf.gather(u, own) / tf.cast(temperature, u.dtype), u, transpose_b=True)
        partner = (own + rows // 2) % rows
        of_positive = tf.gather(s, partner, batch_dims=1)
        column = tf.range(rows)[None, :]
        dropped = column == own[:, None]
        if mutation == "diagonal kept":
            dropped = tf.zeros_like(dropped)
        if mutation == "off-by-one tile":
            dropped |= (column == TILE) & (own[:, None] < TILE) & (column != partner[:, None])
        if mutation == "one direction":
            dropped |= (column < rows // 2) == (own[:, None] < rows // 2)
        s = tf.where(dropped, tf.constant(-np.inf, s.dtype), s)
        return tf.reduce_logsumexp(s, axis=1) - of_positive

    def nt_xent(z: tf.Tensor, temperature: tf.Tensor) -> tf.Tensor:
        return losses(without_inverse_temperature(z, temperature), temperature)

    def without_inverse_temperature(z: tf.Tensor, temperature: tf.Tensor) -> tf.Tensor:
        if mutation != "missing 1/tau":
            return z
        factor = tf.cast(temperature, z.dtype)
        return tf.stop_gradient(z) + factor * (z - tf.stop_gradient(z))

    def nt_xent_rows(z: tf.Tensor, first_pair: int, pairs: int, temperature: tf.Tensor) -> tf.Tensor:
        first_views = tf.range(first_pair, first_pair + pairs)
        own = tf.concat([first_views, first_views + z.shape[0] // 2], axis=0)
        return losses(without_inverse_temperature(z, temperature), temperature, own)

    return SimpleNamespace(nt_xent=nt_xent, nt_xent_rows=nt_xent_rows, contrastive_top1=stock.contrastive_top1)


def failing(candidate: SimpleNamespace) -> check.Finding | None:
    """The first finding that does not hold, over the float32 eager cases."""
    chosen = (case for case in check.cases(("eager",)) if case.dtype == "float32" and case.rows == "random")
    return next((f for case in chosen for f in check.judge(case, candidate) if not f.holds), None)


def test_a_plain_formula_passes() -> None:
    assert failing(implementation()) is None


@pytest.mark.parametrize("mutation", ["diagonal kept", "off-by-one tile", "missing 1/tau", "one direction"])
def test_every_mutant_fails(mutation: str) -> None:
    assert failing(implementation(mutation)) is not None


def test_a_wrong_top1_fails() -> None:
    wrong = SimpleNamespace(
        nt_xent=stock.nt_xent,
        nt_xent_rows=stock.nt_xent_rows,
        contrastive_top1=lambda z: tf.logical_not(stock.contrastive_top1(z)),
    )
    found = failing(wrong)
    assert found is not None and found.quantity == "top1"


def test_nan_never_holds() -> None:
    case = check.Case("random", 2, 3)
    finding = check._finding(case, "loss", np.array([np.nan]), np.array([1.0]), np.array([1.0]), 1.0, "float32")
    assert not finding.holds
    assert not check.Finding(case, "loss", float("nan"), 1.0).holds


def test_the_installed_ops_pass(capsys: pytest.CaptureFixture[str]) -> None:
    assert check.main([]) == 0
    printed = capsys.readouterr().out
    assert " 0 fail" in printed and "dtemperature" in printed


def test_a_failure_is_printed_and_is_exit_code_1(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    one = check.Case("random", 60, 3)
    monkeypatch.setattr(check, "_all_cases", lambda: iter([one]))
    monkeypatch.setattr(ops, "nt_xent", implementation("off-by-one tile").nt_xent)
    assert check.main([]) == 1
    assert "FAILS: loss" in capsys.readouterr().out
