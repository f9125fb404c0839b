"""Stops a process of a run at drawn moments, and asks the test whether it goes on.

Python imports a module of this name by itself when it starts. So the programs under test are the very ones
that are deployed, started by their own launcher, and a kill can be put at one line of them: a process that is
killed while it is stopped ends in that very moment, and one that is not goes on from there.

``PARAMSERVER_STOPS`` says where: ``{"port": 4711, "stops": [["server 1", "has a gradient", 37], ...]}``.
"""

from __future__ import annotations

import json
import os
import socket
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from importlib.machinery import ModuleSpec, PathFinder
from itertools import count
from pathlib import Path
from types import ModuleType
from typing import Any

ANSWER_SECONDS = 60.0
"""How long a stop may last: a test that is gone lets everybody go on."""


@dataclass(frozen=True)
class Moment:
    """Where a moment is in the code.

    Attributes:
        module: that has the function.
        name: of the function there, such as ``Shards.order``.
        after: the moment is when the function has returned.
        counts: says of its arguments whether this call is such a moment.
    """

    module: str
    name: str
    after: bool = False
    counts: Callable[..., bool] = lambda *_, **__: True


def _is(kind: str) -> Callable[..., bool]:
    """Say whether the last argument is of a class of this name."""
    return lambda *arguments, **_: type(arguments[-1]).__name__ == kind


def _waits(*arguments: Any, **_: Any) -> bool:
    """Say whether the last argument is a pull that waits for somebody."""
    return bool(getattr(arguments[-1], "waits_for", ()))


def _syncs_a_cut(file: int, **_: Any) -> bool:
    """Say whether the disk is waited for with a shard's part of a checkpoint, which has no name yet."""
    try:
        path = str(Path(f"/proc/self/fd/{file}").readlink())
    except OSError:
        return False
    return ".safetensors." in path and path.endswith(".partial")


def _second_half(_: object, shard: int, first: object, *__: Any) -> bool:
    """Say whether a push is being sent to another than the first shard."""
    return shard > 0 and type(first).__name__ == "PushRequest"


SERVER = {
    "opens": Moment("server.shards", "Shards.order", counts=_is("Sealed")),
    "sends weights": Moment("server.transfers", "Transfers._send"),
    "has a gradient": Moment("server.transfers", "Transfers._push"),
    "answers a push": Moment("server.shards", "Shards._deliver", counts=_is("PushAnswered")),
    "lets a pull wait": Moment("server.shards", "Shards._deliver", counts=_waits),
    "closes a round": Moment("server.shards", "Shards.order", counts=_is("RoundClosed")),
    "begins a cut": Moment("server.checkpoints", "write_cut"),
    "is writing a cut": Moment("paramserver.storage.atomic", "os.fsync", counts=_syncs_a_cut),
    "has written a cut": Moment("server.checkpoints", "write_cut", after=True),
    "finishes a checkpoint": Moment("server.checkpoints", "finish_checkpoint"),
    "has finished a checkpoint": Moment("server.checkpoints", "finish_checkpoint", after=True),
    "comes back": Moment("server.program", "come_back"),
    "goes back": Moment("server.shards", "Shards._restore"),
    "keeps the last weights": Moment("server.finish", "_write_shards"),
    "finishes the last weights": Moment("server.finish", "finish_checkpoint"),
    "has finished the last weights": Moment("server.finish", "finish_checkpoint", after=True),
    "writes the summary": Moment("server.finish", "_write_summary"),
}

WORKER = {
    "joins": Moment("paramserver.client.connection", "Connection.join"),
    "pulls": Moment("worker.replica", "ReplicaLoop._pull"),
    "pushes": Moment("worker.replica", "ReplicaLoop._push"),
    "has pushed to the first shard": Moment(
        "paramserver.client.transfers", "Transfers._begin_sending", counts=_second_half
    ),
    "has pushed": Moment("worker.replica", "ReplicaLoop._push", after=True),
    "waits": Moment("worker.replica", "ReplicaLoop._note_wait", counts=_waits),
    "joins again": Moment("worker.replica", "ReplicaLoop.rejoin"),
    "leaves": Moment("paramserver.client.connection", "ReplicaClient.leave"),
}


def place(command: list[str]) -> str:
    """Return which process this is, such as ``server 1``; empty for one that is never stopped."""
    role = command[command.index("-m") + 1] if "-m" in command[:-1] else ""
    if role not in ("server", "worker") or f"--{role}" not in command:
        return ""
    return f"{role} {command[command.index(f'--{role}') + 1]}"


class Stops(PathFinder):
    """Wraps functions in modules as they are imported.

    Args:
        here: which process this is.
        port: where the test listens.
        stops: of each moment the counts at which the process stops.
    """

    def __init__(self, here: str, port: int, stops: dict[str, set[int]]) -> None:
        self._here = here
        self._port = port
        moments = SERVER if here.startswith("server") else WORKER
        self._waiting: dict[str, list[tuple[str, Moment, set[int]]]] = {}
        for name, counts in stops.items():
            moment = moments[name]
            self._waiting.setdefault(moment.module, []).append((name, moment, counts))

    def find_spec(self, name: str, path: Any = None, target: ModuleType | None = None) -> ModuleSpec | None:
        """Find a module as usual, and wrap its functions once it has been run."""
        wraps = self._waiting.pop(name, None)
        if wraps is None:
            return None
        spec = PathFinder.find_spec(name, path, target)
        assert spec is not None
        assert spec.loader is not None
        run = spec.loader.exec_module

        def run_and_wrap(module: ModuleType) -> None:
            run(module)
            for moment_name, moment, counts in wraps:
                self._wrap(module, moment_name, moment, counts)

        spec.loader.exec_module = run_and_wrap  # type: ignore[method-assign]
        return spec

    def _wrap(self, module: ModuleType, moment_name: str, moment: Moment, counts: set[int]) -> None:
        *owners, name = moment.name.split(".")
        owner: Any = getattr(module, owners[0]) if owners else module
        function = getattr(owner, name)
        counter = count(1)

        def stop() -> None:
            number = next(counter)
            if number in counts:
                self._stop(moment_name, number)

        def wrapped(*arguments: Any, **more: Any) -> Any:
            counts_here = moment.counts(*arguments, **more)
            if counts_here and not moment.after:
                stop()
            found = function(*arguments, **more)
            if counts_here and moment.after:
                stop()
            return found

        setattr(owner, name, wrapped)

    def _stop(self, moment: str, number: int) -> None:
        words = {"place": self._here, "pid": os.getpid(), "moment": moment, "count": number}
        with suppress(OSError), socket.create_connection(("127.0.0.1", self._port), ANSWER_SECONDS) as talk:
            talk.sendall(json.dumps(words).encode() + b"\n")
            talk.recv(1)


def _begin() -> None:
    said = os.environ.get("PARAMSERVER_STOPS")
    here = place(sys.orig_argv)
    if not said or not here:
        return
    plan = json.loads(said)
    stops: dict[str, set[int]] = {}
    for where, moment, number in plan["stops"]:
        if where == here:
            stops.setdefault(moment, set()).add(number)
    if stops:
        sys.meta_path.insert(0, Stops(here, plan["port"], stops))


_begin()
