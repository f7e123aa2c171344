"""The error of a network that cannot be built."""

from __future__ import annotations

from lowlevel_simclr.config.names import OneLineError


class ModelError(OneLineError, ValueError):
    """The settings of a network do not fit together, or its weights cannot be used. The message says what to do."""
