"""Runs a function on the CPU, even on a machine with a GPU. Some tests check what only the CPU guarantees."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import tensorflow as tf


def on_the_host(call: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function that runs `call` on the CPU.

    Ops on a GPU do not check values, and need to know the batch size when the graph is traced.
    """

    @functools.wraps(call)
    def there(*arguments: Any, **named: Any) -> Any:
        with tf.device("/CPU:0"):
            return call(*arguments, **named)

    return there
