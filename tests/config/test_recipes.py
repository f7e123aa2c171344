"""Tests which settings (recipe) are chosen for a training with a time limit (--budget), at a given speed."""

from __future__ import annotations

import pytest

from lowlevel_simclr.config.fields import list_fields
from lowlevel_simclr.config.identity import list_differences, replace
from lowlevel_simclr.config.presets import load_preset
from lowlevel_simclr.config.recipes import (
    CHOSEN,
    ON_CPU,
    ON_GPU,
    RECIPES,
    choose_base,
    choose_recipe,
    choose_warmup,
    get_setting,
)
from lowlevel_simclr.config.settings import ConfigError
from lowlevel_simclr.config.validation import validate

PHOTOGRAPHS = load_preset("cifar10-resnet20")


def test_recipes_follow_one_another_and_are_valid() -> None:
    assert [recipe.least_pairs for recipe in RECIPES] == sorted({recipe.least_pairs for recipe in RECIPES})
    assert RECIPES[0].least_pairs == 0
    for recipe in RECIPES:
        chosen = choose_recipe(PHOTOGRAPHS, [], recipe.least_pairs, gpu=False)
        validate(chosen.config)
        assert chosen.why == recipe.why
        assert {name: get_setting(chosen.config, name) for name in recipe.settings} == recipe.settings
    assert set(list_fields()) >= CHOSEN


def test_small_photographs_on_a_cpu_get_the_settings_that_were_measured() -> None:
    base = choose_base(PHOTOGRAPHS, [], gpu=False)
    assert {name: get_setting(base, name) for name in ON_CPU} == ON_CPU
    mine = replace(PHOTOGRAPHS, encoder="resnet18", image_size=24)
    base = choose_base(mine, ["encoder", "image_size"], gpu=False)
    assert (base.model.encoder, base.model.stem, base.model.image_size) == ("resnet18", "cifar", 24)
    assert base.model.evaluation_size is None  # 32 pixels fit views of 16


def test_what_the_user_gives_stays() -> None:
    mine = replace(PHOTOGRAPHS, image_size=28, crop_area=(0.5, 1.0), encoder="resnet18", temperature=0.4)
    given = ["image_size", "crop_area", "encoder", "temperature"]
    for pairs in (0, 1e9):
        for gpu in (False, True):
            chosen = choose_recipe(choose_base(mine, given, gpu), given, pairs, gpu).config
            assert {name: get_setting(chosen, name) for name in given} == {
                name: get_setting(mine, name) for name in given
            }
            assert chosen.model.image_sizes is None  # no growing views: these would end with another size


def test_an_optimizer_that_the_user_gives_does_not_get_the_rate_of_another() -> None:
    mine = replace(PHOTOGRAPHS, optimizer="lars", learning_rate=0.123)
    assert choose_base(mine, ["optimizer"], gpu=True).optimizer.learning_rate == 0.123


def test_a_setting_that_does_not_fit_the_recipe_is_refused() -> None:
    mine = replace(PHOTOGRAPHS, image_sizes=("16:0.5", "20:0.5"))
    assert choose_recipe(mine, ["image_sizes"], 1e9, gpu=False).config.model.image_size == 20
    with pytest.raises(ConfigError, match="--image-sizes ends with"):
        choose_recipe(replace(mine, image_size=32), ["image_sizes", "image_size"], 1e9, gpu=False)


def test_a_preset_that_the_user_names_keeps_its_settings() -> None:
    for gpu in (False, True):
        chosen = choose_recipe(choose_base(PHOTOGRAPHS, None, gpu), None, 1e9, gpu)
        assert list_differences(PHOTOGRAPHS, chosen.config) == []
        assert "you gave --preset cifar10-resnet20" in chosen.why
    assert choose_warmup(PHOTOGRAPHS, None, 1000, 100) == PHOTOGRAPHS


@pytest.mark.parametrize("name", ["shapes", "pictures-64", "pictures-128"])
def test_other_images_keep_the_settings_of_their_preset(name: str) -> None:
    config = load_preset(name)
    chosen = choose_recipe(choose_base(config, [], gpu=True), [], 1e9, gpu=True)
    assert list_differences(config, chosen.config) == [] and f"preset {name}" in chosen.why


def test_small_photographs_on_a_gpu_get_the_settings_of_its_preset() -> None:
    chosen = choose_recipe(choose_base(PHOTOGRAPHS, [], gpu=True), [], 1e9, gpu=True).config
    usual = load_preset(ON_GPU)
    assert (chosen.model.encoder, chosen.train.batch_size, chosen.optimizer.learning_rate) == (
        usual.model.encoder,
        usual.train.batch_size,
        usual.optimizer.learning_rate,
    )


def test_the_warm_up_is_a_tenth_of_the_steps_unless_it_is_given() -> None:
    assert choose_warmup(PHOTOGRAPHS, [], steps=3000, per_epoch=100).optimizer.warmup_epochs == 3
    assert choose_warmup(PHOTOGRAPHS, ["warmup_epochs"], 3000, 100).optimizer.warmup_epochs == 1
