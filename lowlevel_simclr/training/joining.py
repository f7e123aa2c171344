"""How the workers of a run find each other. They read TF_CONFIG, and wait until all of them have started."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import sys
import time
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from lowlevel_simclr.runtime.signals import WATCHED, is_watched, tell_stage
from lowlevel_simclr.training.replicas import DistributionError

TOLD_EVERY = 30.0  # seconds between two lines of a worker that waits
ANSWERS_WITHIN = 5.0  # seconds to wait for a connection to another worker
LEAVES_WITHIN = 10.0  # seconds to wait until the port of a worker closes, after the worker ended with an error
POLL = 0.5  # seconds between two checks of the time
GREETING = b"lowlevel_simclr worker "  # followed by the rank and a line break
EVERYONE_IS_THERE = b"start\n"


class Cluster(NamedTuple):
    """The workers that TF_CONFIG lists.

    Attributes:
        addresses: "host:port" of each worker by rank.
        rank: the rank of this worker.
    """

    addresses: tuple[str, ...]
    rank: int


def read_cluster(text: str | None = None) -> Cluster | None:
    """Return the cluster of TF_CONFIG, or None if it is not set.

    Args:
        text: the content of TF_CONFIG. None means that the environment variable is read.

    Raises:
        DistributionError: if TensorFlow could not use this content.
    """
    text = os.environ.get("TF_CONFIG", "") if text is None else text
    if not text:
        return None
    try:
        return _parse_cluster(json.loads(text))
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        why = f" ({error})" if isinstance(error, _Unsound) else ""
        raise DistributionError(
            f"TF_CONFIG is not valid{why}: {text[:500]!r}. It must look like "
            '{"cluster": {"worker": ["host:port", ...]}, "task": {"type": "worker", "index": 0}}.'
        ) from None


class _Unsound(ValueError):
    """A cluster that TensorFlow cannot use. The message says what is wrong."""


def _parse_cluster(value: object) -> Cluster:
    """Return the cluster in the JSON value of TF_CONFIG.

    Raises:
        _Unsound: if TensorFlow cannot use the cluster. The message gives the reason.
        KeyError, TypeError: if a part is missing or has another type.
    """
    if not isinstance(value, dict):
        raise _Unsound("it is not a JSON object")
    roles, task = value["cluster"], value["task"]
    if set(roles) != {"worker"}:
        raise _Unsound(f"the cluster has {', '.join(map(str, roles)) or 'no workers'}, but only 'worker' is possible")
    addresses, rank = roles["worker"], task["index"]
    if not isinstance(addresses, list) or not addresses or not all(map(_is_address, addresses)):
        raise _Unsound("the workers must be a list of texts such as 'host:port'")
    if len(set(addresses)) < len(addresses):
        raise _Unsound("two workers have the same address")
    if isinstance(rank, str) and rank.isdecimal():
        rank = int(rank)
    if task["type"] != "worker" or not isinstance(rank, int) or isinstance(rank, bool):
        raise _Unsound("the task must have type 'worker' and a whole number as index")
    if not 0 <= rank < len(addresses):
        raise _Unsound(f"the index is {rank}, but there are {len(addresses)} workers")
    return Cluster(tuple(addresses), rank)


def _is_address(value: object) -> bool:
    if not isinstance(value, str):
        return False
    host, _, port = value.rpartition(":")
    return bool(host) and port.isdecimal() and 0 < int(port) < 2**16


def wait_for_workers(cluster: Cluster, timeout: float) -> None:
    """Wait until every worker has started. Print every half minute which workers are missing.

    TensorFlow waits too, but silently. It holds Python's lock while it waits, so that Python handles no signal.
    Therefore the workers meet here first. Worker 0 listens at its port, and the others connect to it.

    Args:
        cluster: the workers.
        timeout: seconds to wait.

    Raises:
        DistributionError: if a worker is missing after `timeout` seconds, if two workers have the same index, or if
            worker 0 cannot listen at its port.
    """
    tell_stage("waiting for the other workers")
    clock = _Clock(timeout)
    if cluster.rank == 0:
        _receive_workers(cluster, clock)
    else:
        _report_to_chief(cluster, clock)


class _Clock:
    """A clock of how long a worker has waited. It prints this time."""

    def __init__(self, timeout: float) -> None:
        """Start the clock."""
        self._started = self._told = time.monotonic()
        self._timeout = timeout

    def check(self, addresses: Sequence[str], missing: Sequence[int]) -> None:
        """Print which workers are missing, if it is time for the next line.

        Raises:
            DistributionError: if the time is over.
        """
        now = time.monotonic()
        names = [f"worker {rank} ({addresses[rank]})" for rank in missing]
        who = f"{' and '.join(names)} {'is' if len(names) == 1 else 'are'} missing"
        if now - self._started >= self._timeout:
            raise DistributionError(
                f"After {now - self._started:.0f} seconds, {who}. Start every worker with the same command and its own "
                "index, or wait longer with --worker-timeout."
            )
        if now - self._told >= TOLD_EVERY:
            self._told = now
            print(f"Waiting for {now - self._started:.0f} seconds: {who}.", file=sys.stderr, flush=True)


def _receive_workers(cluster: Cluster, clock: _Clock) -> None:
    """Accept the other workers. Then tell all of them at once that everyone has connected."""
    port = int(cluster.addresses[0].rpartition(":")[2])
    present: dict[int, socket.socket] = {}
    with contextlib.ExitStack() as stack:
        try:
            server = stack.enter_context(socket.create_server(("", port), backlog=len(cluster.addresses)))
        except OSError as error:
            raise DistributionError(
                f"Worker 0 cannot listen at port {port} ({os.strerror(error.errno or 0)}). Use another port in "
                "TF_CONFIG, or end the program that uses it."
            ) from error
        server.settimeout(POLL)
        while missing := [rank for rank in range(1, len(cluster.addresses)) if rank not in present]:
            clock.check(cluster.addresses, missing)
            rank, connection = _accept(server)
            if connection is None:
                _forget_gone(present)
                continue
            stack.enter_context(connection)
            if rank in present:
                raise DistributionError(f"Two workers have the index {rank}. Start every worker with its own index.")
            if 0 < rank < len(cluster.addresses):
                present[rank] = connection
        for connection in present.values():
            with contextlib.suppress(OSError):  # TensorFlow will find out that this worker has just ended
                connection.sendall(EVERYONE_IS_THERE)


def _accept(server: socket.socket) -> tuple[int, socket.socket | None]:
    """Return the rank and the connection of the next worker. Return (-1, None) if none came, or if it was no worker."""
    try:
        connection, _ = server.accept()
    except TimeoutError:
        return -1, None
    try:
        connection.settimeout(ANSWERS_WITHIN)
        line = connection.recv(64)
        if line.startswith(GREETING) and line.endswith(b"\n"):
            return int(line.removeprefix(GREETING)), connection
    except (OSError, ValueError):
        pass
    connection.close()  # it is another program, for example one that scans ports
    return -1, None


def _forget_gone(present: dict[int, socket.socket]) -> None:
    """Remove the workers that have ended while worker 0 waited for others."""
    for rank, connection in list(present.items()):
        connection.setblocking(False)
        try:
            gone = connection.recv(1) == b""
        except BlockingIOError:
            gone = False
        except OSError:
            gone = True
        connection.settimeout(ANSWERS_WITHIN)
        if gone:
            present.pop(rank).close()


def _report_to_chief(cluster: Cluster, clock: _Clock) -> None:
    """Connect to worker 0, and wait until it says that everyone has connected."""
    host, _, port = cluster.addresses[0].rpartition(":")
    while True:
        clock.check(cluster.addresses, [0])
        try:
            with socket.create_connection((host.strip("[]"), int(port)), timeout=ANSWERS_WITHIN) as connection:
                connection.sendall(GREETING + f"{cluster.rank}\n".encode())
                if _wait_for_everyone(connection, cluster, clock):
                    return
        except OSError:
            pass
        time.sleep(POLL)


def _wait_for_everyone(connection: socket.socket, cluster: Cluster, clock: _Clock) -> bool:
    """Return True when worker 0 says that everyone has connected, and False if it closes the connection before that."""
    connection.settimeout(POLL)
    others = [rank for rank in range(len(cluster.addresses)) if rank not in (0, cluster.rank)]
    while True:
        try:
            return connection.recv(len(EVERYONE_IS_THERE)) == EVERYONE_IS_THERE
        except TimeoutError:
            clock.check(cluster.addresses, others)


@contextlib.contextmanager
def let_signals_kill(timeout: float) -> Iterator[None]:
    """Within the block, let the operating system end the program on a signal, or after some time.

    TensorFlow holds Python's lock while it connects the workers. This usually takes a second, because all workers have
    started. If one of them ends during that second, only the operating system can still end this program. Windows
    has no alarm, so there only a signal ends it.

    Args:
        timeout: seconds.
    """
    if not is_watched():
        yield
        return
    numbers = [*WATCHED]
    if sys.platform != "win32":
        numbers.append(signal.SIGALRM)
    before = {number: signal.signal(number, signal.SIG_DFL) for number in numbers}
    _set_alarm(timeout)
    try:
        yield
    finally:
        _set_alarm(0)
        for number, handler in before.items():
            signal.signal(number, handler)


def _set_alarm(seconds: float) -> None:
    """Ask the operating system for SIGALRM after some seconds. 0 takes the request back."""
    if sys.platform != "win32":
        signal.setitimer(signal.ITIMER_REAL, seconds)


def list_silent(addresses: Sequence[str], own: int) -> list[int]:
    """Return the ranks of the other workers whose ports accept no connection.

    A worker that is stopped (SIGSTOP) is not among them, because its operating system still accepts connections.
    """
    return [rank for rank, address in enumerate(addresses) if rank != own and not _does_answer(address)]


def list_lost(addresses: Sequence[str], own: int) -> list[int]:
    """Return the ranks of the other workers that are gone after an exchange failed.

    A worker that ends with an error tells TensorFlow before its port closes. So this function waits a few seconds for
    the port to close. The list is empty if every port still accepts connections after that.
    """
    deadline = time.monotonic() + LEAVES_WITHIN
    while not (lost := list_silent(addresses, own)) and time.monotonic() < deadline:
        time.sleep(POLL)
    return lost


def _does_answer(address: str) -> bool:
    host, _, port = address.rpartition(":")
    try:
        with socket.create_connection((host.strip("[]"), int(port)), timeout=ANSWERS_WITHIN):
            return True
    except OSError:
        return False
