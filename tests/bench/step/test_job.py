"""Tests how benchmarks pass settings to the training that they time: as flags to processes, and as a configuration."""

from __future__ import annotations

import argparse

import pytest

from bench.step import job, training_memory

CHOICES = job.JobChoices("resnet18", "cifar", 16, 64, 8, "float32", "stock", "off")


@pytest.mark.parametrize("choices", [job.JobChoices(), CHOICES])
def test_flags_make_the_choices_they_were_listed_for(choices: job.JobChoices) -> None:
    parser = argparse.ArgumentParser()
    job.add_job_flags(parser)
    assert job.read_job_choices(parser.parse_args(job.list_job_flags(choices))) == choices


def test_every_choice_reaches_the_configuration() -> None:
    config = job.configure_job(CHOICES)
    model, train = config.model, config.train
    assert (model.encoder, model.stem, model.image_size) == ("resnet18", "cifar", 16)
    assert (train.batch_size, train.micro_batch, train.precision, train.ops, train.xla) == (
        64,
        "8",
        "float32",
        "stock",
        "off",
    )


@pytest.mark.slow
def test_the_peak_memory_of_training_is_that_of_another_process() -> None:
    choices = job.JobChoices(encoder="resnet20", stem="cifar", image_size=16, batch_size=8)
    assert 2**26 < training_memory.measure_training_memory(choices) < 2**34
