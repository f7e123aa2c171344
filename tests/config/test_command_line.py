"""Tests the command line: a flag for every setting, defaults from presets, and one sentence for each mistake."""

from __future__ import annotations

from pathlib import Path

import pytest

from lowlevel_simclr.config.command_line import FlagParser, choose_default_out, override_settings, parse_run
from lowlevel_simclr.config.identity import replace
from lowlevel_simclr.config.presets import PRESETS, load_preset, scale_jitter
from lowlevel_simclr.config.settings import Config
from tests.support.every_setting import OTHER, SETTINGS


def parse_refused(capsys: pytest.CaptureFixture[str], *argv: str) -> str:
    """Parse a wrong command line. Return the error message. The exit code must be 2, and nothing else be printed."""
    with pytest.raises(SystemExit) as ended:
        parse_run(argv)
    assert ended.value.code == 2
    printed = capsys.readouterr()
    assert printed.out == "" and printed.err.count("\n") == 1
    return printed.err.partition("error: ")[2]


def make_flags(name: str) -> list[str]:
    """Return the flags that set a setting to its value in OTHER."""
    value, flag = OTHER[name], "--" + name.replace("_", "-")
    if isinstance(value, bool):
        return [flag if value else f"--no-{flag[2:]}"]
    return [flag, *(str(part) for part in (value if isinstance(value, tuple) else (value,)))]


# Each setting has a flag


@pytest.mark.parametrize("name", SETTINGS)
def test_every_setting_is_a_flag_and_reaches_its_own_field_alone(name):
    # The program refuses a mean without a standard deviation, so the flags of both are given together.
    changed = {"input_mean", "input_std"} if name in ("input_mean", "input_std") else {name}
    beside = {"dataset": "folder:x"} if name in ("labels", "split") else {}  # both need image files
    given = [word for each in sorted(changed) for word in make_flags(each)]
    config, _ = parse_run(["--preset", "shapes", *given, *(f"--{each}={value}" for each, value in beside.items())])
    wanted = replace(load_preset("shapes"), **{each: OTHER[each] for each in changed}, **beside)
    assert config == wanted != load_preset("shapes")


def test_every_setting_is_explained_with_its_default(capsys):
    with pytest.raises(SystemExit) as ended:
        parse_run(["--help"], "Trains an encoder.")
    text = " ".join(capsys.readouterr().out.split())
    assert ended.value.code == 0 and "SUPPRESS" not in text and "Trains an encoder." in text
    for name in SETTINGS:
        assert f"--{name.replace('_', '-')}" in text
    assert text.count("(default: ") == len(SETTINGS) + 3  # 3: the flags --preset, --out and --hosts are no settings
    assert "share of the image that the crop covers (default: 0.3 1)" in text
    for make in PRESETS.values():
        assert make.__doc__.splitlines()[0] in text
    assert "python -m lowlevel_simclr.train --dataset cifar10" in text


def test_help_shows_the_defaults_of_the_preset_that_is_asked_for(capsys):
    with pytest.raises(SystemExit):
        parse_run(["--preset", "cifar10-resnet20", "--help"])
    assert "crop covers (default: 0.08 1)" in " ".join(capsys.readouterr().out.split())


# Defaults from a preset and from a data set


def test_nothing_given_is_the_embedded_preset():
    config, options = parse_run([])
    assert config == load_preset("shapes") and config.data.dataset == "shapes"
    assert (str(options.out), options.fresh, options.preview) == ("runs/shapes", False, False)


def test_the_data_set_brings_its_own_preset_unless_one_is_named():
    assert parse_run(["--dataset", "cifar10"])[0] == load_preset("cifar10-resnet20")
    config, _ = parse_run(["--dataset", "cifar10", "--preset", "shapes"])
    assert config == replace(load_preset("shapes"), dataset="cifar10")


@pytest.mark.parametrize("name", ["folder:/pictures", "npz:a.npz", "cifar100"])
def test_a_data_set_that_is_not_drawn_starts_from_the_preset_of_photographs(name):
    config, _ = parse_run(["--dataset", name])
    assert config.data.dataset == name and config.views == load_preset("cifar10-resnet20").views


def test_jitter_strength_overrides_the_preset_and_a_range_overrides_it():
    config, _ = parse_run(["--hue", "-0.01", "0.02", "--jitter-strength", "1"])
    assert config == replace(load_preset("shapes"), **{**scale_jitter(1.0), "hue": (-0.01, 0.02)})


def test_epochs_that_are_asked_for_are_not_overruled_by_the_steps_of_a_preset(monkeypatch):
    short = replace(Config(), preset="short", steps=50, epochs=3)
    monkeypatch.setitem(PRESETS, "short", lambda: short)
    assert parse_run(["--preset", "short"])[0].train.steps == 50
    assert parse_run(["--preset", "short", "--epochs", "9"])[0] == replace(short, epochs=9, steps=None)
    assert parse_run(["--preset", "short", "--epochs", "9", "--steps", "8"])[0] == replace(short, epochs=9, steps=8)


# Options that are not settings


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
    assert str(choose_default_out(replace(Config(), dataset="folder:猫"))) == "runs/folder-猫"


def test_the_run_folder_of_the_folder_itself_has_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Test --dataset folder:. and similar names. The folder of the run must be called like the folder of the images."""
    (tmp_path / "my pets/cats").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "my pets/cats")
    for place, name in ((".", "cats"), ("..", "my-pets"), ("./", "cats")):
        assert str(choose_default_out(replace(Config(), dataset=f"folder:{place}"))) == f"runs/folder-{name}"


# Command lines that are refused


@pytest.mark.parametrize(
    ("argv", "fragments"),
    [
        (["--tempereture", "0.5"], ["Unknown argument --tempereture", "Did you mean --temperature?"]),
        (["--batchsize=8"], ["Unknown argument --batchsize.", "Did you mean --batch-size?"]),
        (["--no-clipp"], ["Did you mean --no-clip?"]),
        (["--temp", "0.5"], ["Unknown argument --temp"]),
        (["--qqqqqq"], ["Unknown argument --qqqqqq. Run --help to list"]),
        (["runs/shapes"], ["Unknown argument runs/shapes"]),
        (["--preset", "cifar10"], ["--preset 'cifar10'", "Did you mean cifar10-resnet"]),
        (["--dataset", "cifar"], ["--dataset 'cifar'", "Did you mean cifar10?", "Known names: shapes, cifar10"]),
        (["--encoder", "resnet-50"], ["--encoder 'resnet-50'", "Did you mean resnet50?"]),
        (["--optimizer", "adam"], ["--optimizer 'adam'", "Known names: adamw, lamb, lars, sgd"]),
        (["--precision", "half"], ["--precision 'half'", "Known names: auto, float32, bfloat16, float16"]),
        (["--weights", "imagnet"], ["--weights 'imagnet'", "Did you mean imagenet?"]),
        (["--weights", "imagenet"], ["--encoder resnet50", "resnet20"]),
        (["--batch-size", "-3"], ["--batch-size is -3. It must be a whole number of at least 2."]),
        (["--batch-size", "many"], ["--batch-size", "'many' is not a whole number"]),
        (["--learning-rate", "0"], ["--learning-rate is 0.0. It must be a number above 0."]),
        (["--learning-rate", "nan"], ["--learning-rate is nan. It must be a number above 0."]),
        (["--learning-rate", "inf"], ["--learning-rate is inf. It must be a number above 0."]),
        (["--learning-rate", "fast"], ["--learning-rate", "'fast' is not a number"]),
        (["--momentum", "1"], ["--momentum is 1.0. It must be a number of at least 0 and below 1."]),
        (["--temperature", "20"], ["--temperature is 20.0. It must be a number of at least 0.001 and at most 10."]),
        (["--temperature", "0.0001"], ["--temperature is 0.0001"]),
        (["--crop-area", "1", "0.2"], ["--crop-area is 1.0 0.2", "low and then high"]),
        (["--crop-area", "0", "1"], ["--crop-area is 0.0 1.0", "each above 0 and at most 1"]),
        (["--hue", "0.1"], ["--hue", "expected 2 arguments"]),
        (["--hue", "-0.6", "0.1"], ["--hue is -0.6 0.1", "each at least -0.5 and at most 0.5"]),
        (["--steps", "0"], ["--steps is 0. It must be a whole number of at least 1."]),
        (["--seed", "-1"], ["--seed is -1"]),
        (["--seed", "1" + "0" * 400], ["--seed is 1000", "at most 18446744073709551615"]),
        (
            ["--projection-widths", "256", "0"],
            ["--projection-widths is 256 0", "one or more whole numbers, each at"],
        ),
        (["--input-mean", "0.5"], ["--input-mean is 0.5 and --input-std is none. Give both"]),
        (
            ["--epochs", "2", "--warmup-epochs", "3"],
            ["--warmup-epochs (3.0) is larger than --epochs (2). Use 2 or less."],
        ),
        (["--jitter-strength", "3"], ["--jitter-strength is 3.0. It must be between 0 and 2.5."]),
    ],
)
def test_what_cannot_be_is_refused_in_one_sentence_with_value_and_remedy(capsys, argv, fragments):
    sentence = parse_refused(capsys, *argv)
    for fragment in fragments:
        assert fragment in sentence


def test_other_programs_get_the_same_errors(capsys):
    parser = FlagParser(prog="evaluate")
    parser.add_argument("--protocol")
    assert parser.parse_strictly(["--protocol", "knn"]).protocol == "knn"
    with pytest.raises(SystemExit) as ended:
        parser.parse_strictly(["--protocoll", "knn"])
    sentence = "evaluate: error: Unknown argument --protocoll. Did you mean --protocol?\n"
    assert ended.value.code == 2 and capsys.readouterr().err == sentence


def test_views_that_grow_end_with_the_size_of_the_evaluation() -> None:
    config, _ = parse_run(["--image-sizes", "16:0.3", "20:0.4", "24:0.3"])
    assert config.model.image_size == 24 and config.model.image_sizes == ("16:0.3", "20:0.4", "24:0.3")
    assert parse_run(["--image-sizes", "16:0.3,20:0.4,24:0.3"])[0] == config
    again = override_settings(config, {"image_size": 28})
    assert again.model.image_sizes is None and again.model.image_size == 28


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--budget", "10m", "--steps", "5"], "--budget is 10m and --steps is 5. Give only one of them"),
        (["--budget", "10m", "--epochs", "5"], "--budget is 10m and --epochs is 5. Give only one of them"),
        (["--budget", "10"], "--budget is 10. Give a time above 0 with its unit, such as 90s, 10m or 1.5h."),
        (["--image-sizes", "16:0.3"], "The shares of --image-sizes add up to 0.3. They must add up to 1."),
    ],
)
def test_a_budget_that_makes_no_sense_is_refused(
    flags: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        parse_run(flags)
    assert ended.value.code == 2 and message in capsys.readouterr().err


def test_a_budget_replaces_the_steps_of_an_earlier_run_and_steps_replace_its_budget() -> None:
    earlier = replace(Config(), budget="10m", steps=500, pairs_per_second=100.0)
    assert override_settings(earlier, {}) == earlier
    other = override_settings(earlier, {"budget": "5m"}).train
    assert (other.budget, other.steps, other.pairs_per_second) == ("5m", None, None)
    assert override_settings(earlier, {"steps": 7}).train.budget is None
