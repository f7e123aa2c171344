"""The settings of a run with --budget. They follow from the speed that this machine shows in the first seconds."""

from __future__ import annotations

from lowlevel_simclr.config import recipes
from lowlevel_simclr.config.budget import parse_budget
from lowlevel_simclr.config.command_line import RunOptions
from lowlevel_simclr.config.identity import replace
from lowlevel_simclr.config.settings import Config, ConfigError
from lowlevel_simclr.config.validation import restore_config
from lowlevel_simclr.config.view_sizes import compare_cost
from lowlevel_simclr.data.dataset import DataSet
from lowlevel_simclr.run.results import read_config
from lowlevel_simclr.runtime.devices import has_gpu
from lowlevel_simclr.runtime.signals import tell_stage
from lowlevel_simclr.training.budget_course import Left, estimate_last_step, read_clock
from lowlevel_simclr.training.plan import Plan, list_view_sizes, make_plan
from lowlevel_simclr.training.trial import Speed, measure_speed
from lowlevel_simclr.training.workers import Team

LEAST_STEPS = 10  # a budget that allows fewer is refused


def needs_choice(config: Config) -> bool:
    """Return whether the settings of a budget are still to be chosen. If the steps are set, they were chosen before."""
    return config.train.budget is not None and config.train.steps is None


def keep_earlier_choice(config: Config, options: RunOptions) -> Config:
    """Return the configuration with what an earlier session of the run chose, if there is one with the same budget.

    In that case, nothing is measured again. Settings that the user gives now stay, so that a difference is refused as
    usual.

    Args:
        config: the configuration that the user gave.
        options: the run folder, and the settings that the user gave.

    Raises:
        RunError: if config.json is not JSON.
        ConfigError: if config.json is not a configuration of this version.
    """
    if not needs_choice(config) or options.fresh or not (options.out / "config.json").is_file():
        return config
    earlier = restore_config(read_config(options.out))
    if earlier.train.budget != config.train.budget or needs_choice(earlier):
        return config
    return _take_choice(config, earlier, options)


def _take_choice(config: Config, earlier: Config, options: RunOptions) -> Config:
    """Return the configuration with the chosen settings of an earlier one, apart from those that the user gave."""
    names = {"steps", "pairs_per_second"}
    if options.given is not None:
        names |= recipes.CHOSEN - options.given.keys()
    return replace(config, **{name: recipes.get_setting(earlier, name) for name in names})


def choose_for_budget(config: Config, options: RunOptions, team: Team, images: DataSet) -> Config:
    """Return the configuration of a run with a budget. Print the choice with its reason.

    Args:
        config: the configuration that the user gave, after `keep_earlier_choice`.
        options: when the program began, and the settings that the user gave.
        team: the replicas.
        images: the data set of the run.

    Raises:
        ConfigError: if there are several replicas, if the budget allows too few steps, or if a setting that the user
            gave does not fit the choice.
        DataError: if there are fewer images than a batch holds.
    """
    if config.train.budget is None:
        return config
    if team.count > 1:
        raise ConfigError(
            f"--budget works with one replica, but there are {team.count}. Use --devices 1, or --steps instead."
        )
    if not needs_choice(config):
        return config
    return _choose(config, options, images)


def _choose(config: Config, options: RunOptions, images: DataSet) -> Config:
    given, gpu = options.given, has_gpu()
    base = recipes.choose_base(replace(config, steps=1), given, gpu)
    speed = _find_speed(base, images)
    seconds = parse_budget(config.train.budget or "") - (read_clock() - options.started)
    chosen, why = recipes.choose_recipe(base, given, max(0.0, seconds) * speed.pairs_per_second, gpu)
    chosen = replace(chosen, pairs_per_second=_scale_speed(speed, base, chosen))
    plan = make_plan(chosen, images)
    steps = _count_steps(plan, seconds, speed.compile_seconds)
    if steps < LEAST_STEPS:
        raise ConfigError(
            f"--budget is {config.train.budget}, but after the start {max(0.0, seconds):.1f} s are left, which is less "
            f"than {LEAST_STEPS} steps. Use a longer budget, or --steps."
        )
    chosen = recipes.choose_warmup(replace(chosen, steps=steps), given, steps, plan.steps_per_epoch)
    _print_choice(chosen, speed, why)
    return chosen


def _find_speed(base: Config, images: DataSet) -> Speed:
    """Return the speed that the user gave, or measure it."""
    if base.train.pairs_per_second is not None:
        return Speed(base.train.pairs_per_second, 0.0)
    tell_stage("measuring the speed")
    return measure_speed(make_plan(replace(base, pairs_per_second=1.0), images), images)


def _scale_speed(speed: Speed, base: Config, chosen: Config) -> float:
    """Return the expected speed at the image size that was chosen, in pairs a second."""
    return round(
        speed.pairs_per_second / compare_cost(chosen.model.image_size, base.model.image_size),
        3,
    )


def _count_steps(plan: Plan, seconds: float, compile_seconds: float) -> int:
    """Return the planned number of steps, or 0 if there is no time for any."""
    if seconds <= 0:
        return 0
    per_step = plan.batch_size / plan.pairs_per_second
    left = Left(seconds, 0, 0.0, per_step, plan.model.image_size, compile_seconds=compile_seconds)
    return estimate_last_step(left, plan.view_sizes)


def _print_choice(config: Config, speed: Speed, why: str) -> None:
    """Print what was chosen, and why."""
    train, model = config.train, config.model
    sides = " then ".join(str(size.side) for size in list_view_sizes(config))
    source = "measured here" if speed.compile_seconds else "given"
    print(
        f"budget               {train.budget}: about {train.steps} steps of {train.batch_size} images, because "
        f"{speed.pairs_per_second:.0f} pairs/s were {source}"
    )
    print(
        f"                     {model.encoder}, {model.stem} stem, views of {sides} pixels, "
        f"{config.optimizer.optimizer} {config.optimizer.learning_rate:g}, temperature {config.loss.temperature:g}, "
        f"crops from {config.views.crop_area[0]:g}"
    )
    print(f"                     because {why}")
    print("                     training follows the clock: the number of steps changes with the speed", flush=True)
