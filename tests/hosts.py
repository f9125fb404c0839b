"""Two hosts on one machine: network namespaces with a cable between them that can be slow, or unplugged.

A namespace here has no name. It belongs to a process that waits for its standard input to close, and goes
with the last process in it. So nothing is left behind, however the tests end.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

PROGRAMS = ("unshare", "nsenter", "ip", "tc")
INTERFACE = "cable"
ADDRESSES = ("192.0.2.1", "192.0.2.2")
"""Reserved for documentation (RFC 5737), so they can be nobody else's."""

SECONDS = 20.0


class NoHostsError(Exception):
    """This machine does not let the tests make hosts; the message says why."""


class Host:
    """One host.

    Attributes:
        name: ``host 0`` or ``host 1``.
        address: of its end of the cable.
    """

    def __init__(self, index: int, stack: ExitStack) -> None:
        self.name = f"host {index}"
        self.address = ADDRESSES[index]
        # It says a line once it has its namespace.
        holder = subprocess.Popen(
            ["unshare", "--net", "sh", "-c", "echo; exec cat"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        stack.enter_context(holder)
        stack.callback(holder.kill)
        self.pid = holder.pid
        assert holder.stdout is not None
        assert holder.stderr is not None
        if not holder.stdout.readline():
            raise NoHostsError(f"No network namespace can be made: {holder.stderr.read().strip()}")
        # A process of a test that is still there when the test is over would keep the namespace.
        stack.callback(self._end_all, Path(f"/proc/{holder.pid}/ns/net").readlink())

    def command(self, command: Sequence[str]) -> list[str]:
        """Return the command line that runs a command on this host, as that very process."""
        return ["nsenter", "--target", str(self.pid), "--net", "--", *command]

    def run(self, *command: str) -> str:
        """Run a short command on this host and return what it printed."""
        done = subprocess.run(
            self.command(command), capture_output=True, text=True, timeout=SECONDS, check=False
        )
        if done.returncode:
            raise NoHostsError(f"{' '.join(command)}: {done.stderr.strip()}")
        return done.stdout

    def start(self, command: Sequence[str], **options: Any) -> subprocess.Popen[str]:
        """Start a process on this host; whoever has started it waits for it."""
        return subprocess.Popen(self.command(command), text=True, **options)

    def limit(self, mbit_per_second: float) -> None:
        """Let this host send no faster than this."""
        rate = f"{mbit_per_second}mbit"
        # A burst of 4 ms at 80 Mbit/s, and a queue of 50 ms, as a small router has.
        self.run(*f"tc qdisc replace dev {INTERFACE} root tbf rate {rate} burst 40kb latency 50ms".split())

    def bytes_sent(self) -> int:
        """Return how many bytes this host has sent into the cable."""
        for line in Path(f"/proc/{self.pid}/net/dev").read_text().splitlines():
            name, _, figures = line.partition(":")
            if name.strip() == INTERFACE:
                return int(figures.split()[8])  # the ninth column counts what was sent
        raise LookupError(INTERFACE)

    def _end_all(self, namespace: Path) -> None:
        for entry in Path("/proc").glob("[0-9]*"):
            try:
                if int(entry.name) != self.pid and (entry / "ns/net").readlink() == namespace:
                    os.kill(int(entry.name), signal.SIGKILL)
            except OSError:
                continue  # it has ended meanwhile, or is not ours


class Hosts:
    """Two hosts and the cable between them."""

    def __init__(self, stack: ExitStack) -> None:
        self.all = tuple(Host(index, stack) for index in range(2))
        self.first, self.second = self.all
        self.first.run(
            *f"ip link add {INTERFACE} type veth peer name {INTERFACE} netns {self.second.pid}".split()
        )
        for host in self.all:
            host.run("ip", "address", "add", f"{host.address}/24", "dev", INTERFACE)
            for interface in ("lo", INTERFACE):
                host.run("ip", "link", "set", interface, "up")

    def limit(self, mbit_per_second: float) -> None:
        """Let the cable carry no more than this each way."""
        for host in self.all:
            host.limit(mbit_per_second)

    def unplug(self) -> None:
        """Let nothing through the cable."""
        self.second.run("ip", "link", "set", INTERFACE, "down")

    def plug_in(self) -> None:
        """Let everything through the cable again."""
        self.second.run("ip", "link", "set", INTERFACE, "up")


@contextmanager
def two_hosts() -> Iterator[Hosts]:
    """Make two hosts, and remove them and every process on them.

    Raises:
        NoHostsError: this machine does not allow it, and why.
    """
    if missing := [program for program in PROGRAMS if shutil.which(program) is None]:
        raise NoHostsError(f"{missing[0]} is not installed: hosts are made with util-linux and iproute2.")
    with ExitStack() as stack:
        yield Hosts(stack)
