"""Two hosts with a cable between them: namespaces of the kernel (network, host name, clocks), held by a process each, and gone with it.

Nothing of it is to be seen outside: the names of the devices are of the namespaces, which have none themselves.
"""

from __future__ import annotations

import contextlib
import os
import select
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.places import wants_root, wants_tools

DEADLINE_S = 20.0
MASK_BITS = 30
DEVICE = "cable0"


class Host:
    """``address``: of its end of the cable. ``ahead_s``: its clocks since boot are ahead of this machine's by so much. ``boot_id``: a file with that of its kernel."""

    def __init__(self, name: str, address: str, boot_id: Path, ahead_s: int = 0) -> None:
        self.address = address
        boot_id.write_text(f"{name}-{os.urandom(8).hex()}\n")
        # it says when its namespaces are there, and ends with its standard input
        ready = f"hostname {name} && mount --bind '{boot_id}' /proc/sys/kernel/random/boot_id && echo $$ ready && cat"
        self._holder = subprocess.Popen(
            [
                *("unshare", "--net", "--uts", "--mount", "--time", "--fork", "--kill-child"),
                *("--monotonic", str(ahead_s), "--boottime", str(ahead_s)),
                *("sh", "-c", ready),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        pid, _, word = self._line().partition(" ")
        if word != "ready":
            said = self._holder.communicate(timeout=DEADLINE_S)[1]
            pytest.skip(f"this system has no namespaces for a host of its own: {said.strip()}")
        self.prefix = ("nsenter", "--target", pid, "--net", "--uts", "--mount", "--time", "--")
        self.pid = pid

    def _line(self) -> str:
        assert self._holder.stdout is not None
        assert select.select([self._holder.stdout], [], [], DEADLINE_S)[0], "the holder of a namespace said nothing"
        return self._holder.stdout.readline().strip()

    def run(self, *command: str) -> str:
        """What it said. Raises AssertionError: it failed."""
        done = self.try_run(*command)
        assert done.returncode == 0, (command, done.stderr)
        return done.stdout

    def try_run(self, *command: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([*self.prefix, *command], capture_output=True, text=True, check=False, timeout=DEADLINE_S)

    def up(self) -> None:
        self.run("ip", "link", "set", DEVICE, "up")

    def down(self) -> None:
        """Pulls the cable."""
        self.run("ip", "link", "set", DEVICE, "down")

    def close(self) -> None:
        self._holder.communicate(timeout=DEADLINE_S)


@contextlib.contextmanager
def two_hosts(directory: Path, ahead_s: int = 0) -> Iterator[tuple[Host, Host]]:
    """The second one's clocks are ``ahead_s`` ahead. ``directory``: for their files."""
    wants_root("network namespaces want root")
    wants_tools("ip", "unshare", "nsenter", "hostname")
    with contextlib.ExitStack() as stack:
        hosts = []
        for n, ahead in enumerate((0, ahead_s), 1):
            host = Host(f"host{n}", f"10.99.0.{n}", directory / f"boot_id{n}", ahead)
            stack.callback(host.close)
            hosts.append(host)
        here, there = hosts
        cable = here.try_run("ip", "link", "add", DEVICE, "type", "veth", "peer", "name", DEVICE, "netns", there.pid)
        if cable.returncode:
            pytest.skip(f"this system has no cables (veth): {cable.stderr.strip()}")
        for host in hosts:
            host.run("ip", "address", "add", f"{host.address}/{MASK_BITS}", "dev", DEVICE)
            host.run("ip", "link", "set", "lo", "up")
            host.up()
        yield here, there


def slow_down(host: Host, *discipline: str) -> None:
    """What leaves ``host`` goes through this queue of ``tc``: ``"tbf", "rate", "1mbit", ...``."""
    wants_tools("tc")
    slowed = host.try_run("tc", "qdisc", "replace", "dev", DEVICE, "root", *discipline)
    if slowed.returncode:
        pytest.skip(f"this kernel has no {discipline[0]}: {slowed.stderr.strip()}")
