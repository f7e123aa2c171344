"""Modules that can be called: `lowlevel_simclr.train` is a program and a function.

`python -m lowlevel_simclr.train` can only run a module, so `train` must be a module. When Python imports that module,
it also sets the attribute `train` of the package to the module. This would overwrite a function named `train`. So the
module itself is made callable: calling the module calls the function.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any


class CallableModule(ModuleType):
    """A module that can be called like one of its functions. It has the signature and docstring of that function."""

    _function: Callable[..., Any]

    def __call__(self, *arguments: Any, **settings: Any) -> Any:
        """Call the function."""
        return self._function(*arguments, **settings)

    @property
    def __signature__(self) -> inspect.Signature:
        """The signature for `inspect.signature`. The usual `__wrapped__` is not used, because `help` would show it."""
        return inspect.signature(self._function)


def make_callable(name: str, function: Callable[..., Any]) -> None:
    """Make an imported module callable.

    Args:
        name: the name of the module in `sys.modules`.
        function: the function to call when the module is called.
    """
    module = sys.modules[name]
    module.__class__ = CallableModule
    module._function = function  # type: ignore[attr-defined]
    module.__doc__ = function.__doc__
