"""Writes a shell script with which a shell completes programs, flags, names and files when the user presses Tab.

The package shtab writes the script from the argument parsers. The script itself does not start Python. The package
argcomplete is not used, because it starts the program at every Tab, which takes half a second.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping

import shtab

from lowlevel_simclr.config.choices import PROTOCOLS
from lowlevel_simclr.config.command_line import FlagParser
from lowlevel_simclr.config.fields import list_fields
from lowlevel_simclr.config.presets import PRESETS

SHELLS = tuple(shtab.SUPPORTED_SHELLS)
FLAG = "--print-completion"
# For a flag's metavar (its placeholder in the help): what the shell completes.
_PATHS = {"DIR": shtab.DIRECTORY, "RUN": shtab.DIRECTORY, "FILE": shtab.FILE, "FILE.npz": shtab.FILE}
_PATHS |= {"IMAGES": shtab.FILE, "FOLDER": shtab.DIRECTORY}


def write_completion(shell: str, prog: str, programs: Mapping[str, FlagParser]) -> str:
    """Return the completion script of a command with several programs.

    Args:
        shell: one of `SHELLS`.
        prog: the name of the command.
        programs: the parser of each program, by the program's name. The function changes the parsers, so do not parse
            with them afterwards.
    """
    command = FlagParser(prog=prog, add_help=False)
    command.add_argument(FLAG, choices=SHELLS)
    commands = command.add_subparsers()
    for name, parser in programs.items():
        for action in parser._actions:  # argparse has no public list of its actions
            _complete(action)
        commands.add_parser(name, parents=[parser], add_help=False, help=parser.description)
    return shtab.complete(command, shell)


def _complete(action: argparse.Action) -> None:
    """Tell shtab which names or paths an action can take. An action is argparse's object for one flag."""
    names = _list_names().get(action.dest)
    if names is not None:
        action.choices = names
    elif isinstance(action.metavar, str) and action.metavar in _PATHS:
        vars(action)["complete"] = _PATHS[action.metavar]  # the attribute that shtab reads


def _list_names() -> dict[str, tuple[str, ...]]:
    """Return a dict from the destination of a flag to the names that the flag can take."""
    names = {field.name: tuple(field.rule["choices"]) for field in list_fields().values() if "choices" in field.rule}
    return {**names, "preset": tuple(PRESETS), "protocol": PROTOCOLS}
