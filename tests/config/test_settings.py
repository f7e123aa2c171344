"""Settings: presets, text -> config -> text, what keeps a run from being resumed, and what is refused."""

from __future__ import annotations

import dataclasses
import json

import pytest

from lowlevel_simclr.config import settings as configuration
from lowlevel_simclr.config.command_line import FlagParser, choose_default_out, parse_run
from lowlevel_simclr.config.identity import from_dict, hash_config, list_differences, replace, to_dict
from lowlevel_simclr.config.presets import PRESETS, load_preset, scale_jitter
from lowlevel_simclr.config.settings import Config, ConfigError, ViewRecipe
from lowlevel_simclr.config.validation import validate
from lowlevel_simclr.training.plan import _without_colours, choose_stored_side

SETTINGS = {
    field.name: section for section, kind in configuration.SECTIONS.items() for field in dataclasses.fields(kind)
}
NOT_IDENTITY = {"data_dir", "memory_limit", "data_on", "steps_per_call", "checkpoint_every", "keep_checkpoints"}
NOT_IDENTITY |= {"knn_every"}

# For every setting a value that no preset has.
OTHER = {
    "crop_area": (0.3, 0.9), "crop_aspect": (0.5, 2.0), "flip_probability": 0.25,
    "jitter_probability": 0.5, "brightness": (0.9, 1.1), "contrast": (0.1, 0.9), "saturation": (0.0, 3.0),
    "hue": (-0.5, 0.5), "brightness_shift": (-0.25, 0.25), "clip": False, "grey_probability": 0.1,
    "blur_probability": 0.5, "blur_sigma": (0.1, 1 / 3), "dataset": "cifar10", "data_dir": "/some where",
    "stored_side": 64, "memory_limit": 0.5, "data_on": "host",
    "train_on": "all", "encoder": "resnet50", "stem": "imagenet", "weights": "./f.keras",
    "projection_widths": (2048, 512, 64), "projection_batch_norm": "hidden", "loss_reduction": "google",
    "image_size": 224, "input_mean": (0.49, 0.48, 0.45),
    "input_std": (0.25, 0.24, 0.26), "temperature": 0.3, "optimizer": "lars", "learning_rate": 1.5,
    "learning_rate_scaling": "linear", "momentum": 0.0, "beta_1": 0.8, "beta_2": 0.99, "epsilon": 1e-3,
    "weight_decay": 0.0, "trust_coefficient": 0.02, "warmup_epochs": 0.5, "batch_size": 512,
    "micro_batch": "64", "devices": "cpu:2", "batch_norm": "local", "ghost_batch": 16,
    "epochs": 1000, "steps": 7, "seed": 2**64 - 1, "precision": "bfloat16", "xla": "on", "ops": "stock",
    "deterministic": False, "steps_per_call": 1, "checkpoint_every": 5, "keep_checkpoints": 1,
    "knn_every": 0,
}  # fmt: skip


def refused(capsys: pytest.CaptureFixture[str], *argv: str) -> str:
    """The sentence that ends `parse`; it must be all that is printed, with exit code 2."""
    with pytest.raises(SystemExit) as ended:
        parse_run(argv)
    assert ended.value.code == 2
    printed = capsys.readouterr()
    assert printed.out == "" and printed.err.count("\n") == 1
    return printed.err.partition("error: ")[2]


def as_flags(name: str) -> list[str]:
    """The setting's value of OTHER as it is typed."""
    value, flag = OTHER[name], "--" + name.replace("_", "-")
    if isinstance(value, bool):
        return [flag if value else f"--no-{flag[2:]}"]
    return [flag, *(str(part) for part in (value if isinstance(value, tuple) else (value,)))]


def test_every_setting_has_another_value_here_and_a_name_of_its_own():
    count = sum(len(dataclasses.fields(kind)) for kind in configuration.SECTIONS.values())
    assert set(OTHER) == set(SETTINGS) and len(SETTINGS) == count
    assert not set(SETTINGS) & {"preset", "out", "fresh", "preview", "jitter_strength", "help"}


@pytest.mark.parametrize("name", SETTINGS)
def test_every_setting_is_a_flag_and_reaches_its_own_field_alone(name):
    # A mean without a standard deviation is refused, so these two come together.
    changed = {"input_mean", "input_std"} if name in ("input_mean", "input_std") else {name}
    config, _ = parse_run(["--preset", "shapes", *(word for each in sorted(changed) for word in as_flags(each))])
    wanted = replace(load_preset("shapes"), **{each: OTHER[each] for each in changed})
    assert config == wanted != load_preset("shapes")


def test_every_setting_is_explained_with_its_default(capsys):
    with pytest.raises(SystemExit) as ended:
        parse_run(["--help"], "Trains an encoder.")
    text = " ".join(capsys.readouterr().out.split())
    assert ended.value.code == 0 and "SUPPRESS" not in text and "Trains an encoder." in text
    for name in SETTINGS:
        assert f"--{name.replace('_', '-')}" in text
    assert text.count("(default: ") == len(SETTINGS) + 2  # and those of --preset and --out
    assert "share of the image that the crop covers (default: 0.3 1)" in text
    for make in PRESETS.values():
        assert make.__doc__.splitlines()[0] in text
    assert "python -m lowlevel_simclr.train --dataset cifar10" in text


def test_help_shows_the_defaults_of_the_preset_that_is_asked_for(capsys):
    with pytest.raises(SystemExit):
        parse_run(["--preset", "cifar10-resnet20", "--help"])
    assert "crop covers (default: 0.08 1)" in " ".join(capsys.readouterr().out.split())


# Presets


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_is_valid_bears_its_name_and_tells_result_and_cost(name):
    config = load_preset(name)
    validate(config)
    text = PRESETS[name].__doc__
    assert config.preset == name and "Expected:" in text and "Cost:" in text


def test_the_views_start_from_the_published_recipe_at_strength_one():
    assert {name: getattr(ViewRecipe(), name) for name in scale_jitter(1.0)} == scale_jitter(1.0)
    assert scale_jitter(1.0) == {name: (0.2, 1.8) for name in ("brightness", "contrast", "saturation")} | {
        "hue": (-0.2, 0.2)
    }


def test_jitter_is_clipped_at_zero_and_refused_beyond_every_hue():
    assert scale_jitter(0.0)["hue"] == (0.0, 0.0) and scale_jitter(0.0)["contrast"] == (1.0, 1.0)
    assert scale_jitter(2.5)["contrast"] == (0.0, 3.0) and scale_jitter(2.5)["hue"] == (-0.5, 0.5)
    for strength in (-0.1, 2.6, float("nan")):
        with pytest.raises(ConfigError, match="--jitter-strength is"):
            scale_jitter(strength)


def test_the_cifar_preset_has_the_recipe_of_the_paper_for_cifar():
    views = load_preset("cifar10-resnet20").views
    assert (views.crop_area, views.contrast, views.hue) == ((0.08, 1.0), (0.6, 1.4), (-0.1, 0.1))
    assert (views.grey_probability, views.blur_probability) == (0.2, 0.0)


# Command line


def test_nothing_given_is_the_embedded_preset():
    config, options = parse_run([])
    assert config == load_preset("shapes") and config.data.dataset == "shapes"
    assert (str(options.out), options.fresh, options.preview) == ("runs/shapes", False, False)


def test_the_data_set_brings_its_own_preset_unless_one_is_named():
    assert parse_run(["--dataset", "cifar10"])[0] == load_preset("cifar10-resnet20")
    config, _ = parse_run(["--dataset", "cifar10", "--preset", "shapes"])
    assert config == replace(load_preset("shapes"), dataset="cifar10")


def test_jitter_strength_overrides_the_preset_and_a_range_overrides_it():
    config, _ = parse_run(["--hue", "-0.01", "0.02", "--jitter-strength", "1"])
    assert config == replace(load_preset("shapes"), **{**scale_jitter(1.0), "hue": (-0.01, 0.02)})


def test_epochs_that_are_asked_for_are_not_overruled_by_the_steps_of_a_preset(monkeypatch):
    short = replace(Config(), preset="short", steps=50, epochs=3)
    monkeypatch.setitem(PRESETS, "short", lambda: short)
    assert parse_run(["--preset", "short"])[0].train.steps == 50
    assert parse_run(["--preset", "short", "--epochs", "9"])[0] == replace(short, epochs=9, steps=None)
    assert parse_run(["--preset", "short", "--epochs", "9", "--steps", "8"])[0] == replace(short, epochs=9, steps=8)


def test_what_belongs_to_the_call_is_no_setting(tmp_path):
    config, options = parse_run(["--out", str(tmp_path), "--fresh", "--preview"])
    assert (options.out, options.fresh, options.preview) == (tmp_path, True, True)
    assert config == load_preset("shapes")


@pytest.mark.parametrize(
    ("argv", "wanted"),
    [
        ([], "runs/shapes"),
        (["--seed", "2"], "runs/shapes-seed2"),
        (["--preset", "cifar10-resnet20"], "runs/cifar10-resnet20"),
        (["--preset", "shapes", "--dataset", "cifar10"], "runs/cifar10"),
        (["--dataset", "folder:/my pictures"], "runs/folder-my-pictures"),
    ],
)
def test_the_run_folder_where_none_is_asked_for(argv, wanted):
    assert str(parse_run(argv)[1].out) == wanted


def test_the_run_folder_of_a_custom_config_bears_the_data_set_as_a_file_name():
    assert str(choose_default_out(replace(Config(), dataset="folder:/a b/c"))) == "runs/folder-a-b-c"


@pytest.mark.parametrize(
    ("argv", "fragments"),
    [
        (["--tempereture", "0.5"], ["unknown argument --tempereture", "did you mean --temperature?"]),
        (["--batchsize=8"], ["unknown argument --batchsize:", "did you mean --batch-size?"]),
        (["--no-clipp"], ["did you mean --no-clip?"]),
        (["--temp", "0.5"], ["unknown argument --temp"]),
        (["--qqqqqq"], ["unknown argument --qqqqqq: --help lists"]),
        (["runs/shapes"], ["unknown argument runs/shapes"]),
        (["--preset", "cifar10"], ["--preset 'cifar10'", "did you mean cifar10-resnet"]),
        (["--dataset", "cifar"], ["--dataset 'cifar'", "did you mean cifar10?", "known: shapes, cifar10"]),
        (["--encoder", "resnet-50"], ["--encoder 'resnet-50'", "did you mean resnet50?"]),
        (["--optimizer", "adam"], ["--optimizer 'adam'", "known: adamw, lamb, lars, sgd"]),
        (["--precision", "half"], ["--precision 'half'", "known: auto, float32, bfloat16, float16"]),
        (["--weights", "imagnet"], ["--weights 'imagnet'", "did you mean imagenet?"]),
        (["--weights", "imagenet"], ["--encoder resnet50", "resnet20"]),
        (["--batch-size", "-3"], ["--batch-size is -3: give a whole number, at least 2"]),
        (["--batch-size", "many"], ["--batch-size", "'many' is not a whole number"]),
        (["--learning-rate", "0"], ["--learning-rate is 0.0: give a number, above 0"]),
        (["--learning-rate", "nan"], ["--learning-rate is nan: give a number, above 0"]),
        (["--learning-rate", "inf"], ["--learning-rate is inf: give a number, above 0"]),
        (["--learning-rate", "fast"], ["--learning-rate", "'fast' is not a number"]),
        (["--momentum", "1"], ["--momentum is 1.0: give a number, at least 0 and below 1"]),
        (["--temperature", "20"], ["--temperature is 20.0: give a number, at least 0.001 and at most 10"]),
        (["--temperature", "0.0001"], ["--temperature is 0.0001"]),
        (["--crop-area", "1", "0.2"], ["--crop-area is 1.0 0.2", "the low end and then the high end"]),
        (["--crop-area", "0", "1"], ["--crop-area is 0.0 1.0", "each above 0 and at most 1"]),
        (["--hue", "0.1"], ["--hue", "expected 2 arguments"]),
        (["--hue", "-0.6", "0.1"], ["--hue is -0.6 0.1", "each at least -0.5 and at most 0.5"]),
        (["--steps", "0"], ["--steps is 0: give a whole number, at least 1"]),
        (["--seed", "-1"], ["--seed is -1"]),
        (["--seed", "1" + "0" * 400], ["--seed is 1000", "at most 18446744073709551615"]),
        (
            ["--projection-widths", "256", "0"],
            ["--projection-widths is 256 0", "one or more whole numbers, each at"],
        ),
        (["--input-mean", "0.5"], ["--input-mean is 0.5 and --input-std is none: give both"]),
        (
            ["--epochs", "2", "--warmup-epochs", "3"],
            ["--warmup-epochs is 3.0: give at most the 2 of --epochs"],
        ),
        (["--jitter-strength", "3"], ["--jitter-strength is 3.0: give at least 0 and at most 2.5"]),
    ],
)
def test_what_cannot_be_is_refused_in_one_sentence_with_value_and_remedy(capsys, argv, fragments):
    sentence = refused(capsys, *argv)
    for fragment in fragments:
        assert fragment in sentence


def test_a_warm_up_is_not_held_against_epochs_that_steps_override():
    config, _ = parse_run(["--epochs", "2", "--warmup-epochs", "3", "--steps", "500"])
    assert config.train.steps == 500


@pytest.mark.parametrize("name", ["folder:/pictures", "npz:a.npz", "cifar100"])
def test_a_data_set_that_is_not_drawn_starts_from_the_preset_of_photographs(name):
    config, _ = parse_run(["--dataset", name])
    assert config.data.dataset == name and config.views == load_preset("cifar10-resnet20").views


def test_images_are_stored_as_large_as_the_smallest_crop_needs():
    assert choose_stored_side(replace(Config(), image_size=32, crop_area=(0.25, 1.0))) == 64
    assert (
        choose_stored_side(replace(Config(), image_size=224, crop_area=(0.08, 1.0))) == 792
    )  # 224 / sqrt(0.08) = 791.96
    assert choose_stored_side(replace(Config(), stored_side=40)) == 40


def test_images_without_colours_have_views_without_them():
    config = _without_colours(replace(Config(), **scale_jitter(1.0)))
    assert list_differences(replace(Config(), **scale_jitter(1.0)), config) == [
        "saturation: 0.2 1.8 -> 1.0 1.0", "hue: -0.2 0.2 -> 0.0 0.0", "grey_probability: 0.2 -> 0.0"
    ]  # fmt: skip


def test_other_programs_get_the_same_errors(capsys):
    parser = FlagParser(prog="evaluate")
    parser.add_argument("--protocol")
    assert parser.parse_strictly(["--protocol", "knn"]).protocol == "knn"
    with pytest.raises(SystemExit) as ended:
        parser.parse_strictly(["--protocoll", "knn"])
    sentence = "evaluate: error: unknown argument --protocoll: did you mean --protocol?\n"
    assert ended.value.code == 2 and capsys.readouterr().err == sentence


# config -> text -> config


@pytest.mark.parametrize("config", [Config(), load_preset("shapes"), replace(Config(), preset="other", **OTHER)])
def test_json_gives_back_the_same_config(config):
    again = from_dict(json.loads(json.dumps(to_dict(config))))
    assert again == config and repr(again) == repr(config)  # repr tells 1 from 1.0 and a list from a tuple


def test_whole_numbers_become_floats_where_floats_live():
    loose = dataclasses.replace(Config(), loss=configuration.LossConfig(temperature=1))
    exact = replace(Config(), temperature=1.0)
    assert json.dumps(to_dict(loose)) == json.dumps(to_dict(exact))
    assert hash_config(loose) == hash_config(exact)


def test_an_absent_setting_takes_its_default():
    values = to_dict(replace(Config(), temperature=0.5))
    del values["train"]["deterministic"], values["model"]
    assert from_dict(values) == replace(Config(), temperature=0.5)


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"loss": {"temprature": 0.1}}, "there is no setting 'loss.temprature': did you mean temperature\\?"),
        ({"data": {"temperature": 0.1}}, "there is no setting 'data.temperature'"),
        ({"optimiser": {}}, "there is no section 'optimiser' of settings: did you mean optimizer\\?"),
        ({"loss": 0.1}, "there is no section 'loss' of settings"),
        ({"train": {"batch_size": "256"}}, "--batch-size is 256: give a whole number"),
        ({"train": {"batch_size": 256.0}}, "--batch-size is 256.0: give a whole number"),
        ({"train": {"batch_size": True}}, "--batch-size is True: give a whole number"),
        ({"train": {"deterministic": 1}}, "--deterministic is 1: give a truth value"),
        ({"loss": {"temperature": True}}, "--temperature is True: give a number"),
        ({"loss": {"temperature": None}}, "--temperature is none: give a number"),
        ({"views": {"hue": [0.1]}}, "--hue is 0.1: give two numbers"),
        ({"views": {"hue": 0.1}}, "--hue is 0.1: give two numbers"),
        ({"model": {"projection_widths": []}}, "give one or more whole numbers"),
    ],
)
def test_a_stored_config_of_another_kind_is_refused_by_name(values, sentence):
    with pytest.raises(ConfigError, match=sentence):
        from_dict(values)


def test_replace_refuses_a_name_that_is_no_setting():
    with pytest.raises(ConfigError, match="there is no setting 'temprature': did you mean temperature"):
        replace(Config(), temprature=0.1)


# Identity


@pytest.mark.parametrize("name", SETTINGS)
def test_a_setting_keeps_a_run_from_being_resumed_exactly_when_it_can_change_the_weights(name):
    before, after = load_preset("shapes"), replace(load_preset("shapes"), **{name: OTHER[name]})
    same = name in NOT_IDENTITY
    assert bool(list_differences(before, after)) != same
    assert (hash_config(before) == hash_config(after)) == same


def test_a_difference_is_told_from_the_run_to_what_is_asked_for():
    after = replace(load_preset("shapes"), temperature=0.5, crop_area=(0.08, 1.0), steps=9, checkpoint_every=1)
    assert list_differences(load_preset("shapes"), after) == [
        "steps: none -> 9",
        "temperature: 0.1 -> 0.5",
        "crop_area: 0.3 1.0 -> 0.08 1.0",
    ]


def test_the_label_of_a_preset_is_no_difference():
    assert list_differences(load_preset("shapes"), replace(load_preset("shapes"), preset="mine")) == []
