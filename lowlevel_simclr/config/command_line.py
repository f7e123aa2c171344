"""The command line of the training program. Every setting has a flag.

A flag overrides the value in the preset, which is a named set of settings.
"""

from __future__ import annotations

import argparse
import dataclasses
import re
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

import lowlevel_simclr
from lowlevel_simclr.config.fields import Field, format_value, get_value, list_fields
from lowlevel_simclr.config.identity import replace
from lowlevel_simclr.config.names import show_name
from lowlevel_simclr.config.other_names import suggest_name
from lowlevel_simclr.config.presets import PRESETS, scale_jitter
from lowlevel_simclr.config.settings import CAFFE, SECTIONS, Config, ConfigError
from lowlevel_simclr.config.starting_point import choose_starting_point
from lowlevel_simclr.config.validation import validate
from lowlevel_simclr.config.view_sizes import parse_view_sizes


@dataclasses.dataclass(frozen=True)
class RunOptions:
    """The options of one start of the program. They are not settings of the run.

    Attributes:
        out: the run folder.
        fresh: whether to start a new run in another folder if `out` already holds a run.
        preview: whether to draw the picture of some views and stop, without training.
        profile: whether to record a profile of some training steps.
        debug: whether to show the traceback of an error.
        started: the value of `time.monotonic` when the program began. A budget counts from this time.
        given: the settings that the user gave. None: the user gave a preset or a file of settings. Otherwise the
            program may choose settings that are not in `given`, for example for a folder of images.
        hosts: "host:port" of each worker (process of the run) by rank, separated by commas. None: the environment names
            the workers.
        rank: the rank of this worker in `hosts`.
    """

    out: Path
    fresh: bool = False
    preview: bool = False
    profile: bool = False
    debug: bool = False
    given: Mapping[str, Any] | None = None
    hosts: str | None = None
    rank: int | None = None
    started: float = dataclasses.field(default_factory=time.monotonic)


def choose_default_out(config: Config) -> Path:
    """Return the run folder to use if the user gives none: runs/PRESET, with the seed appended if it is not 0.

    If the user chose another data set than the preset's own, the name of the data set is used instead of PRESET. If the
    data set is a folder such as . or .., the real name of the folder is used.
    """
    named = config.preset in PRESETS and PRESETS[config.preset]().data.dataset == config.data.dataset
    name = config.preset if named else config.data.dataset
    form, _, place = name.partition(":")
    if place and not re.search(r"\w", place):
        name = f"{form}:{Path(place).resolve().name}"
    name = re.sub(r"[^\w.-]+", "-", name)
    return Path("runs") / (f"{name}-seed{config.train.seed}" if config.train.seed else name)


class _HelpFormatter(argparse.RawDescriptionHelpFormatter):
    """A help formatter that keeps the line breaks of description and epilog, and leaves room for the longest flags."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=30)


class FlagParser(argparse.ArgumentParser):
    """An argument parser that prints errors as one sentence. For an unknown flag, it suggests the nearest flag."""

    def __init__(self, **options: Any) -> None:
        """Take the options of `argparse.ArgumentParser`. Flags cannot be abbreviated."""
        options = {
            "allow_abbrev": False,
            "formatter_class": _HelpFormatter,
            "usage": "%(prog)s [flags]",
            **options,
        }
        super().__init__(**options)
        if options.get("add_help", True):
            version = f"lowlevel_simclr {lowlevel_simclr.__version__}"
            self.add_argument("--debug", action="store_true", help="show the traceback of an error")
            self.add_argument("--version", action="version", version=version, help="print the version and stop")

    def error(self, message: str) -> NoReturn:
        """Print the message and end the program with exit code 2."""
        self.exit(2, f"{self.prog}: error: {show_name(message)}\n")

    def parse_strictly(self, argv: Sequence[str]) -> argparse.Namespace:
        """Parse the flags of a command line. An unknown flag ends the program."""
        known, extra = self.parse_known_args(argv)
        if extra:
            word = next((word for word in extra if word.startswith("-")), extra[0]).split("=")[0]
            # A private attribute of argparse, which has no public list of the flags.
            flags = [flag for flag in self._option_string_actions if flag.startswith("--")]
            self.error(f"Unknown argument {word}.{suggest_name(word, flags) or ' Run --help to list all flags.'}")
        return known


def _make_reader(field: Field) -> Callable[[str], Any]:
    """Return a function that converts text to one value of the field's type."""
    noun = "whole number" if field.item is int else "number"

    def read(text: str) -> Any:
        try:
            return field.item(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"'{text}' is not a {noun}") from None

    return read


def _format_default(value: Any) -> str:
    """Format a default for `--help`: yes or no for booleans, six digits for floats."""
    if isinstance(value, tuple):
        return " ".join(_format_default(part) for part in value)
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:.6g}" if isinstance(value, float) else format_value(value)


def _choose_metavar(field: Field) -> str | tuple[str, ...]:
    if field.length == 2:
        return ("LOW", "HIGH")
    if "choices" in field.rule:
        return "{" + ",".join(field.rule["choices"]) + "}"
    return field.rule.get("metavar", "N" if field.item is int else "X")


def _add_flag(group: argparse._ArgumentGroup, field: Field, default: Any) -> None:
    """Add a setting as a flag. If the user does not give the flag, the program uses the preset's value."""
    text = f"{field.rule['help']} (default: {_format_default(default)})".replace("%", "%%")
    if field.item is bool:
        group.add_argument(field.flag, action=argparse.BooleanOptionalAction, default=None, help=text)
        return
    count = {1: None, 2: 2, 0: "+"}[field.length]
    group.add_argument(field.flag, type=_make_reader(field), nargs=count, metavar=_choose_metavar(field), help=text)


EXAMPLES = """\
examples:
  python -m lowlevel_simclr.train
      the built-in shapes: minutes on a CPU, nothing to download
  python -m lowlevel_simclr.train --seed 1 --temperature 0.5 --out runs/warm
      the same with another seed and another temperature, in another run folder
  python -m lowlevel_simclr.train --dataset cifar10 --data-dir DIR
      CIFAR-10 from its standard batches; without --data-dir it is downloaded
  python -m lowlevel_simclr.train --dataset folder:PICTURES
      your own images: JPEG, PNG, WebP, TIFF and others, in any tree of folders
  python -m lowlevel_simclr.train --preset cifar10-resnet20 --data-dir DIR --preview
      draws a picture of some views, and does not train

Run the same command again to resume the run. With --fresh, it starts a new run in another folder."""


def _take_first_line(documented: object) -> str:
    return (documented.__doc__ or "").partition("\n")[0]


def _write_epilog() -> str:
    """Return the presets with the first lines of their docstrings, and the examples."""
    lines = [f"  {name:<18}{_take_first_line(make)}" for name, make in PRESETS.items()]
    return "\n".join(["presets:", *lines, "", EXAMPLES])


def build_run_parser(base: Config, description: str, prog: str) -> FlagParser:
    """Return a parser of all flags of a run. Its help shows the values of `base` as defaults.

    Args:
        base: the settings that the flags change.
        description: what the program does, for `--help`.
        prog: how the program is called, for `--help` and errors.
    """
    parser = FlagParser(prog=prog, description=description, epilog=_write_epilog())
    run = parser.add_argument_group("run")
    start = f"the preset that the settings start from (default: that of the data set, here {base.preset})"
    run.add_argument("--preset", metavar="NAME", help=start)
    run.add_argument("--config", metavar="FILE", type=Path, help="start from this config.json; flags override it")
    run.add_argument("--out", metavar="DIR", type=Path, help="the run folder (default: runs/PRESET)")
    run.add_argument("--fresh", action="store_true", help="start a new run in DIR-2, DIR-3 ... if DIR holds a run")
    run.add_argument("--preview", action="store_true", help="draw the picture of views, and stop")
    run.add_argument("--profile", action="store_true", help="profile some steps, and print where the time goes")
    run.add_argument("--hosts", metavar="A:P,B:P", help="host:port of each worker (default: from TF_CONFIG or Slurm)")
    run.add_argument("--rank", metavar="I", type=int, help="the place of this worker in --hosts, from 0")
    for section, kind in SECTIONS.items():
        group = parser.add_argument_group(section, _take_first_line(kind))
        if section == "views":
            group.add_argument(
                "--jitter-strength",
                type=float,
                metavar="S",
                help="sets brightness, contrast and saturation to 1 +- 0.8 S, hue to +- 0.2 S",
            )
        for field in list_fields().values():
            if field.section == section:
                _add_flag(group, field, get_value(base, field))
    return parser


def _find_starting_point(argv: Sequence[str], prog: str) -> Config:
    """Return the settings to start from: the preset or file that the command line names, or its data set's preset."""
    first = FlagParser(prog=prog, add_help=False)
    first.add_argument("--preset")
    first.add_argument("--config", type=Path)
    first.add_argument("--dataset")
    known, _ = first.parse_known_args(argv)
    try:
        return choose_starting_point(known.preset, known.dataset, known.config)
    except ConfigError as error:
        first.error(str(error))


def override_settings(base: Config, given: Mapping[str, Any]) -> Config:
    """Return the settings `base` with those in `given` changed, and check the result.

    --jitter-strength sets four ranges. A range in `given` overrides it.
    """
    values = {name: value for name, value in given.items() if name in list_fields()}
    if given.get("jitter_strength") is not None:
        values = {**scale_jitter(given["jitter_strength"]), **values}
    if "epochs" in values and "steps" not in values:
        values["steps"] = None  # a preset's steps must not override the epochs that were given
    values = _settle_budget(values)
    config = replace(base, **values)
    if values.get("weights") == "imagenet" and config.model.input_mean is None and config.model.input_std is None:
        config = replace(config, **CAFFE)  # the scaling of the pixels with which these weights were trained
    validate(config)
    return config


def _settle_budget(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the given settings, and further settings that follow from them.

    A budget sets the number of steps to None, and a number of steps or epochs sets the budget to None. `image_sizes`
    also sets `image_size`, and `image_size` alone sets `image_sizes` to None.

    Raises:
        ConfigError: if both a budget and a number of steps or epochs are given.
    """
    settled = dict(values)
    if settled.get("image_sizes") is not None:
        settled["image_sizes"] = tuple(",".join(settled["image_sizes"]).split(","))
        settled.setdefault("image_size", parse_view_sizes(settled["image_sizes"])[-1].side)
    elif "image_size" in settled:
        settled.setdefault("image_sizes", None)
    length = next((name for name in ("steps", "epochs") if settled.get(name) is not None), None)
    if settled.get("budget") is None:
        return {**settled, "budget": None} if length else settled
    if length:
        raise ConfigError(
            f"--budget is {settled['budget']} and --{length} is {settled[length]}. Give only one of them: a budget "
            "chooses the number of steps."
        )
    return {"pairs_per_second": None, **settled, "steps": None}


def parse_run(
    argv: Sequence[str] | None = None, description: str = "", prog: str = "python -m lowlevel_simclr.train"
) -> tuple[Config, RunOptions]:
    """Parse the command line of a run.

    The settings start from --preset, --config or the preset of the data set, and flags override them. `--help` prints
    the help and ends the program. An invalid flag or value ends the program with a message on stderr and exit code 2.

    Args:
        argv: the arguments. None means the arguments of the program.
        description: what the program does, for `--help`.
        prog: how the program is called, for `--help` and errors.

    Returns:
        The configuration of the run, and the options of this call.
    """
    argv = sys.argv[1:] if argv is None else argv
    base = _find_starting_point(argv, prog)
    parser = build_run_parser(base, description, prog)
    given = {name: value for name, value in vars(parser.parse_strictly(argv)).items() if value is not None}
    try:
        config = override_settings(base, given)
    except ConfigError as error:
        parser.error(str(error))
    return config, RunOptions(
        given.get("out", choose_default_out(config)),
        given["fresh"],
        given["preview"],
        given["profile"],
        given["debug"],
        None if {"preset", "config"} & given.keys() else given,
        given.get("hosts"),
        given.get("rank"),
    )
