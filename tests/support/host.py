"""What has a contract on the processor alone, on a machine with a GPU too."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import tensorflow as tf


def on_the_host(call: Callable[..., Any]) -> Callable[..., Any]:
    """`call` on the CPU, where an unknown batch and refusals are; a GPU has neither."""

    @functools.wraps(call)
    def there(*arguments: Any, **named: Any) -> Any:
        with tf.device("/CPU:0"):
            return call(*arguments, **named)

    return there
