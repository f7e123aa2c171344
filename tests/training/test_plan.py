"""Tests the class `Plan`: the settings of a training, adapted to the device and to the images."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

import pytest

from lowlevel_simclr.config import identity, settings
from lowlevel_simclr.config.identity import list_differences, replace
from lowlevel_simclr.config.presets import scale_jitter
from lowlevel_simclr.config.settings import Config
from lowlevel_simclr.data import catalog
from lowlevel_simclr.training import plan, workers
from lowlevel_simclr.training.plan import Plan, _drop_colours, choose_stored_side
from tests.support.labelled_images import make_striped_data_set
from tests.support.made_up_memory import AUTO, ON_HOST, limit_memory, resolve_config

pytestmark = pytest.mark.usefixtures("small_runs")

# Decisions before the images are read


def test_images_are_stored_as_large_as_the_smallest_crop_needs():
    assert choose_stored_side(replace(Config(), image_size=32, crop_area=(0.25, 1.0))) == 64
    assert (
        choose_stored_side(replace(Config(), image_size=224, crop_area=(0.08, 1.0))) == 792
    )  # 224 / sqrt(0.08) = 791.96
    assert choose_stored_side(replace(Config(), stored_side=40)) == 40


def test_several_workers_are_refused_even_where_one_has_a_number(tmp_path: Path) -> None:
    """Test that --micro-batch auto is refused with several workers (processes).

    The flag makes a worker search for the largest micro-batch. Only worker 0 has the run folder, which may already have
    this number. Then worker 0 would not search, and would wait for the other workers for ever.
    """
    (tmp_path / "config.json").write_text(json.dumps(identity.to_dict(identity.replace(AUTO, micro_batch="8"))))
    two = workers.Team(workers.Workers(2, 0, ("a:1", "b:1")), workers.LONE.local)
    for folder in (tmp_path, tmp_path / "none"):
        earlier = plan.read_earlier(AUTO, folder)
        assert (earlier is None) == (folder != tmp_path)
        with pytest.raises(settings.ConfigError, match="several workers. Give every worker the same number of images"):
            plan.refuse_early(AUTO, two, earlier)


def test_without_a_gpu_there_is_no_memory_to_fill() -> None:
    with pytest.raises(settings.ConfigError, match="--micro-batch auto needs a GPU"):
        plan.refuse_early(AUTO, workers.LONE)


# Decisions after the images are read


def test_images_without_colours_have_views_without_them():
    config = _drop_colours(replace(Config(), **scale_jitter(1.0)))
    assert list_differences(replace(Config(), **scale_jitter(1.0)), config) == [
        "saturation: 0.2 1.8 -> 1.0 1.0", "hue: -0.2 0.2 -> 0.0 0.0", "grey_probability: 0.2 -> 0.0"
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("given", "wrong"),
    [
        ({"steps": 2}, False),  # the preset, not the user, chose the warm-up: this is never refused
        ({"steps": 2, "warmup_epochs": 0.5}, False),
        ({"steps": 2, "warmup_epochs": 0.9}, True),
        ({"epochs": 3, "warmup_epochs": 3.0}, False),
        ({"steps": 2, "preset": "simclr-b9", "warmup_epochs": 10.0}, False),
        ({"steps": 2, "preset": "simclr-b9", "warmup_epochs": 1.0}, True),
    ],
)
def test_a_warmup_that_was_chosen_ends_within_the_steps(given: dict[str, Any], wrong: bool) -> None:
    """Test warm-ups that are shorter and longer than the run. In this test, an epoch has four steps."""
    config = replace(Config(), batch_size=15, **given)
    refused = pytest.raises(settings.ConfigError, match=r"warmup-epochs \(.*\) is 4 steps here, but the run has 2")
    with refused if wrong else contextlib.nullcontext():
        plan._refuse_long_warmup(config, make_striped_data_set())
    assert wrong == (given.get("warmup_epochs") in (0.9, 1.0))


@pytest.mark.parametrize(("count", "channels", "wrong"), [(3, 3, False), (1, 3, False), (3, 1, True), (2, 3, True)])
def test_the_scaling_has_the_channels_of_the_images(count: int, channels: int, wrong: bool) -> None:
    config = replace(Config(), input_mean=(0.5,) * count, input_std=(0.5,) * count)
    refused = pytest.raises(settings.ConfigError, match=f"--input-mean has {count} .* have {channels} ch")
    with refused if wrong else contextlib.nullcontext():
        plan._refuse_other_channels(config, channels)
    assert wrong == (count not in (1, channels))


# Whether the images are kept in the memory of the GPU (device) or in main memory (host)


@pytest.mark.parametrize(
    ("chosen", "gpu", "replicas", "limit", "place"),
    [
        ("auto", True, 1, 60 * 32 * 32 * 3, "device"),
        ("auto", True, 1, 60 * 32 * 32 * 3 - 1, "host"),
        ("auto", True, 2, 60 * 32 * 32 * 3, "host"),
        ("auto", False, 1, 60 * 32 * 32 * 3, "host"),
        ("host", True, 1, 60 * 32 * 32 * 3, "host"),
        ("device", False, 1, 0, "device"),
    ],
)
def test_few_images_lie_on_the_one_gpu_unless_told_otherwise(
    monkeypatch: pytest.MonkeyPatch, chosen: str, gpu: bool, replicas: int, limit: int, place: str
) -> None:
    monkeypatch.setattr(plan, "has_gpu", lambda: gpu)
    monkeypatch.setattr(plan, "RESIDENT", limit)
    wanted = identity.replace(settings.Config(), data_on=chosen)
    assert plan.place_data(wanted, catalog.load_dataset("shapes"), replicas) == place


# --micro-batch auto: the search for the largest micro-batch that fits into the memory


def test_a_given_number_is_left_alone() -> None:
    given = identity.replace(AUTO, micro_batch="3")
    assert resolve_config(given, fits=lambda *_: pytest.fail("a size was tried")).train.micro_batch == "3"


@pytest.mark.parametrize(
    ("replicas", "changed", "sizes"),
    [(4, {}, [24, 12, 8, 4]), (2, {"batch_norm": "ghost", "ghost_batch": 3}, [24, 12, 6])],
)
def test_sizes_come_out_even_for_replicas_and_ghost_groups(
    gpu: None, replicas: int, changed: dict[str, Any], sizes: list[int]
) -> None:
    tried: list[Plan] = []
    with pytest.raises(settings.ConfigError, match=f"even {sizes[-1]} images need more than the GPU's memory"):
        resolve_config(identity.replace(ON_HOST, **changed), replicas=replicas, fits=limit_memory(0, tried))
    assert [replicas * one.micro_batch for one in tried] == sizes  # a trial runs on one replica only


def test_a_batch_without_equal_shares_is_refused_before_anything_is_tried(gpu: None) -> None:
    with pytest.raises(settings.ConfigError, match="with equal shares for 5 replicas"):
        resolve_config(ON_HOST, replicas=5, fits=lambda *_: pytest.fail("a size was tried"))


def test_one_replica_tries_its_share(gpu: None) -> None:
    tried: list[Plan] = []
    resolve_config(identity.replace(ON_HOST, xla="auto"), replicas=2, fits=limit_memory(6, tried))
    assert [(one.batch_size, one.micro_batch, one.replicas, one.jit_compile) for one in tried] == [
        (12, 12, 1, False),
        (12, 6, 1, False),
    ]


@pytest.mark.parametrize(("problem", "compiled"), [(None, True), ("TensorFlow cannot compile with XLA here.", False)])
def test_stock_views_are_compiled_where_tensorflow_can(
    problem: str | None, compiled: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plan, "find_xla_problem", lambda: problem)
    made = plan.make_plan(replace(Config(), ops="stock", batch_size=4), make_striped_data_set(8, 8))
    assert made.jit_compile_views == compiled and not made.jit_compile
