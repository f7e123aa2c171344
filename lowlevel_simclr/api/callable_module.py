"""Modules that can be called: `lowlevel_simclr.train` is a program and a function.

The programs are modules, because `python -m lowlevel_simclr.train` runs a module. When Python imports a module, it
binds the module to its name in the package. So a function of the same name would be lost. A module of this type is a
program, and it can also be called as a function.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any


class CallableModule(ModuleType):
    """A module whose call calls one function. The module has the signature and docstring of that function."""

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
        function: the function that a call of the module calls.
    """
    module = sys.modules[name]
    module.__class__ = CallableModule
    module._function = function  # type: ignore[attr-defined]
    module.__doc__ = function.__doc__
