"""Lets the workers (processes) of a run wait for each other, and finds out which other workers are lost."""

from __future__ import annotations

import concurrent.futures
import contextlib
import os
import signal
import socket
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from lowlevel_simclr.runtime.signals import WATCHED, is_watched, tell_stage
from lowlevel_simclr.training.cluster import Cluster
from lowlevel_simclr.training.replicas import DistributionError

TOLD_EVERY = 30.0  # seconds between two lines that a waiting worker prints
ANSWERS_WITHIN = 5.0  # seconds to wait for a connection to another worker
LEAVES_WITHIN = 10.0  # seconds to wait until the port of a worker closes, after the worker ended with an error
POLL = 0.5  # seconds between two checks of the time
GREETING = b"lowlevel_simclr worker "  # followed by the rank, the number of replicas and a line break
EVERYONE_IS_THERE = b"start"  # followed by a line break; any other line is the reason why no worker may start
LONGEST_LINE = 1000  # bytes

# What a client of HTTP/2 sends first: the preface, and a frame of settings that changes no setting. TensorFlow's server
# answers with its own settings.
HTTP2_GREETING = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])


class _Greeted(NamedTuple):
    """A worker that has connected to worker 0: its connection, and the number of its replicas."""

    connection: socket.socket
    replicas: int


def wait_for_workers(cluster: Cluster, timeout: float, replicas: int = 1) -> None:
    """Wait until every worker has started. Every 30 seconds, print which workers are missing.

    TensorFlow also waits for all workers, but prints nothing. While it waits, it holds Python's lock, so Python cannot
    handle signals. Therefore the workers first meet in this function. Worker 0 listens at its port, and the others
    connect to it.

    Args:
        cluster: the workers.
        timeout: seconds to wait.
        replicas: the number of replicas of this worker (copies of the model, one for each device). It must be the same
            on every worker.

    Raises:
        DistributionError: if a worker is missing after `timeout` seconds, if two workers have the same index, if two
            workers have different numbers of replicas, or if worker 0 cannot listen at its port.
    """
    tell_stage("waiting for the other workers")
    clock = _Clock(timeout)
    if cluster.rank == 0:
        _receive_workers(cluster, clock, replicas)
    else:
        _report_to_chief(cluster, clock, replicas)


class _Clock:
    """A clock that measures how long a worker has waited, and prints this time."""

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


def _receive_workers(cluster: Cluster, clock: _Clock, replicas: int) -> None:
    """Accept the other workers. Then tell all of them at once whether the run starts."""
    present: dict[int, _Greeted] = {}
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(_listen(cluster))
        while missing := [rank for rank in range(1, len(cluster.addresses)) if rank not in present]:
            clock.check(cluster.addresses, missing)
            rank, greeted = _accept(server)
            if greeted is None:
                _forget_gone(present)
                continue
            stack.enter_context(greeted.connection)
            if rank in present:
                raise DistributionError(f"Two workers have the index {rank}. Start every worker with its own index.")
            if 0 < rank < len(cluster.addresses):
                present[rank] = greeted
        counts = {0: replicas, **{rank: greeted.replicas for rank, greeted in present.items()}}
        problem = _describe_unequal(cluster.addresses, counts)
        for greeted in present.values():
            with contextlib.suppress(OSError):  # this worker has just ended, and TensorFlow will notice
                greeted.connection.sendall((problem.encode() or EVERYONE_IS_THERE) + b"\n")
        if problem:
            raise DistributionError(problem)


def _listen(cluster: Cluster) -> socket.socket:
    """Return a socket at the port of worker 0, for IPv4, and also for IPv6 if the machine has it.

    Raises:
        DistributionError: if the port cannot be used.
    """
    port = int(cluster.addresses[0].rpartition(":")[2])
    both = socket.has_dualstack_ipv6()
    family = socket.AF_INET6 if both else socket.AF_INET
    try:
        server = socket.create_server(
            ("", port), family=family, dualstack_ipv6=both, backlog=max(8, len(cluster.addresses))
        )
    except OSError as error:
        remedy = "--hosts" if cluster.source == "Slurm" else cluster.source
        raise DistributionError(
            f"Worker 0 cannot listen at port {port} ({os.strerror(error.errno or 0)}). Use another port in {remedy}, "
            "or end the program that uses it."
        ) from error
    server.settimeout(POLL)
    return server


def _describe_unequal(addresses: Sequence[str], replicas: Mapping[int, int]) -> str:
    """Return a message if two workers have different numbers of replicas, otherwise "".

    Args:
        addresses: "host:port" of each worker, in the order of the ranks.
        replicas: a dict from ranks to numbers of replicas.
    """
    other = next((rank for rank in sorted(replicas) if replicas[rank] != replicas[0]), None)
    if other is None:
        return ""
    return (
        f"Worker {other} ({addresses[other]}) has {replicas[other]} of the devices that --devices asks for, but worker "
        f"0 ({addresses[0]}) has {replicas[0]}. Every worker needs the same number. Give --devices "
        f"{min(replicas.values())} to all of them."
    )


def _accept(server: socket.socket) -> tuple[int, _Greeted | None]:
    """Return the rank and the connection of the next worker, or (-1, None) if no worker has connected."""
    try:
        connection, _ = server.accept()
    except TimeoutError:
        return -1, None
    try:
        connection.settimeout(ANSWERS_WITHIN)
        line = connection.recv(64)
        if line.startswith(GREETING) and line.endswith(b"\n"):
            rank, replicas = line.removeprefix(GREETING).split()
            return int(rank), _Greeted(connection, int(replicas))
    except (OSError, ValueError):
        pass
    connection.close()  # it is another program, for example one that scans ports
    return -1, None


def _forget_gone(present: dict[int, _Greeted]) -> None:
    """Remove the workers that have ended while worker 0 was waiting for others."""
    for rank, (connection, _) in list(present.items()):
        connection.setblocking(False)
        try:
            gone = connection.recv(1) == b""
        except BlockingIOError:
            gone = False
        except OSError:
            gone = True
        connection.settimeout(ANSWERS_WITHIN)
        if gone:
            present.pop(rank).connection.close()


def _report_to_chief(cluster: Cluster, clock: _Clock, replicas: int) -> None:
    """Connect to worker 0, and wait until it says that everyone has connected.

    Raises:
        DistributionError: if worker 0 says that the run cannot start, or if the time is over.
    """
    while True:
        clock.check(cluster.addresses, [0])
        try:
            with _connect(cluster.addresses[0]) as connection:
                connection.sendall(GREETING + f"{cluster.rank} {replicas}\n".encode())
                said = _wait_for_chief(connection, cluster, clock)
        except OSError:
            said = b""
        if said == EVERYONE_IS_THERE:
            return
        if said:
            raise DistributionError(said.decode(errors="replace"))
        time.sleep(POLL)


def _wait_for_chief(connection: socket.socket, cluster: Cluster, clock: _Clock) -> bytes:
    """Return the line that worker 0 sends, without the line break, or b"" if it closes the connection instead."""
    connection.settimeout(POLL)
    others = [rank for rank in range(len(cluster.addresses)) if rank not in (0, cluster.rank)]
    line = b""
    while not line.endswith(b"\n") and len(line) < LONGEST_LINE:
        try:
            more = connection.recv(LONGEST_LINE)
        except TimeoutError:
            clock.check(cluster.addresses, others)
            continue
        if not more:
            return b""
        line += more
    return line.rstrip(b"\n")


def _connect(address: str) -> socket.socket:
    """Return a connection to a worker.

    Raises:
        OSError: if its port accepts no connection.
    """
    host, _, port = address.rpartition(":")
    return socket.create_connection((host.strip("[]"), int(port)), timeout=ANSWERS_WITHIN)


@contextlib.contextmanager
def let_signals_kill(timeout: float) -> Iterator[None]:
    """Within the block, let the operating system end the program at a signal, or after `timeout` seconds.

    TensorFlow holds Python's lock while it connects the workers. This usually takes a second, because all workers have
    started. If one of them ends during that second, only the operating system can still end this program. Windows
    has no alarm (SIGALRM), so on Windows only a signal ends the program.

    Args:
        timeout: the number of seconds after which the program ends.
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
    """Ask the operating system to send SIGALRM after some seconds. 0 cancels the request."""
    if sys.platform != "win32":
        signal.setitimer(signal.ITIMER_REAL, seconds)


def list_silent(addresses: Sequence[str], own: int) -> list[int]:
    """Return the ranks of the other workers whose programs do not answer.

    A worker that is stopped (SIGSTOP) is also in the list. Its operating system still accepts connections, but
    TensorFlow's server in this worker does not answer.

    Args:
        addresses: "host:port" of each worker, in the order of the ranks.
        own: the rank of this worker.
    """
    others = [rank for rank in range(len(addresses)) if rank != own]
    with concurrent.futures.ThreadPoolExecutor(max(1, len(others))) as pool:
        answers = list(pool.map(lambda rank: _does_answer(addresses[rank]), others))
    return [rank for rank, answer in zip(others, answers) if not answer]


def list_lost(addresses: Sequence[str], own: int) -> list[int]:
    """Return the ranks of the other workers that have ended or are stopped. Call this after an exchange of data failed.

    If a worker ends with an error, TensorFlow lets the exchange fail before the port of that worker closes. So this
    function waits a few seconds for a port to close. The list is empty if every worker still answers after that.

    Args:
        addresses: "host:port" of each worker, in the order of the ranks.
        own: the rank of this worker.
    """
    deadline = time.monotonic() + LEAVES_WITHIN
    while not (lost := list_silent(addresses, own)) and time.monotonic() < deadline:
        time.sleep(POLL)
    return lost


def _does_answer(address: str) -> bool:
    """Return whether TensorFlow's server of a worker answers to the first words of HTTP/2."""
    try:
        with _connect(address) as connection:
            connection.sendall(HTTP2_GREETING)
            return bool(connection.recv(1))
    except OSError:
        return False
