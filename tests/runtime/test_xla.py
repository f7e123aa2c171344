"""Tests whether the package notices that it cannot use TensorFlow's compiler XLA.

The package calls private functions of TensorFlow. A release of TensorFlow may lack them or may have changed them. Then
the package must say so in one sentence.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import tensorflow as tf
from tensorflow.compiler.tf2xla.python import xla as private_xla

from lowlevel_simclr.ops import _library, _route
from lowlevel_simclr.runtime import xla


@pytest.fixture()
def asked_anew(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Forget the stored answer to "Can XLA call the native library?". Pretend that the library accepts this XLA."""
    monkeypatch.setattr(_library, "read_xla_refusal", lambda: "")
    _route.find_route_problem.cache_clear()
    yield
    _route.find_route_problem.cache_clear()


def check_that_it_is_a_sentence(said: str | None, reason: str) -> None:
    assert said is not None and said.endswith("2.18 or later.") and "--ops stock" in said
    assert "A test call failed (TensorFlow " in said and reason in said
    assert "\n" not in said


def test_a_tensorflow_without_call_module_is_a_sentence(monkeypatch: pytest.MonkeyPatch, asked_anew: None) -> None:
    monkeypatch.delattr(private_xla, "call_module")
    check_that_it_is_a_sentence(_route.find_route_error(), "AttributeError")


def test_another_signature_of_call_module_is_a_sentence(monkeypatch: pytest.MonkeyPatch, asked_anew: None) -> None:
    monkeypatch.setattr(private_xla, "call_module", lambda args, module: [])
    check_that_it_is_a_sentence(_route.find_route_error(), "TypeError")


def test_eager_code_is_not_inside_xla() -> None:
    assert not xla.is_inside_xla()


def test_a_tensorflow_that_cannot_compile_is_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    """Test a TensorFlow without XLA. The test raises the same error as TensorFlow 2.15 for macOS."""

    def refuse(compute: object, jit_compile: bool) -> Callable[[tf.Tensor], tf.Tensor]:
        def call(number: tf.Tensor) -> tf.Tensor:
            raise tf.errors.NotFoundError(None, None, "could not find registered platform with id: 0x1\n\t[[{{node}}]]")

        assert jit_compile
        return call

    xla.find_xla_problem.cache_clear()
    with monkeypatch.context() as changed:
        changed.setattr(tf, "function", refuse)
        said = xla.find_xla_problem()
    xla.find_xla_problem.cache_clear()
    assert said == (
        f"TensorFlow {tf.__version__} cannot compile with XLA here (NotFoundError: could not find registered platform "
        "with id: 0x1)."
    )
    assert xla.find_xla_problem() is None
