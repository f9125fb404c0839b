"""A world: how long everything takes in it, and what goes wrong. All of it is data, and fits in a file."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from paramserver.errors import RequestError
from paramserver.faults import NO_FAULTS, Faults, parse_faults
from paramserver.quantities import check_known
from paramserver.sim.compute import Compute, parse_compute
from paramserver.sim.network import Network, parse_network


@dataclass(frozen=True, slots=True)
class Machines:
    """Who takes part.

    Attributes:
        servers: server processes, >= 1.
        shards: of each server, >= 1.
        workers: worker processes that are there from the beginning, >= 1.
        threads: replicas of each worker, >= 1.
    """

    servers: int = 1
    shards: int = 1
    workers: int = 2
    threads: int = 1

    @property
    def replicas(self) -> int:
        """Replicas that are there from the beginning."""
        return self.workers * self.threads

    @property
    def shards_in_all(self) -> int:
        """Shards of all servers."""
        return self.servers * self.shards


@dataclass(frozen=True, slots=True)
class World:
    """Costs and faults of one simulated run.

    Attributes:
        compute: how long gradients take.
        network: what transfers and requests cost.
        faults: what goes wrong.
        seed: of all chance in the world, >= 0; the job has a seed of its own.
    """

    compute: Compute
    network: Network
    faults: Faults = NO_FAULTS
    seed: int = 0

    def to_toml(self) -> str:
        """Return the world as a world file that `world_from_toml` reads."""
        texts = {"compute": self.compute, "network": self.network, "faults": self.faults}
        lines = [f"{name} = {json.dumps(str(value))}" for name, value in texts.items()]
        return "\n".join([*lines, f"seed = {self.seed}"]) + "\n"


_PARSE = {"compute": parse_compute, "network": parse_network, "faults": parse_faults}

KEYS = (*_PARSE, "seed")
"""What a world says, by name."""


def world_from_mapping(values: Mapping[str, Any], source: str) -> World:
    """Make a world from names and texts.

    Args:
        values: ``compute`` and ``network``, which must be there, ``faults`` and ``seed``; texts as their
            ``parse`` functions read them.
        source: where they come from, for messages.

    Raises:
        RequestError: a name is unknown or missing, or a value cannot be.

    Example:
        >>> world_from_mapping({"compute": "constant:10ms", "network": "ideal"}, "an example").seed
        0
    """
    for name in values:
        check_known(name, KEYS, f"key of {source}")
    for name in ("compute", "network"):
        if name not in values:
            raise RequestError(
                f"What {name} costs is missing in {source}, and a missing cost is not taken for zero. "
                f"Give {name}, such as {'exponential:20ms' if name == 'compute' else 'ideal'}."
            )
    for name, value in values.items():
        expected = int if name == "seed" else str
        if type(value) is not expected:
            raise RequestError(f"'{name}' in {source} must be {expected.__name__}, but it is {value!r}.")
    seed = values.get("seed", 0)
    if seed < 0:
        raise RequestError(f"'seed' in {source} must be 0 or more, but it is {seed}.")
    return World(
        parse_compute(values["compute"]),
        parse_network(values["network"]),
        parse_faults(values.get("faults", "")),
        seed,
    )


def world_from_toml(text: str, source: str) -> World:
    """Read a world file.

    Args:
        text: TOML with the keys of `world_from_mapping`.
        source: the file's name, for messages.

    Raises:
        RequestError: it is not TOML, or no possible world.
    """
    return world_from_mapping(world_values_from_toml(text, source), f"the world file {source}")


def world_values_from_toml(text: str, source: str) -> dict[str, Any]:
    """Return what a world file says, and nothing of what it does not say.

    Args:
        text: TOML with keys of `world_from_mapping`, none of which has to be there.
        source: the file's name, for messages.

    Raises:
        RequestError: it is not TOML, or has a key that is no world's.
    """
    try:
        values = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise RequestError(f"The world file {source} is not valid TOML: {error}.") from None
    for name in values:
        check_known(name, KEYS, f"key of the world file {source}")
    return values


def newcomers(world: World, machines: Machines) -> int:
    """Return how many workers join late.

    Raises:
        RequestError: they are not the ones after the last, each once.
    """
    late = sorted(
        blow.worker for blow in world.faults.blows if blow.kind == "join" and blow.worker is not None
    )
    expected = list(range(machines.workers, machines.workers + len(late)))
    if late != expected:
        raise RequestError(
            f"Late workers are numbered on from the last one, each once: with {machines.workers} workers "
            f"from the beginning expected {_names(expected)}, but found {_names(late)}."
        )
    return len(late)


def loses_servers(world: World) -> bool:
    """Say whether some server ends in this world."""
    return any(blow.kind == "crash" and blow.server is not None for blow in world.faults.blows)


def check_world(world: World, machines: Machines) -> None:
    """Refuse a world that cannot be with these machines, before anything runs.

    Raises:
        RequestError: names what cannot be, and why.
    """
    for name in ("servers", "shards", "workers", "threads"):
        if getattr(machines, name) < 1:
            raise RequestError(f"'{name}' must be 1 or more, but it is {getattr(machines, name)}.")
    if machines.servers > 1 and world.network.between_servers_ns is None:
        raise RequestError(
            "Between several servers orders and reports travel, but the network does not say how long they "
            "take. Give between-servers=50us, say."
        )
    for blow in world.faults.blows:
        if blow.server is not None and blow.server >= machines.servers:
            last = f"s0 to s{machines.servers - 1}" if machines.servers > 1 else "s0"
            raise RequestError(
                f"There is no server s{blow.server}, but '{blow}' of the faults names it: there "
                f"{'are' if machines.servers > 1 else 'is'} {machines.servers}, {last}."
            )
    if loses_servers(world) and world.network.checkpoint_ns is None:
        raise RequestError(
            "A server that ends comes back with a checkpoint, but the network does not say what that costs. "
            "Give checkpoint=5ms checkpoint-per-byte=2ns, say."
        )
    workers = machines.workers + newcomers(world, machines)
    mentioned = [(f"'{slow}' of the compute time", slow.worker) for slow in world.compute.slow]
    mentioned += [(f"'w{worker}.bandwidth' of the network", worker) for worker, _ in world.network.slow_links]
    mentioned += [(f"'{blow}' of the faults", blow.worker) for blow in world.faults.blows]
    for what, worker in mentioned:
        if worker is not None and worker >= workers:
            raise RequestError(
                f"There is no worker w{worker}, but {what} names it: there are {workers}, w0 to "
                f"w{workers - 1}."
            )


def _names(workers: list[int]) -> str:
    return ", ".join(f"w{worker}" for worker in workers) or "none"
