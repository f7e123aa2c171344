"""The errors whose messages are written for users. The programs print only the message, without a traceback."""

from __future__ import annotations

from lowlevel_simclr.config.settings import ConfigError
from lowlevel_simclr.data.dataset import DataError
from lowlevel_simclr.evaluation.embedding.given import EmbedError
from lowlevel_simclr.evaluation.fine_tune import Diverged
from lowlevel_simclr.evaluation.formats.form import ExportError
from lowlevel_simclr.evaluation.represent import EncoderChanged, NonFiniteRepresentation
from lowlevel_simclr.model.errors import ModelError
from lowlevel_simclr.run.atomic import RunError
from lowlevel_simclr.run.checkpoint import CheckpointError
from lowlevel_simclr.training.replicas import DistributionError
from lowlevel_simclr.training.saving import NonFiniteState
from lowlevel_simclr.training.step import NonFiniteLoss

REPORTED = (
    CheckpointError,
    ConfigError,
    DataError,
    DistributionError,
    Diverged,
    EmbedError,
    EncoderChanged,
    ExportError,
    ModelError,
    NonFiniteLoss,
    NonFiniteRepresentation,
    NonFiniteState,
    RunError,
)
