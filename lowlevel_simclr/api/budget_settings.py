"""Chooses the settings of a run with --budget (a time limit). The choice depends on the speed of this machine.

The speed is measured in the first seconds of the run.
"""

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

LEAST_STEPS = 10  # a budget that allows fewer steps raises an error


def needs_choice(config: Config) -> bool:
    """Return whether the run has a budget, but no settings were chosen for it yet (so it has no number of steps)."""
    return config.train.budget is not None and config.train.steps is None


def keep_earlier_choice(config: Config, options: RunOptions) -> Config:
    """Return the configuration with the settings that an earlier session of the run chose for the same budget.

    A session is one start of the program. If there is such a session, the speed is not measured again. Settings that
    the user gives now keep their values. If these differ from the values of the run, a later check raises an error, as
    for any run that is resumed. If there is no such session, `config` is returned unchanged.

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
    """Return `config` with the settings that `earlier` chose, apart from those that the user gave."""
    names = {"steps", "pairs_per_second"}
    if options.given is not None:
        names |= recipes.CHOSEN - options.given.keys()
    return replace(config, **{name: recipes.get_setting(earlier, name) for name in names})


def choose_for_budget(config: Config, options: RunOptions, team: Team, images: DataSet) -> Config:
    """Choose the settings of a run with a budget, and print them with the reason. Return the configuration.

    Args:
        config: the configuration that the user gave, after `keep_earlier_choice`.
        options: the time when the program began, and the settings that the user gave.
        team: the replicas of the run. A replica is a device that trains on its part of each batch.
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
    """Return the speed that the user gave. If the user gave none, measure it."""
    if base.train.pairs_per_second is not None:
        return Speed(base.train.pairs_per_second, 0.0)
    tell_stage("measuring the speed")
    return measure_speed(make_plan(replace(base, pairs_per_second=1.0), images), images)


def _scale_speed(speed: Speed, base: Config, chosen: Config) -> float:
    """Return the expected speed at the image size that was chosen, in pairs per second.

    A pair is both views (random crops) of one image.
    """
    return round(
        speed.pairs_per_second / compare_cost(chosen.model.image_size, base.model.image_size),
        3,
    )


def _count_steps(plan: Plan, seconds: float, compile_seconds: float) -> int:
    """Return the planned number of steps, or 0 if no time is left."""
    if seconds <= 0:
        return 0
    per_step = plan.batch_size / plan.pairs_per_second
    left = Left(seconds, 0, 0.0, per_step, plan.model.image_size, compile_seconds=compile_seconds)
    return estimate_last_step(left, plan.view_sizes)


def _print_choice(config: Config, speed: Speed, why: str) -> None:
    """Print the choice, and the reason."""
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
