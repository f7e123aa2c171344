"""Makes a network inside this machine, for tests of a slow network, of lost packets, and of cut cables.

        python -m tests.support.virtual_switch --delay 0.005 --loss 0.01 NAME ...

Each host of the network is a Linux network namespace NAME. The program passes packets between the hosts. For this it
opens a virtual network device (TUN) "tun0" in each namespace. A line "cut I" on its standard input cuts the cable of
host I. The program replaces Linux's tc netem, which many kernels lack.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import fcntl
import heapq
import os
import random
import select
import shutil
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
NETWORK = "10.77.0."
TUNSETIFF, IFF_TUN, IFF_NO_PI, CLONE_NEWNET = 0x400454CA, 0x0001, 0x1000, 0x40000000
LARGEST = 65_536  # bytes of the largest packet


def find_problem() -> str:
    """Return the reason why this machine cannot have such a network, or "" if it can."""
    if os.geteuid() != 0:
        return "needs root, to make network namespaces"
    if shutil.which("ip") is None:
        return "needs the program ip, of iproute2"
    if not os.path.exists("/dev/net/tun"):
        return "needs /dev/net/tun"
    tried = subprocess.run(["ip", "netns", "add", f"try-{os.getpid()}"], capture_output=True, text=True)
    if tried.returncode == 0:
        subprocess.run(["ip", "netns", "del", f"try-{os.getpid()}"], check=True)
    return tried.stderr.strip()


class Network(NamedTuple):
    """The hosts of a network.

    Attributes:
        names: the namespace of each host.
        switch: the process that passes packets between the hosts.
    """

    names: list[str]
    switch: subprocess.Popen[str]

    def enter(self, host: int) -> list[str]:
        """Return the words that, before a command, make it run on a host."""
        return ["ip", "netns", "exec", self.names[host]]

    def list_addresses(self, port: int = 29500) -> str:
        """Return "address:port" of each host, as for `--hosts`."""
        return ",".join(f"{NETWORK}{host + 1}:{port}" for host in range(len(self.names)))

    def cut(self, host: int) -> None:
        """Cut the cable of a host."""
        assert self.switch.stdin is not None
        self.switch.stdin.write(f"cut {host}\n")
        self.switch.stdin.flush()


@contextlib.contextmanager
def open_network(hosts: int, delay: float = 0.0, loss: float = 0.0) -> Iterator[Network]:
    """Yield a network, and remove it after the block.

    Args:
        hosts: the number of hosts.
        delay: seconds that a packet takes from host to host.
        loss: the share of lost packets, from 0 to 1.
    """
    names = [f"simclr-{os.getpid()}-{host}" for host in range(hosts)]
    with contextlib.ExitStack() as stack:
        for name in names:
            _ip("netns", "add", name)
            stack.callback(_ip, "netns", "del", name)
        command = [sys.executable, "-m", "tests.support.virtual_switch"]
        command += ["--delay", str(delay), "--loss", str(loss), *names]
        switch = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        stack.callback(switch.communicate)
        stack.callback(switch.kill)
        assert switch.stdout is not None and switch.stdout.readline() == "ready\n"
        for host, name in enumerate(names):
            _ip("-n", name, "link", "set", "lo", "up")
            _ip("-n", name, "addr", "add", f"{NETWORK}{host + 1}/24", "dev", "tun0")
            _ip("-n", name, "link", "set", "tun0", "up")
        yield Network(names, switch)


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True)


def open_tun(namespace: str) -> int:
    """Move this process into a namespace, and open a new TUN device in it. Return the device's file descriptor."""
    handle = os.open(f"/run/netns/{namespace}", os.O_RDONLY)
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.setns(handle, CLONE_NEWNET) != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), namespace)
    os.close(handle)
    device = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(device, TUNSETIFF, struct.pack("16sH22x", b"tun0", IFF_TUN | IFF_NO_PI))
    return device


def find_host(packet: bytes) -> int:
    """Return the number of the host to which a packet goes, or -1 if this is not a host of this network."""
    if packet[0] >> 4 != 4 or packet[16:19] != bytes(map(int, NETWORK.strip(".").split("."))):
        return -1
    return packet[19] - 1


def pass_packets(devices: list[int], delay: float, loss: float) -> None:
    """Pass packets on until the standard input ends."""
    chance, cut = random.Random(0), set[int]()
    on_their_way: list[tuple[float, int, int, bytes]] = []  # (arrival time, number, host, packet)
    number = 0
    while True:
        wait = None if not on_their_way else max(0.0, on_their_way[0][0] - time.monotonic())
        ready = select.select([sys.stdin, *devices], [], [], wait)[0]
        for source, device in enumerate(devices):
            if device in ready:
                packet = os.read(device, LARGEST)
                target = find_host(packet)
                if 0 <= target < len(devices) and not {source, target} & cut and chance.random() >= loss:
                    number += 1
                    heapq.heappush(on_their_way, (time.monotonic() + delay, number, target, packet))
        while on_their_way and on_their_way[0][0] <= time.monotonic():
            _, _, target, packet = heapq.heappop(on_their_way)
            with contextlib.suppress(OSError):  # the packet is lost if the queue is full or the device is down
                os.write(devices[target], packet)
        if sys.stdin in ready:
            line = sys.stdin.readline()
            if not line:
                return
            cut.add(int(line.removeprefix("cut ")))


def main() -> None:
    """Open the devices, print "ready", and pass packets between them until the standard input ends."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--delay", type=float, default=0.0)
    parser.add_argument("--loss", type=float, default=0.0)
    parser.add_argument("names", nargs="+")
    chosen = parser.parse_args()
    devices = [open_tun(name) for name in chosen.names]
    print("ready", flush=True)
    pass_packets(devices, chosen.delay, chosen.loss)


if __name__ == "__main__":
    main()
