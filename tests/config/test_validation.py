"""What a configuration may not be, whichever way it was made."""

from __future__ import annotations

from lowlevel_simclr.config.command_line import parse_run


def test_a_warm_up_is_not_held_against_epochs_that_steps_override():
    config, _ = parse_run(["--epochs", "2", "--warmup-epochs", "3", "--steps", "500"])
    assert config.train.steps == 500
