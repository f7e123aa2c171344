"""Modules that can be called: `lowlevel_simclr.train` is a program and a function.

The programs are modules, because `python -m lowlevel_simclr.train` runs them. Python binds a module to its name in the
package when it is imported, so a function of the same name would be lost. A module of this type is both.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any


class CallableModule(ModuleType):
    """A module that calls one of its functions. Signature and docstring are those of the function."""

    _function: Callable[..., Any]

    def __call__(self, *arguments: Any, **settings: Any) -> Any:
        """Call the function."""
        return self._function(*arguments, **settings)

    @property
    def __signature__(self) -> inspect.Signature:
        """The signature for `inspect.signature`. Unlike `__wrapped__`, a property does not show in `help`."""
        return inspect.signature(self._function)


def make_callable(name: str, function: Callable[..., Any]) -> None:
    """Make an imported module callable.

    Args:
        name: the name of the module in `sys.modules`.
        function: what a call of the module calls.
    """
    module = sys.modules[name]
    module.__class__ = CallableModule
    module._function = function  # type: ignore[attr-defined]
    module.__doc__ = function.__doc__
