"""Two servers with two shards each, which can be killed and started again where they were."""

from __future__ import annotations

import random
import subprocess
import sys
from pathlib import Path

from powerless import lose_power

SECONDS = 30.0


class Fleet:
    """The servers of one run, which know what their disk has.

    Attributes:
        out: the run folder.
        addresses: of the servers.
    """

    def __init__(self, folder: Path, *options: str) -> None:
        self.out, self._disk = folder / "run", folder / "disk"
        self._options = options
        self._errors = (folder / "servers.log").open("w+")
        self.addresses = ["127.0.0.1:0", "127.0.0.1:0"]
        self._processes: dict[int, subprocess.Popen[str]] = {}
        self.start(0)
        self.start(1)

    def start(self, server: int, *options: str) -> None:
        """Start a server, on its old port if it has one."""
        program = str(Path(__file__).with_name("powerless.py"))
        command = [sys.executable, "-P", program, str(self._disk), "--listen", self.addresses[server]]
        command += ["--servers", "2", "--shards", "2", "--server", str(server), "--out", str(self.out)]
        command += ["--coordinator", self.addresses[0]] if server else []
        process = subprocess.Popen(
            [*command, *self._options, *options], stdout=subprocess.PIPE, stderr=self._errors, text=True
        )
        assert process.stdout is not None
        self.addresses[server] = process.stdout.readline().split()[-1]
        self._processes[server] = process

    def end(self, *servers: int) -> None:
        """Kill servers."""
        for server in servers:
            process = self._processes.pop(server)
            process.kill()
            process.wait()
            assert process.stdout is not None
            process.stdout.close()

    def lose_power(self, chance: random.Random | None = None) -> int:
        """Take from the run folder what the disk was not waited for, once all servers have ended."""
        assert not self._processes
        return lose_power(self._disk, self.out, chance)

    def wait(self) -> list[int]:
        """Wait until the servers have ended by themselves, and return their exit codes."""
        return [process.wait(SECONDS) for process in self._processes.values()]

    def said(self) -> str:
        """Return what the servers have said so far."""
        self._errors.flush()
        return Path(self._errors.name).read_text()

    def close(self) -> str:
        """Kill whoever is left, and return what all have said."""
        self.end(*list(self._processes))
        text = self.said()
        self._errors.close()
        return text
