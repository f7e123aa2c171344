"""Tests `import lowlevel_simclr`: which names it offers, and that it does not load TensorFlow before it is needed."""

from __future__ import annotations

import pydoc
import resource
import subprocess
import sys

import pytest

import lowlevel_simclr as ls
from lowlevel_simclr import __main__ as console
from tests.support.other_process import ROOT, output_of

LOADED = "print('tensorflow' in sys.modules)"
PROGRAMS = ("train", "evaluate", "embed", "report", "export", "check")


def test_the_package_its_names_and_signatures_need_no_tensorflow() -> None:
    program = "import sys, inspect, lowlevel_simclr as ls; dir(ls); inspect.signature(ls.train); ls.Run('x'); "
    program += "inspect.signature(ls.evaluate), inspect.signature(ls.embed), ls.ViewRecipe(), ls.ConfigError; "
    assert output_of(program + LOADED) == "False"


@pytest.mark.parametrize("flag", ["--help", "--version"])
@pytest.mark.parametrize("program", PROGRAMS)
def test_a_program_answers_without_tensorflow(program: str, flag: str) -> None:
    text = f"import sys, atexit; atexit.register(lambda: {LOADED}); from lowlevel_simclr import {program}; "
    said = output_of(text + f"{program}.main(['{flag}'])").splitlines()
    assert said[-1] == "False"
    assert said[0] == f"lowlevel_simclr {ls.__version__}" if flag == "--version" else "usage:" in said[0]


def test_help_takes_less_than_half_a_second_of_processor_time() -> None:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    command = [sys.executable, "-m", "lowlevel_simclr", "train", "--help"]
    said = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert "usage: lowlevel-simclr train [flags]" in said
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 0.5


def test_dir_and_help_show_the_functions() -> None:
    assert {*ls.PUBLIC, "__version__"} <= {*dir(ls)}
    shown = pydoc.plain(pydoc.render_doc(ls.train))
    assert "train(dataset" in shown and "Train an encoder with SimCLR" in shown
    assert "__wrapped__" not in shown and "DATA" in shown
    assert "temperature" in pydoc.plain(pydoc.render_doc(ls.NTXent))
    with pytest.raises(AttributeError, match="no attribute 'trane'"):
        ls.trane  # noqa: B018


def test_the_type_checkers_names_are_those_that_are_loaded() -> None:
    import ast
    from pathlib import Path

    tree = ast.parse(Path(ls.__file__).read_text())
    block = next(node for node in tree.body if isinstance(node, ast.If))
    named = {
        alias.asname: node.module for node in block.body if isinstance(node, ast.ImportFrom) for alias in node.names
    }
    assert named.keys() == ls.PUBLIC.keys()
    assert (Path(ls.__file__).parent / "py.typed").exists()


def test_one_command_runs_every_program(capsys: pytest.CaptureFixture[str]) -> None:
    assert tuple(console.PROGRAMS) == PROGRAMS
    for program in PROGRAMS:
        with pytest.raises(SystemExit) as ended:
            console.main([program, "--version"])
        assert ended.value.code == 0
    assert console.main(["evaluate", "nowhere"]) == 1
    assert "nowhere is not a run folder" in capsys.readouterr().err
    with pytest.raises(SystemExit) as ended:
        console.main(["trane"])
    assert ended.value.code == 2 and "train" in capsys.readouterr().err
