"""Tests the program `check`, which compares the ops of this package (loss, views, optimizer) with a NumPy reference.

Correct ops must pass, and wrong ones must fail. A mutant is an op with one deliberate mistake. A case is one input of
an op. A finding is the comparison of one result with the reference.
"""

from __future__ import annotations

import re
import sys
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from lowlevel_simclr import check, ops, stock
from lowlevel_simclr.contract.view_params import ViewParams
from lowlevel_simclr.reference.lars_update import lars_update as reference_update
from lowlevel_simclr.verification import every_op, machine
from lowlevel_simclr.verification import make_views as make_views_module
from lowlevel_simclr.verification import nt_xent as nt_xent_module
from lowlevel_simclr.verification.bound import LARGEST, Finding
from lowlevel_simclr.verification.every_op import list_devices, list_stock_devices
from lowlevel_simclr.verification.lars_update import CHOICES, LarsCase, judge_lars, list_lars_cases, make_numbers
from lowlevel_simclr.verification.make_views import judge_views, list_view_cases
from lowlevel_simclr.verification.mode import MODES
from lowlevel_simclr.verification.nt_xent import (
    NtXentCase,
    compute_expected,
    judge_nt_xent,
    list_nt_xent_cases,
    make_projections,
)
from lowlevel_simclr.verification.table import write_verdict

TILE = 96


def implementation(mutation: str = "none") -> SimpleNamespace:
    """Return SimCLR's loss (NT-Xent), built from TensorFlow's ops. `mutation` names its mistake, or is "none"."""

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


def failing(candidate: SimpleNamespace) -> Finding | None:
    """Return the first comparison of the loss that fails, or None. Only eager cases with random float32 inputs run."""
    chosen = (case for case in list_nt_xent_cases(("eager",)) if case.dtype == "float32" and case.rows == "random")
    return next((f for case in chosen for f in judge_nt_xent(case, candidate) if not f.holds), None)


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


def mutated_views(mutation: str, patch: pytest.MonkeyPatch) -> SimpleNamespace:
    """Return the stock views (built from TensorFlow's ops). `mutation` names their mistake, or is "none"."""
    wrong = {
        "flip ignored": lambda params: params._replace(flip=tf.zeros_like(params.flip)),
        "order ignored": lambda params: params._replace(order=tf.zeros_like(params.order) + tf.range(4)),
        "clip dropped": lambda params: params._replace(clip=tf.zeros_like(params.clip)),
        "blur dropped": lambda params: params._replace(blur_sigma=tf.zeros_like(params.blur_sigma)),
    }
    module = sys.modules["lowlevel_simclr.stock.make_views"]
    plain_maximum = tf.maximum

    def make_views(images: tf.Tensor, params: ViewParams, size: int, *others: Any) -> tf.Tensor:
        with patch.context() as inner:
            if mutation == "no antialiasing":  # the resize filter does not become wider when an image is made smaller

                def maximum(a: Any, b: Any) -> tf.Tensor:
                    return tf.fill(tf.shape(a), size) if b is size else plain_maximum(a, b)

                inner.setattr(module.tf, "maximum", maximum)
            return stock.make_views(images, wrong.get(mutation, lambda params: params)(params), size, *others)

    return SimpleNamespace(make_views=make_views, draw_view_params=stock.draw_view_params)


def failing_view(candidate: SimpleNamespace) -> Finding | None:
    """Return the first comparison of the views that fails, or None. Only the eager cases run."""
    findings = (found for case in list_view_cases(("eager",)) for found in judge_views(case, candidate))
    return next((found for found in findings if not found.holds), None)


def test_stock_views_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    assert failing_view(mutated_views("none", monkeypatch)) is None


@pytest.mark.parametrize(
    "mutation", ["flip ignored", "order ignored", "clip dropped", "blur dropped", "no antialiasing"]
)
def test_every_mutant_of_the_views_fails(mutation: str, monkeypatch: pytest.MonkeyPatch) -> None:
    found = failing_view(mutated_views(mutation, monkeypatch))
    assert found is not None and found.quantity == "views"


def test_wrongly_drawn_parameters_fail() -> None:
    def draw(seed: int, epoch: int, index: tf.Tensor, *others: Any) -> ViewParams:
        return stock.draw_view_params(seed, epoch, index + 1, *others)

    found = failing_view(SimpleNamespace(make_views=stock.make_views, draw_view_params=draw))
    assert found is not None and found.quantity == "integers"


def failing_update(candidate: SimpleNamespace) -> Finding | None:
    """Return the first comparison of the optimizer's update that fails, or None.

    Only eager cases run, without those whose norms are too large or too small for float32.
    """
    chosen = [case for case in list_lars_cases(("eager",)) if case.rows not in ("huge", "tiny")]
    findings = (found for case in chosen for found in judge_lars(case, candidate))
    return next((found for found in findings if not found.holds), None)


def mutated_update(mutation: str) -> SimpleNamespace:
    """Return the stock update (built from TensorFlow's ops). `mutation` names its mistake, or is "none"."""

    def lars_update(w: tf.Tensor, g: tf.Tensor, v: tf.Tensor, **choices: float) -> tuple[tf.Tensor, tf.Tensor]:
        bfloat16, g = g.dtype == tf.bfloat16, tf.cast(g, w.dtype)
        if mutation == "no decay":
            choices["weight_decay"] = 0.0
        if mutation == "decay of rank 1" and w.shape.rank == 1:
            g = g + choices["weight_decay"] * w
        if mutation == "ratio of 1" and w.shape.rank > 1:
            g = g + choices["weight_decay"] * w
            choices |= {"weight_decay": 0.0, "trust_coefficient": float(tf.norm(g) / tf.norm(w))}
        if mutation == "half a gradient" and bfloat16:
            g = tf.bitcast(tf.bitwise.bitwise_and(tf.bitcast(g, tf.int32), -(2**19)), tf.float32)
        if mutation == "old velocity":
            return w - v, stock.lars_update(w, g, v, **choices)[1]
        return stock.lars_update(w, g, v, **choices)

    def lars_update_all(*variables: list[tf.Tensor], **choices: float) -> Any:
        moved = [lars_update(*each, **choices) for each in zip(*variables)]
        return zip(*(moved[:1] * 2 if mutation == "the first for all" else moved))

    return SimpleNamespace(lars_update_all=lars_update_all)


def test_stock_updates_pass() -> None:
    assert failing_update(mutated_update("none")) is None


@pytest.mark.parametrize(
    "mutation", ["no decay", "decay of rank 1", "ratio of 1", "half a gradient", "old velocity", "the first for all"]
)
def test_every_mutant_of_the_update_fails(mutation: str) -> None:
    found = failing_update(mutated_update(mutation))
    assert found is not None and found.quantity in ("weight", "velocity")


def test_an_update_whose_norms_overflow_fails() -> None:
    case = LarsCase("huge", (61, 73))
    assert not all(found.holds for found in judge_lars(case, stock))
    assert all(found.holds for found in judge_lars(case, ops))


def test_a_finding_of_nan_does_not_hold() -> None:
    case = NtXentCase("random", 2, 3)
    assert not Finding(case, "loss", float("nan"), 1.0).holds
    assert not Finding(case, "loss", 0.0, float("nan")).holds
    verdict = write_verdict([Finding(case, "loss", 0.0, float("nan")), Finding(case, "dz", 0.0, 1.0)])
    assert verdict.splitlines()[0] == "1 of 2 comparisons failed:"
    assert verdict.splitlines()[1].startswith(f"  loss of {case}: error 0.00e+00, ") and "dz" not in verdict


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_one_number_that_is_not_finite_fails(value: float) -> None:
    def break_first(tensor: tf.Tensor) -> tf.Tensor:
        return tf.concat([tf.fill([1], tf.constant(value, tensor.dtype)), tf.reshape(tensor, [-1])[1:]], 0)

    losses = SimpleNamespace(
        nt_xent=lambda *arguments: break_first(stock.nt_xent(*arguments)),
        nt_xent_rows=stock.nt_xent_rows,
        contrastive_top1=stock.contrastive_top1,
    )
    assert not judge_nt_xent(NtXentCase("random", 5, 3), losses)[0].holds

    def make_views(*arguments: Any) -> tf.Tensor:
        views = stock.make_views(*arguments)
        return tf.reshape(break_first(views), views.shape)

    case = next(list_view_cases(("eager",)))
    assert not judge_views(case, SimpleNamespace(make_views=make_views))[0].holds

    def lars_update_all(*variables: list[tf.Tensor], **choices: float) -> Any:
        weights, velocities = stock.lars_update_all(*variables, **choices)
        return [break_first(weights[0]), *weights[1:]], velocities

    found = judge_lars(LarsCase("update", (70,)), SimpleNamespace(lars_update_all=lars_update_all))
    assert [finding.holds for finding in found] == [False, True]


def test_no_reference_is_nan_or_too_large_for_its_type() -> None:
    """Test the right values of all cases. If one of them were NaN or infinite, a wrong result could pass the check."""
    for case in list_nt_xent_cases(MODES):
        expected = compute_expected(case, make_projections(case))
        assert all(np.all(np.abs(part) < LARGEST[case.dtype] / 2) for part in expected[:3]), case
    for update in list_lars_cases(MODES):
        expected = reference_update(*make_numbers(update), **CHOICES)
        assert all(np.all(np.abs(part) < LARGEST["float32"] / 2) for part in expected), update


def test_devices_that_cannot_be_checked_say_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tf.config, "list_logical_devices", lambda kind: ["one", "two"])
    names = ["/CPU:0", "/GPU:0", "/GPU:1"]
    found = list(list_devices(None, has_cuda=True))
    assert [device.name for device in found] == names
    assert [list(device.modes) for device in found] == [["eager", "graph", "xla"], *[["eager", "xla"]] * 2]
    found = list(list_devices(None, has_cuda=False))
    assert [device.why_not for device in found] == ["", *["the library was built without CUDA kernels"] * 2]
    found = list(list_devices("no route", has_cuda=True))
    assert [list(device.modes) for device in found] == [["eager", "graph"], [], []]
    assert [device.why_not for device in found] == ["", "no route", "no route"]


@pytest.mark.parametrize("before", [False, True])
def test_tensor_float_32_is_off_during_a_check_and_then_as_before(
    before: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    enabled = tf.config.experimental.tensor_float_32_execution_enabled
    of_session, during = enabled(), []
    monkeypatch.setattr(every_op, "judge_every_op", lambda *_: during.append(enabled()) or [])
    try:
        tf.config.experimental.enable_tensor_float_32_execution(before)
        assert every_op.judge_on_device(ops, every_op.Device("/CPU:0", MODES)) == []
        assert during == [False] and enabled() == before
    finally:
        tf.config.experimental.enable_tensor_float_32_execution(of_session)


def test_the_installed_ops_pass(capsys: pytest.CaptureFixture[str]) -> None:
    assert check.main([]) == 0
    printed = capsys.readouterr().out
    lines = printed.splitlines()
    assert re.fullmatch(r"All [1-9]\d\d comparisons passed\.", lines[-1])
    assert len(lines) < 15 and "dtemperature" not in printed  # the table is printed only with --verbose
    assert "checking the views" in printed


def few_cases(patch: pytest.MonkeyPatch) -> None:
    """Reduce the check to one case of the loss, no case of the views, and all cases of the optimizer's update."""
    one = NtXentCase("random", 60, 3)
    patch.setattr(nt_xent_module, "_list_all_cases", lambda: iter([one]))
    patch.setattr(make_views_module, "_list_all_cases", lambda: iter([]))


def test_a_table_of_errors_is_printed_where_it_is_asked_for(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    few_cases(monkeypatch)
    assert check.main(["--verbose"]) == 0
    printed = capsys.readouterr().out
    assert "dtemperature" in printed and printed.splitlines()[-1].endswith("comparisons passed.")


def test_warnings_about_tracing_are_dropped_during_a_check_and_others_are_not(
    caplog: pytest.LogCaptureFixture,
) -> None:
    logger = tf.get_logger()
    caplog.set_level("WARNING", logger.name)
    with every_op.silence_retracing_warnings():
        logger.warning("5 out of the last 5 calls to f triggered tf.function retracing.")
        logger.warning("another warning")
    logger.warning("6 out of the last 6 calls to f triggered tf.function retracing.")
    assert [record.getMessage().split()[0] for record in caplog.records] == ["another", "6"]


def test_the_stock_ops_do_not_excuse_their_own_errors(monkeypatch: pytest.MonkeyPatch) -> None:
    """Test a check of the stock ops, which runs on platforms without the native library (compiled C++ ops).

    In a check of the native ops, the errors of the stock ops make the bounds wider. In a check of the stock ops
    themselves, they must not.
    """
    loss, views = NtXentCase("random", 60, 3, temperature=0.01), next(list_view_cases(("eager",)))
    assert all(finding.holds for finding in [*judge_nt_xent(loss, stock), *judge_views(views, stock)])
    plain = stock.make_views
    monkeypatch.setattr(stock, "nt_xent", implementation("one direction").nt_xent)
    monkeypatch.setattr(stock, "make_views", lambda *given: plain(*given) + 1e-4)
    assert {finding.quantity: finding.holds for finding in judge_nt_xent(loss, stock)}["loss"] is False
    assert not judge_views(views, stock)[0].holds


def test_a_platform_without_the_library_checks_the_stock_ops(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    few_cases(monkeypatch)
    monkeypatch.setattr(machine, "expects_library", lambda: False)
    monkeypatch.setattr(machine, "describe_platform", lambda: "macOS on arm64")
    monkeypatch.setattr(machine, "find_xla_problem", lambda: "TensorFlow cannot compile with XLA here.")
    monkeypatch.setattr(ops, "nt_xent", lambda *_: pytest.fail("a native op was called"))
    assert check.main([]) == 0
    said = capsys.readouterr().out
    assert "native library  none for macOS on arm64, so the stock ops are checked" in said
    assert "inside XLA      not checked. TensorFlow cannot compile with XLA here." in said
    monkeypatch.setattr(stock, "nt_xent", implementation("off-by-one tile").nt_xent)
    assert check.main([]) == 1
    assert "  loss of NtXentCase(" in capsys.readouterr().out
    monkeypatch.setattr(tf.config, "list_logical_devices", lambda kind: ["one"])
    assert [(device.name, device.modes) for device in list_stock_devices("no XLA")] == [
        ("/CPU:0", ["eager", "graph"]),
        ("/GPU:0", ["eager", "graph"]),
    ]


def test_a_failure_is_printed_and_is_exit_code_1(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    few_cases(monkeypatch)
    monkeypatch.setattr(ops, "nt_xent", implementation("off-by-one tile").nt_xent)
    assert check.main([]) == 1
    lines = capsys.readouterr().out.splitlines()
    verdict = next(place for place, line in enumerate(lines) if "comparisons failed:" in line)
    assert re.match(r"[1-9] of \d+ comparisons failed:", lines[verdict])
    assert lines[verdict + 1].startswith("  loss of NtXentCase(") and len(lines[verdict:]) < 5
