"""Tests the script with which bash completes the commands of this package: programs, flags, names and files."""

from __future__ import annotations

import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from lowlevel_simclr import __main__ as console
from lowlevel_simclr.config import completion
from tests.support.other_process import ROOT, output_of

COMPLETE = """
COMP_WORDS=({words})
COMP_CWORD=$(({count} - 1))
_shtab_lowlevel_simclr
echo "${{COMPREPLY[@]}}"
"""


@pytest.fixture(scope="module")
def script() -> str:
    command = [sys.executable, "-m", "lowlevel_simclr", "--print-completion", "bash"]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout


def complete(script: str, folder: Path, words: str) -> set[str]:
    """Return the words that bash offers in place of the last of `words`."""
    given = [*words.split(" ")]
    text = script + COMPLETE.format(words=shlex.join(given), count=len(given))
    said = subprocess.run(["bash", "-c", text], cwd=folder, capture_output=True, text=True, check=True)
    assert not said.stderr
    return set(said.stdout.split())


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        ("lowlevel-simclr ", set(console.PROGRAMS)),
        ("lowlevel-simclr --print", {"--print-completion"}),
        ("lowlevel-simclr --print-completion z", {"zsh"}),
        ("lowlevel-simclr train --temp", {"--temperature"}),
        ("lowlevel-simclr train --no-determ", {"--no-deterministic"}),
        ("lowlevel-simclr train --preset simclr", {"simclr-b9"}),
        ("lowlevel-simclr train --optimizer la", {"lamb", "lars"}),
        ("lowlevel-simclr train --config conf", {"config.json"}),
        ("lowlevel-simclr train --out r", {"runs"}),
        ("lowlevel-simclr evaluate r", {"runs"}),
        ("lowlevel-simclr evaluate runs --protocol fine", {"finetune"}),
        ("lowlevel-simclr embed runs one.png tw", {"two.png"}),
        ("lowlevel-simclr check --verb", {"--verbose"}),
    ],
)
def test_bash_completes(script: str, tmp_path: Path, words: str, offered: set[str]) -> None:
    (tmp_path / "runs").mkdir()
    for name in ("config.json", "readme", "one.png", "two.png"):
        (tmp_path / name).touch()
    assert complete(script, tmp_path, words) == offered


@pytest.mark.parametrize("shell", completion.SHELLS)
def test_a_script_is_printed_without_tensorflow(shell: str) -> None:
    program = f"import sys; from lowlevel_simclr import __main__; __main__.main(['--print-completion', '{shell}']); "
    said = output_of(program + "print('tensorflow' in sys.modules)")
    assert said.splitlines()[-1] == "False"
    assert "temperature" in said and "simclr-b9" in said


def test_an_unknown_shell_is_refused_with_the_known_ones(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        console.main(["--print-completion", "ksh"])
    said = capsys.readouterr().err
    assert said.startswith("lowlevel-simclr: error: There is no completion for the shell 'ksh'. Use one of: bash, zsh")
