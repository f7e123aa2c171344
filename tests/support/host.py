"""Runs a function on the CPU, even on a machine with a GPU."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import tensorflow as tf


def on_the_host(call: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function that runs `call` on the CPU.

    Tests need this if they test that an op refuses wrong values, or works with an unknown batch size. On a GPU, the ops
    do neither.
    """

    @functools.wraps(call)
    def there(*arguments: Any, **named: Any) -> Any:
        with tf.device("/CPU:0"):
            return call(*arguments, **named)

    return there
