"""Runs a function on the CPU, even on a machine with a GPU, for tests of guarantees that only the CPU gives."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import tensorflow as tf


def on_the_host(call: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function that runs `call` on the CPU. On a GPU, ops need a known batch size and do not check values."""

    @functools.wraps(call)
    def there(*arguments: Any, **named: Any) -> Any:
        with tf.device("/CPU:0"):
            return call(*arguments, **named)

    return there
