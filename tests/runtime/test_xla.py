"""What is private about XLA: if another TensorFlow lacks it or changes it, the package says so in a sentence."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from tensorflow.compiler.tf2xla.python import xla as private_xla

from lowlevel_simclr.ops import _library, _route
from lowlevel_simclr.runtime import xla


@pytest.fixture()
def asked_anew(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let the route be tested again, with an XLA that the library knows."""
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
