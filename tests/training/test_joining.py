"""Tests how processes that train one network together (workers) wait for each other at the start.

Also tests what a waiting worker prints, when it stops waiting, and which workers count as lost later, during training.
"""

from __future__ import annotations

import re
import signal
import socket
import socketserver
import time
from concurrent.futures import ThreadPoolExecutor
from threading import Thread

import pytest

from lowlevel_simclr.runtime.signals import WATCHED, end_on_signals
from lowlevel_simclr.training import joining
from lowlevel_simclr.training.cluster import Cluster
from lowlevel_simclr.training.joining import wait_for_workers
from lowlevel_simclr.training.replicas import DistributionError
from tests.support.other_process import output_of
from tests.support.worker_processes import find_free_ports


def make_addresses(count: int) -> tuple[str, ...]:
    return tuple(f"127.0.0.1:{port}" for port in find_free_ports(count))


def meet(addresses: tuple[str, ...], rank: int, timeout: float = 60.0, replicas: int = 1) -> str:
    """Wait as worker `rank` for the other workers. Return "" if all of them connected, otherwise the error message."""
    try:
        wait_for_workers(Cluster(addresses, rank), timeout, replicas)
    except DistributionError as error:
        return str(error)
    return ""


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 0, 2)])
def test_workers_meet_in_any_order(order: tuple[int, ...]) -> None:
    addresses = make_addresses(3)
    with ThreadPoolExecutor(3) as pool:
        waiting = []
        for rank in order:
            waiting.append(pool.submit(meet, addresses, rank))
            time.sleep(0.2)
            assert len(waiting) == 3 or not any(each.done() for each in waiting)
        assert [each.result() for each in waiting] == ["", "", ""]
    with socket.create_server(("127.0.0.1", int(addresses[0].rpartition(":")[2]))):
        pass  # this `with` raises if the port is still in use: from now on TensorFlow needs the port


def test_a_worker_that_waits_names_whom_it_waits_for(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(joining, "TOLD_EVERY", 0.1)
    addresses = make_addresses(3)
    with ThreadPoolExecutor(2) as pool:
        chief = pool.submit(meet, addresses, 0, 2.0)
        pool.submit(meet, addresses, 1, 3.0)
        error = chief.result()
    assert f"seconds, worker 2 ({addresses[2]}) is missing" in error and "--worker-timeout" in error
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) > 3 and any(f"worker 2 ({addresses[2]}) is missing" in line for line in lines)


@pytest.mark.parametrize("rank", [0, 1])
def test_a_worker_gives_up(rank: int) -> None:
    started = time.monotonic()
    assert re.search(r"After 1 seconds, worker \d \(127.0.0.1:\d+\) is missing.", meet(make_addresses(2), rank, 1.0))
    assert time.monotonic() - started < 30


def say_to_chief(addresses: tuple[str, ...], said: bytes) -> None:
    """Connect to worker 0 (the chief), send the bytes `said`, and close the connection after 0.3 seconds."""
    host, _, port = addresses[0].rpartition(":")
    with socket.create_connection((host, int(port))) as other:
        other.sendall(said)
        time.sleep(0.3)


def test_a_worker_that_ended_while_the_others_were_awaited_is_awaited_again() -> None:
    addresses = make_addresses(3)
    with ThreadPoolExecutor(3) as pool:
        chief = pool.submit(meet, addresses, 0)
        time.sleep(0.3)
        say_to_chief(addresses, joining.GREETING + b"1 1\n")
        time.sleep(1.5)
        third = pool.submit(meet, addresses, 2)
        time.sleep(1)
        assert not chief.done() and not third.done()
        again = pool.submit(meet, addresses, 1)
        assert [each.result() for each in (chief, third, again)] == ["", "", ""]


@pytest.mark.parametrize(
    "said", [b"", b"GET / HTTP/1.1\r\n\r\n", b"lowlevel_simclr worker x\n", b"lowlevel_simclr worker 1\n", bytes(100)]
)
def test_another_program_that_connects_is_ignored(said: bytes) -> None:
    addresses = make_addresses(2)
    with ThreadPoolExecutor(2) as pool:
        chief = pool.submit(meet, addresses, 0)
        time.sleep(0.3)
        say_to_chief(addresses, said)
        assert [each.result() for each in (chief, pool.submit(meet, addresses, 1))] == ["", ""]


def test_two_workers_with_one_index_are_refused() -> None:
    addresses = make_addresses(3)
    with ThreadPoolExecutor(3) as pool:
        chief, *others = (pool.submit(meet, addresses, rank, 2.0) for rank in (0, 1, 1))
        assert chief.result() == "Two workers have the index 1. Start every worker with its own index."


def test_workers_with_other_numbers_of_gpus_are_refused_on_all_of_them() -> None:
    addresses = make_addresses(3)
    with ThreadPoolExecutor(3) as pool:
        waiting = [pool.submit(meet, addresses, rank, 60.0, count) for rank, count in enumerate((4, 4, 2))]
        said = {each.result() for each in waiting}
    assert said == {
        f"Worker 2 ({addresses[2]}) has 2 of the devices that --devices asks for, but worker 0 ({addresses[0]}) has 4. "
        "Every worker needs the same number. Give --devices 2 to all of them."
    }


@pytest.mark.skipif(not socket.has_dualstack_ipv6(), reason="this machine has no IPv6")
def test_workers_meet_over_ipv6() -> None:
    addresses = tuple(f"[::1]:{port}" for port in find_free_ports(2))
    with ThreadPoolExecutor(2) as pool:
        waiting = [pool.submit(meet, addresses, rank) for rank in (0, 1)]
        assert [each.result() for each in waiting] == ["", ""]


def test_a_port_that_is_taken_is_named() -> None:
    with socket.create_server(("", 0)) as other:
        port = other.getsockname()[1]
        error = meet((f"127.0.0.1:{port}", "127.0.0.1:1"), 0)
    assert f"Worker 0 cannot listen at port {port} (Address already in use)" in error


def test_a_worker_that_is_about_to_end_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as ending, ThreadPoolExecutor(1) as pool:
        addresses = ["127.0.0.1:1", f"127.0.0.1:{ending.getsockname()[1]}"]
        lost = pool.submit(joining.list_lost, addresses, 0)
        time.sleep(0.3)
        assert not lost.done()
        ending.close()
        assert lost.result() == [1]


class Server(socketserver.BaseRequestHandler):
    """Imitate TensorFlow's server: answer the first bytes of an HTTP/2 connection with HTTP/2 settings."""

    def handle(self) -> None:
        if self.request.recv(100).startswith(b"PRI * HTTP/2.0"):
            self.request.sendall(bytes([0, 0, 0, 4, 0, 0, 0, 0, 0]))


def test_workers_that_answer_are_not_lost_but_one_that_is_stopped_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """Test a worker that SIGSTOP has stopped. Its operating system still accepts connections, but nothing answers."""
    monkeypatch.setattr(joining, "LEAVES_WITHIN", 0.2)
    monkeypatch.setattr(joining, "ANSWERS_WITHIN", 0.5)
    with (
        socketserver.ThreadingTCPServer(("127.0.0.1", 0), Server) as answers,
        socket.create_server(("127.0.0.1", 0)) as stopped,
    ):
        Thread(target=answers.serve_forever, daemon=True).start()
        ports = answers.server_address[1], stopped.getsockname()[1]
        addresses = ["127.0.0.1:1", *(f"127.0.0.1:{port}" for port in ports)]
        assert joining.list_lost(addresses[:2], 0) == []
        assert joining.list_lost(addresses, 0) == [2]
        answers.shutdown()


# Signals and timeouts while TensorFlow holds Python's global lock (GIL), so that no Python code can run

HELD = """
import ctypes, os, signal, sys
from lowlevel_simclr.runtime.signals import end_on_signals
from lowlevel_simclr.training.joining import let_signals_kill

def hold(seconds, number=0):
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        with end_on_signals(), let_signals_kill(seconds):
            os.write(writer, b"held")
            ctypes.PyDLL(None).sleep(60)  # keeps Python's lock, as TensorFlow does
        os._exit(3)
    os.read(reader, 4)
    if number:
        os.kill(child, number)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

print(*(hold(50, number) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)), hold(0.5))
"""


def test_a_signal_or_the_timeout_ends_a_program_that_tensorflow_holds() -> None:
    """Test each signal and the timeout in a fork of one process, because importing TensorFlow takes seconds."""
    wanted = [-signal.SIGTERM, -signal.SIGINT, -signal.SIGHUP, -signal.SIGALRM]
    assert output_of(HELD).split() == [str(int(code)) for code in wanted]


def test_the_handlers_come_back_after_the_block() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with end_on_signals():
        ours = [signal.getsignal(number) for number in WATCHED]
        with joining.let_signals_kill(60.0):
            assert [signal.getsignal(number) for number in WATCHED] == [signal.SIG_DFL] * len(WATCHED)
            assert signal.getitimer(signal.ITIMER_REAL)[0] > 50
        assert [signal.getsignal(number) for number in WATCHED] == ours
        assert signal.getitimer(signal.ITIMER_REAL)[0] == 0.0
    assert signal.getsignal(signal.SIGTERM) == before


def test_a_notebook_keeps_its_handlers() -> None:
    """Test training without `end_on_signals`, as in a notebook. The handlers of signals must not change."""
    before = signal.getsignal(signal.SIGINT)
    with joining.let_signals_kill(60.0):
        assert signal.getsignal(signal.SIGINT) == before and signal.getitimer(signal.ITIMER_REAL)[0] == 0.0
