"""Finds the hosts and ports of the tasks of a Slurm job step, from the environment variables that `srun` sets.

TensorFlow's SlurmClusterResolver is not used, for these reasons (TensorFlow 2.15 and 2.21):

- It runs nvidia-smi, also with auto_set_gpu=False, so that it ends with FileNotFoundError on hosts without a GPU.
- It does not read names such as "node[1-2]-ib" or "rack[1-2]n[1-3]".
- It assumes `srun --distribution=block`. With another distribution, it gives a task the address of another task.
- Every job uses the ports from 8888 on, so that two jobs cannot share a host.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping, Sequence

FIRST_PORT = 10_000  # the lowest port of any job; Linux gives ports from 32768 on to outgoing connections
TASKS_PER_NODE = 16  # ports that a job has on each host: the distance between the first ports of two jobs
JOBS = 1_401  # number of different first ports; odd, so that many steps of one job get different ports


class SlurmError(ValueError):
    """The variables of Slurm do not say where the tasks run. The message says what is wrong."""


def read_addresses(environment: Mapping[str, str]) -> tuple[tuple[str, ...], int] | None:
    """Return "host:port" of each task of this job step and the rank of this task, or None if it is the only task.

    Only `srun` sets the variables of a job step. If the batch script starts a program without srun, the program runs
    only once, however many tasks the job has. So it counts as the only task.

    Args:
        environment: the environment variables.

    Raises:
        SlurmError: if a variable is missing, or if the variables contradict one another.

    Example:
        >>> step = {"SLURM_STEP_NUM_TASKS": "2", "SLURM_STEP_NODELIST": "n[1-2]", "SLURM_STEP_TASKS_PER_NODE": "1(x2)"}
        >>> read_addresses({**step, "SLURM_PROCID": "1", "SLURM_JOB_ID": "7"})
        (('n1:10112', 'n2:10112'), 1)
    """
    if _read_number(environment, "SLURM_STEP_NUM_TASKS", 1) == 1:
        return None
    count, rank = (_read_number(environment, name) for name in ("SLURM_STEP_NUM_TASKS", "SLURM_PROCID"))
    if not 0 <= rank < count:
        raise SlurmError(f"SLURM_PROCID is {rank}, but there are {count} tasks (SLURM_STEP_NUM_TASKS)")
    nodes = expand_hosts(_read(environment, "SLURM_STEP_NODELIST"))
    tasks = expand_counts(_read(environment, "SLURM_STEP_TASKS_PER_NODE"))
    if len(nodes) != len(tasks) or sum(tasks) != count:
        raise SlurmError(
            f"there are {count} tasks (SLURM_STEP_NUM_TASKS) and {len(nodes)} hosts (SLURM_STEP_NODELIST), but "
            f"SLURM_STEP_TASKS_PER_NODE is {environment['SLURM_STEP_TASKS_PER_NODE']}"
        )
    places = place_tasks(tasks, environment.get("SLURM_DISTRIBUTION", "block"))
    _check_own_place(environment, rank, places[rank])
    first = choose_first_port(environment)
    return tuple(f"{nodes[node]}:{first + task}" for node, task in places), rank


def _read(environment: Mapping[str, str], name: str) -> str:
    if not environment.get(name):
        raise SlurmError(f"{name} is not set")
    return environment[name]


def _read_number(environment: Mapping[str, str], name: str, default: int | None = None) -> int:
    if default is not None and not environment.get(name):
        return default
    text = _read(environment, name)
    if not re.fullmatch(r"[0-9]{1,9}", text):
        raise SlurmError(f"{name} is '{text}', which is not a whole number")
    return int(text)


def expand_hosts(listed: str) -> list[str]:
    """Return the host names of a list in Slurm's short form. Numbers keep their leading zeros.

    Args:
        listed: the list, such as "node[01-03,7],login".

    Raises:
        SlurmError: if the text is not such a list.

    Example:
        >>> expand_hosts("node[01-03,7]-ib,login")
        ['node01-ib', 'node02-ib', 'node03-ib', 'node7-ib', 'login']
    """
    if not re.fullmatch(
        r"([^\[\],\s]|\[[0-9]+(-[0-9]+)?(,[0-9]+(-[0-9]+)?)*\])+(,([^\[\],\s]|\[[0-9,-]+\])+)*", listed
    ):
        raise SlurmError(f"'{listed}' is not a list of hosts such as node[01-03,7]")
    names = [name for part in re.findall(r"(?:[^\[\],]|\[[^\]]*\])+", listed) for name in _expand_name(part)]
    if len(set(names)) < len(names):
        raise SlurmError(f"'{listed}' names a host twice")
    return names


def _expand_name(name: str) -> list[str]:
    """Return the names that one part of a list stands for. It may have several pairs of brackets, or none."""
    pieces = re.split(r"\[([^\]]*)\]", name)  # text, numbers, text, numbers, ..., text
    choices = [_expand_numbers(piece) if place % 2 else [piece] for place, piece in enumerate(pieces)]
    return ["".join(chosen) for chosen in itertools.product(*choices)]


def _expand_numbers(listed: str) -> list[str]:
    """Return the numbers of a text such as "01-03,7". Each number has as many digits as the first one of its range."""
    found = []
    for part in listed.split(","):
        first, _, last = part.partition("-")
        if not first.isdecimal() or not (last or first).isdecimal() or int(last or first) < int(first):
            raise SlurmError(f"'{part}' is not a range of numbers")
        found += [f"{number:0{len(first)}d}" for number in range(int(first), int(last or first) + 1)]
    return found


def expand_counts(listed: str) -> list[int]:
    """Return the number of tasks on each host.

    Args:
        listed: the numbers in Slurm's short form, such as "2(x3),1".

    Raises:
        SlurmError: if the text is not such a list.

    Example:
        >>> expand_counts("2(x3),1")
        [2, 2, 2, 1]
    """
    found: list[int] = []
    for part in listed.split(","):
        match = re.fullmatch(r"([0-9]{1,6})(?:\(x([0-9]{1,6})\))?", part)
        if match is None:
            raise SlurmError(f"SLURM_STEP_TASKS_PER_NODE is '{listed}', which is not a list such as 2(x3),1")
        found += [int(match[1])] * int(match[2] or 1)
    return found


def place_tasks(tasks: Sequence[int], distribution: str) -> list[tuple[int, int]]:
    """Return the host of each task by rank, and the task's number on that host. Both count from 0.

    Args:
        tasks: the number of tasks on each host.
        distribution: SLURM_DISTRIBUTION, such as "block" or "cyclic:block". The word before the colon says how tasks
            are placed on hosts. "block" fills one host after the other, and "cyclic" gives each host one task in turn.

    Raises:
        SlurmError: if the distribution is neither block nor cyclic.

    Example:
        >>> place_tasks([2, 1], "block"), place_tasks([2, 1], "cyclic")
        ([(0, 0), (0, 1), (1, 0)], [(0, 0), (1, 0), (0, 1)])
    """
    places = [(node, task) for node, count in enumerate(tasks) for task in range(count)]
    way = re.split("[:,]", distribution.lower())[0]
    if way in ("", "block", "*"):
        return places
    if way == "cyclic":
        return sorted(places, key=lambda place: (place[1], place[0]))
    raise SlurmError(f"the distribution of the tasks (SLURM_DISTRIBUTION) is {distribution}, not block or cyclic")


def _check_own_place(environment: Mapping[str, str], rank: int, place: tuple[int, int]) -> None:
    """Check that the host of this task, and its number on this host, are those in the list of tasks.

    Raises:
        SlurmError: if it runs on another host, or has another number on its host.
    """
    for name, expected in zip(("SLURM_NODEID", "SLURM_LOCALID"), place):
        found = _read_number(environment, name, expected)
        if found != expected:
            raise SlurmError(f"{name} of task {rank} is {found}, but by the other variables it is {expected}")


def choose_first_port(environment: Mapping[str, str]) -> int:
    """Return the port of the first task of each host.

    Jobs with similar numbers get different ports, and so do the steps of one job.

    Args:
        environment: the environment variables. The port depends on SLURM_JOB_ID and SLURM_STEP_ID.

    Raises:
        SlurmError: if one of these two variables is not a number.
    """
    job, step = (_read_number(environment, name, 0) for name in ("SLURM_JOB_ID", "SLURM_STEP_ID"))
    return FIRST_PORT + (job + JOBS // 2 * step) % JOBS * TASKS_PER_NODE
