"""Tests of guarantees that hold only on the processor, also on a machine with a GPU."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import tensorflow as tf


def on_the_host(call: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function that runs `call` on the CPU. Unknown batches and refusals of values do not work on a GPU."""

    @functools.wraps(call)
    def there(*arguments: Any, **named: Any) -> Any:
        with tf.device("/CPU:0"):
            return call(*arguments, **named)

    return there
