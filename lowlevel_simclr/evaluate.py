"""python -m lowlevel_simclr.evaluate RUN: evaluates the encoder of a run by the usual protocols.

A protocol is a way to measure how good the representation is, such as k-NN. EPILOG lists the protocols. Everything is
computed in float32, even if the run was trained in another precision.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from lowlevel_simclr.api.callable_module import make_callable
from lowlevel_simclr.api.evaluation import PROTOCOLS, EvaluationSettings, evaluate
from lowlevel_simclr.api.program import FlagParser, run_program

__all__ = ["evaluate", "main"]

DESCRIPTION = "Evaluate the encoder of a run by the usual protocols. Results are added to evaluation.json."
EPILOG = """\
protocols:
  knn               k-NN weighted by cosine similarity, k = 20 and 200, on the frozen representation (h)
  linear            logistic regression on frozen h (L-BFGS)
  linear-augmented  linear classifier on frozen h of random crops and flips, --probe-passes passes (AdamW)
  finetune          encoder and linear classifier together, on --label-fraction of every class (SGD)

examples:
  python -m lowlevel_simclr.evaluate runs/shapes
  python -m lowlevel_simclr.evaluate runs/shapes --protocol knn,linear,finetune --label-fraction 0.01,0.1,1 --seeds 3"""


def main(argv: Sequence[str] | None = None, prog: str = "python -m lowlevel_simclr.evaluate") -> int:
    """Evaluate a run, add the results to evaluation.json, and print them. Return the exit code."""
    given = vars(build_parser(prog).parse_strictly(sys.argv[1:] if argv is None else argv))
    folder, data_dir, out, debug = (given.pop(name) for name in ("run", "data_dir", "out", "debug"))

    def work() -> int:
        from lowlevel_simclr.api.subject import print_evaluation  # here, so that --help does not import TensorFlow

        print_evaluation(folder, EvaluationSettings(**given), data_dir, out)
        return 0

    return run_program(work, "evaluating the run", debug)


def build_parser(prog: str) -> FlagParser:
    """Return the parser of the command.

    Args:
        prog: how the program is called, for `--help` and errors.
    """
    usage = "%(prog)s RUN [flags]"
    parser = FlagParser(prog=prog, description=DESCRIPTION, epilog=EPILOG, usage=usage)
    parser.add_argument("run", metavar="RUN", type=Path, help="the folder that training wrote")
    parser.add_argument("--data-dir", metavar="DIR", help="the folder of the data set now (default: as in training)")
    parser.add_argument(
        "--out", metavar="FILE", type=Path, help="a JSON file for the results (default: evaluation.json)"
    )
    for flag, kind, metavar, text in (
        ("--protocol", _read_protocols, "A,B", "protocols to run"),
        ("--label-fraction", _read_fractions, "X,Y", "shares of the labels that fine-tuning uses"),
        ("--seeds", _read_count, "K", "number of seeds for labels, order and views"),
        ("--finetune-steps", _read_count, "N", "fine-tuning steps, for every share of the labels"),
        ("--finetune-batch-size", _read_count, "N", "images per fine-tuning step"),
        ("--finetune-learning-rate", _read_positive, "X", "initial learning rate of fine-tuning"),
        ("--probe-passes", _read_count, "N", "passes of linear-augmented over the train split"),
    ):
        default = getattr(EvaluationSettings, flag.removeprefix("--").replace("-", "_"))
        shown = ",".join(f"{part}" for part in default) if isinstance(default, tuple) else default
        parser.add_argument(flag, type=kind, default=default, metavar=metavar, help=f"{text} (default: {shown})")
    return parser


def _read_protocols(text: str) -> tuple[str, ...]:
    names = tuple(text.split(","))
    unknown = [name for name in names if name not in PROTOCOLS]
    if unknown:
        raise argparse.ArgumentTypeError(f"There is no protocol '{unknown[0]}'. Known names: {', '.join(PROTOCOLS)}.")
    return names


def _read_fractions(text: str) -> tuple[float, ...]:
    return tuple(
        _read_number(part, lambda value: 0 < value <= 1, "a number above 0 and at most 1") for part in text.split(",")
    )


def _read_positive(text: str) -> float:
    return _read_number(text, lambda value: 0 < value < float("inf"), "a number above 0")


def _read_count(text: str) -> int:
    value = _read_number(text, lambda value: value >= 1 and value == int(value), "a whole number of at least 1")
    return int(value)


def _read_number(text: str, right: Callable[[float], bool], wanted: str) -> float:
    """Return the number in a text.

    Raises:
        argparse.ArgumentTypeError: if it is not a number, or `right` rejects it.
    """
    try:
        value = float(text)
        if right(value):
            return value
    except (ValueError, OverflowError):
        pass
    raise argparse.ArgumentTypeError(f"The value is '{text}'. It must be {wanted}.")


if __name__ == "__main__":
    sys.exit(main())
make_callable(__name__, evaluate)
