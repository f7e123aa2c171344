"""The command line of a run: every field of the configuration is a flag, over the values of a preset."""

from __future__ import annotations

import argparse
import dataclasses
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

import lowlevel_simclr
from lowlevel_simclr.config.fields import Field, format_value, get_value, list_fields
from lowlevel_simclr.config.identity import replace
from lowlevel_simclr.config.other_names import suggest_name
from lowlevel_simclr.config.presets import PRESETS, scale_jitter
from lowlevel_simclr.config.settings import CAFFE, SECTIONS, Config, ConfigError
from lowlevel_simclr.config.starting_point import choose_starting_point
from lowlevel_simclr.config.validation import validate


@dataclasses.dataclass(frozen=True)
class RunOptions:
    """What belongs to one call of the command and not to the run.

    out: the run folder. fresh: start over beside a run that is there. preview: only draw the picture of
    views. profile: record the second host call.
    """

    out: Path
    fresh: bool = False
    preview: bool = False
    profile: bool = False


def choose_default_out(config: Config) -> Path:
    """The run folder where none is asked for: runs/PRESET, with the seed behind it where that is not 0.

    A data set other than the preset's own gives its name in place of the preset's.
    """
    named = config.preset in PRESETS and PRESETS[config.preset]().data.dataset == config.data.dataset
    name = config.preset if named else config.data.dataset
    name = re.sub(r"[^A-Za-z0-9_.-]+", "-", name)
    return Path("runs") / (f"{name}-seed{config.train.seed}" if config.train.seed else name)


class _HelpFormatter(argparse.RawDescriptionHelpFormatter):
    """Lines as written, and room for the longest flags."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=30)


class FlagParser(argparse.ArgumentParser):
    """An argument parser whose errors are one sentence and name the nearest flag to one it does not know."""

    def __init__(self, **options: Any) -> None:
        """As `argparse.ArgumentParser`, without abbreviated flags and with its text left as it is written."""
        options = {
            "allow_abbrev": False,
            "formatter_class": _HelpFormatter,
            "usage": "%(prog)s [flags]",
            **options,
        }
        super().__init__(**options)
        if options.get("add_help", True):
            version = f"lowlevel_simclr {lowlevel_simclr.__version__}"
            self.add_argument("--version", action="version", version=version, help="print the version and stop")

    def error(self, message: str) -> NoReturn:
        """Ends the program with exit code 2."""
        self.exit(2, f"{self.prog}: error: {message}\n")

    def parse_strictly(self, argv: Sequence[str]) -> argparse.Namespace:
        """The flags of a command line; an unknown one ends the program."""
        known, extra = self.parse_known_args(argv)
        if extra:
            word = next((word for word in extra if word.startswith("-")), extra[0]).split("=")[0]
            # The parser's own table of flags: argparse offers no public one.
            flags = [flag for flag in self._option_string_actions if flag.startswith("--")]
            self.error(f"unknown argument {word}{suggest_name(word, flags) or ': --help lists what there is'}")
        return known


def _make_reader(field: Field) -> Callable[[str], Any]:
    """Text -> one value of the field's type."""
    noun = "whole number" if field.item is int else "number"

    def read(text: str) -> Any:
        try:
            return field.item(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"'{text}' is not a {noun}") from None

    return read


def _format_default(value: Any) -> str:
    """A default for `--help`: yes or no, and floats to six digits."""
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
    """One setting as one flag; what is not given stays None, so that the preset's value stands."""
    text = f"{field.rule['help']} (default: {_format_default(default)})".replace("%", "%%")
    if field.item is bool:
        group.add_argument(field.flag, action=argparse.BooleanOptionalAction, default=None, help=text)
        return
    count = {1: None, 2: 2, 0: "+"}[field.length]
    group.add_argument(field.flag, type=_make_reader(field), nargs=count, metavar=_choose_metavar(field), help=text)


EXAMPLES = """\
examples:
  python -m lowlevel_simclr.train
      the embedded shapes: minutes on a CPU, nothing to download
  python -m lowlevel_simclr.train --seed 1 --temperature 0.5 --out runs/warm
      the same with another seed and temperature, in a folder of its own
  python -m lowlevel_simclr.train --dataset cifar10 --data-dir DIR
      CIFAR-10 from its standard batches; without --data-dir it is downloaded
  python -m lowlevel_simclr.train --dataset folder:PICTURES
      your own images: JPEG, PNG, WebP, BMP, in any tree of folders
  python -m lowlevel_simclr.train --preset cifar10-resnet20 --data-dir DIR --preview
      only the picture of what the views look like

The same command again resumes the run; --fresh starts over beside it."""


def _first_line(documented: object) -> str:
    return (documented.__doc__ or "").partition("\n")[0]


def _write_epilog() -> str:
    """The presets by the first line of their docstrings, then the examples."""
    lines = [f"  {name:<18}{_first_line(make)}" for name, make in PRESETS.items()]
    return "\n".join(["presets:", *lines, "", EXAMPLES])


def _build_parser(base: Config, description: str, prog: str) -> FlagParser:
    """Every flag, with the defaults of the preset in `base`."""
    parser = FlagParser(prog=prog, description=description, epilog=_write_epilog())
    run = parser.add_argument_group("run")
    start = f"where every setting starts (default: the data set's own, here {base.preset})"
    run.add_argument("--preset", metavar="NAME", help=start)
    run.add_argument("--config", metavar="FILE", type=Path, help="start from this config.json; flags beside it win")
    run.add_argument("--out", metavar="DIR", type=Path, help="the run folder (default: runs/PRESET)")
    run.add_argument("--fresh", action="store_true", help="start over in DIR-2, DIR-3 ... if DIR holds a run")
    run.add_argument("--preview", action="store_true", help="draw the picture of views, and stop")
    run.add_argument("--profile", action="store_true", help="trace the second host call, and print where it goes")
    for section, kind in SECTIONS.items():
        group = parser.add_argument_group(section, _first_line(kind))
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
    """The preset that a command line names, or else the one of its data set."""
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
    """The flags that were given, over the preset; single ranges win over --jitter-strength."""
    values = {name: value for name, value in given.items() if name in list_fields()}
    if given.get("jitter_strength") is not None:
        values = {**scale_jitter(given["jitter_strength"]), **values}
    if "epochs" in values and "steps" not in values:
        values["steps"] = None  # a preset's steps must not overrule the epochs that were asked for
    config = replace(base, **values)
    if values.get("weights") == "imagenet" and config.model.input_mean is None and config.model.input_std is None:
        config = replace(config, **CAFFE)  # what these weights were trained on
    validate(config)
    return config


def parse_run(
    argv: Sequence[str] | None = None, description: str = "", prog: str = "python -m lowlevel_simclr.train"
) -> tuple[Config, RunOptions]:
    """Command line -> what is run, and how this call runs it.

    The preset comes first (--preset, or the data set's own), flags override it. `--help` prints and ends the
    program; a flag or value that cannot be ends it with one sentence on stderr and exit code 2.

    Args:
        argv: the arguments; None takes the program's own.
        description: what the program does, for `--help`.
        prog: how the program is called, for `--help` and errors.
    """
    argv = sys.argv[1:] if argv is None else argv
    base = _find_starting_point(argv, prog)
    parser = _build_parser(base, description, prog)
    given = {name: value for name, value in vars(parser.parse_strictly(argv)).items() if value is not None}
    try:
        config = override_settings(base, given)
    except ConfigError as error:
        parser.error(str(error))
    return config, RunOptions(
        given.get("out", choose_default_out(config)), given["fresh"], given["preview"], given["profile"]
    )
