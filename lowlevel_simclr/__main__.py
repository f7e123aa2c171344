"""The command `lowlevel-simclr PROGRAM`, or `python -m lowlevel_simclr PROGRAM`. It runs one of PROGRAMS."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence

from lowlevel_simclr.config.command_line import FlagParser

PROG = "lowlevel-simclr"
PROGRAMS = {
    "train": "pretrain an encoder without labels, and write one run folder",
    "evaluate": "evaluate the encoder of a run by the usual protocols",
    "embed": "write the representation of images",
    "report": "write a page about a run, or one that compares runs",
    "export": "write the encoder as files for other programs",
    "check": "check that the native ops compute correctly on this machine",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program that the first argument names. Return its exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if arguments and arguments[0] in PROGRAMS:
        program = importlib.import_module(f"lowlevel_simclr.{arguments[0]}")
        return program.main(arguments[1:], f"{PROG} {arguments[0]}")
    parser = FlagParser(
        prog=PROG,
        usage="%(prog)s {" + ",".join(PROGRAMS) + "} [flags]",
        description="SimCLR in TensorFlow with its own kernels.",
        epilog="\n".join(["programs:", *(f"  {name:<10}{text}" for name, text in PROGRAMS.items())]),
    )
    choices = parser.add_mutually_exclusive_group(required=True)
    choices.add_argument(
        "program", metavar="PROGRAM", nargs="?", choices=list(PROGRAMS), help="one of the programs below"
    )
    choices.add_argument(
        "--print-completion", metavar="SHELL", help="print the completion script of a shell: bash, zsh, fish, ..."
    )
    shell = parser.parse_strictly(arguments).print_completion
    if shell is None:
        raise AssertionError("the parser ends the program where no program is named")
    return _print_completion(parser, shell)


def _print_completion(parser: FlagParser, shell: str) -> int:
    """Print the completion script of a shell. Return the exit code."""
    from lowlevel_simclr.config.completion import SHELLS, write_completion  # here, because only this needs shtab

    if shell not in SHELLS:
        parser.error(f"There is no completion for the shell '{shell}'. Use one of: {', '.join(SHELLS)}.")
    modules = {name: importlib.import_module(f"lowlevel_simclr.{name}") for name in PROGRAMS}
    print(
        write_completion(shell, PROG, {name: module.build_parser(f"{PROG} {name}") for name, module in modules.items()})
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
