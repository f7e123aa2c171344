"""The error of a network that cannot be built."""

from __future__ import annotations


class ModelError(ValueError):
    """The settings of a network do not fit together, or its weights cannot be used. The message says what to do."""
