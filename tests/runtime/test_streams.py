"""Tests programs whose printed output cannot be written: because a disk is full, or standard output is closed.

A program must still complete its work. It must stop if it prints into a pipe whose reader has ended.
"""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PROGRAM = textwrap.dedent(
    """
    import sys, time
    from pathlib import Path
    from lowlevel_simclr.runtime.signals import StopSignal, describe_stop, end_on_signals, tell_stage
    from lowlevel_simclr.runtime.streams import guard_streams
    with guard_streams():
        try:
            with end_on_signals():
                tell_stage("training")
                for line in range(2000):
                    print("line", line)
                    print("more", line, file=sys.stderr)
                Path(sys.argv[1]).write_text("trained")
        except StopSignal as stop:
            print(describe_stop(stop.number), file=sys.stderr)
            sys.exit(128 + stop.number)
    """
)


def run(shell: str, tmp_path: Path) -> subprocess.CompletedProcess[str]:
    (tmp_path / "program.py").write_text(PROGRAM)
    command = shell.replace("PROGRAM", f"PYTHONPATH={ROOT} {sys.executable} {tmp_path}/program.py {tmp_path}/done")
    return subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=60, cwd=tmp_path)


@pytest.mark.parametrize(
    "shell", ["PROGRAM > /dev/full", "PROGRAM 2> /dev/full", "PROGRAM >&-", "PROGRAM 2>&-", "PROGRAM <&- >&- 2>&-"]
)
def test_the_program_goes_on(tmp_path: Path, shell: str) -> None:
    done = run(shell, tmp_path)
    assert done.returncode == 0 and (tmp_path / "done").read_text() == "trained", done
    assert "Traceback" not in done.stderr and "Exception ignored" not in done.stderr


def test_a_full_disk_behind_standard_output_is_told(tmp_path: Path) -> None:
    done = run("PROGRAM > /dev/full", tmp_path)
    assert done.stderr.endswith("warning: Standard output could not be written (No space left on device).\n")


def test_closed_streams_leave_the_files_of_the_program_alone(tmp_path: Path) -> None:
    """Test a program that starts with closed standard output. The program must open /dev/null in its place.

    Otherwise the next file that the program opens gets the number of standard output, and the program prints into it.
    """
    (tmp_path / "closed.py").write_text(
        "import os, sys\n"
        "from lowlevel_simclr.runtime.streams import guard_streams\n"
        "with guard_streams(), open(sys.argv[1], 'w') as file:\n"
        "    os.write(2, b'a message of TensorFlow')\n"
        "    os.write(1, b'another')\n"
        "    file.write('mine')\n"
    )
    command = f"PYTHONPATH={ROOT} {sys.executable} closed.py file >&- 2>&-"
    subprocess.run(["bash", "-c", command], check=True, timeout=60, cwd=tmp_path)
    assert (tmp_path / "file").read_text() == "mine"


def test_a_reader_that_ended_stops_the_program_with_one_sentence(tmp_path: Path) -> None:
    done = run("PROGRAM | head -1; echo ${PIPESTATUS[0]}", tmp_path)
    assert done.stdout == "line 0\n141\n" and not (tmp_path / "done").exists()
    said = [line for line in done.stderr.splitlines() if not line.startswith("more")]
    assert said == ["Stopped while training, because the program that read the output has ended (SIGPIPE)."]


def test_each_line_is_in_the_log_at_once(tmp_path: Path) -> None:
    text = (
        "import sys\nfrom lowlevel_simclr.runtime.streams import guard_streams\n"
        "with guard_streams():\n    print('first')\n    sys.stdin.read()"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", text], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT
    )
    assert process.stdout is not None and process.stdout.readline() == "first\n" and process.poll() is None
    process.communicate("", timeout=60)
