"""Worlds in which anything may go wrong at any time, and at the same time; each is drawn from a seed."""

from __future__ import annotations

import shlex
from dataclasses import dataclass

import numpy as np

from paramserver.data import generator
from paramserver.faults import parse_faults
from paramserver.quantities import NANOSECONDS
from paramserver.sim import Machines, World, world_from_mapping

LAN = (
    "latency=100us bandwidth=1Gbit/s server=1Gbit/s between-servers=50us "
    "rpc=80us lock=5us lock-per-byte=0.3ns checkpoint=2ms checkpoint-per-byte=1ns"
)

BYTES = 1000
"""What all weights weigh, whatever they are."""

SAMPLES, BATCH = 120, 4
"""Of one epoch that is dealt out, and of one step: 30 steps of all replicas together."""

STEP_MS = 20
"""About what a step takes where nothing goes wrong."""

TIMES = {"lease_seconds": 2.0, "restart_timeout_seconds": 4.0, "start_timeout_seconds": 20.0}

CHANCES = (("lose", ""), ("duplicate", ""), ("delay", "+50ms..400ms"), ("reorder", "+5ms"))
BLOWS = ("crash", "crash", "pause", "partition", "server crash", "server crash", "server pause")
COMES_AND_GOES = ("join", "leave")

LASTS_MS = (1, 20, 300, 900, 1500, 2500, 4000, 5000)
"""From what nobody notices to longer than a lease, and than what a dead rank is waited for."""

SOON_MS = (0, 0.05, 0.3, 1, 2, 3, 5, 10, 50, 300, 2000, 2010)
"""So much after another blow, or after its end, comes a blow that is to meet what it has set going: a report
on its way, a checkpoint that is being read, a replica that joins again, a lease that runs out."""


@dataclass(frozen=True)
class RandomWorld:
    """A job, its machines, and what goes wrong.

    Attributes:
        seed: of the world's chance.
        rule: the consistency.
        on_death: ``drop`` or ``restart``.
        machines: who takes part.
        steps: of each replica; about so many where samples are dealt out.
        epochs: of samples that the coordinator deals out; 0: each replica has its steps.
        checkpoint_every: updates; 0: only at the beginning.
        restarts_max: of one rank, or one server.
        faults: as the command line has them.
    """

    seed: int
    rule: str
    on_death: str
    machines: Machines
    steps: int
    epochs: int
    checkpoint_every: int
    restarts_max: int
    faults: str

    @property
    def world(self) -> World:
        """The costs and faults."""
        values = {"compute": "exponential:10ms", "network": LAN, "faults": self.faults, "seed": self.seed}
        return world_from_mapping(values, "a random world")

    @property
    def kinds(self) -> set[str]:
        """What goes wrong, by name."""
        faults = parse_faults(self.faults)
        kinds = {chance.kind for chance in faults.chances}
        return kinds | {blow.kind if blow.server is None else f"server {blow.kind}" for blow in faults.blows}

    @property
    def late(self) -> int:
        """How many workers join late."""
        return sum(blow.kind == "join" for blow in parse_faults(self.faults).blows)

    @property
    def replicas_max(self) -> int:
        """How many replicas there will be."""
        return (self.machines.workers + self.late) * self.machines.threads

    @property
    def is_steady(self) -> bool:
        """Say whether the same replicas do all the work, whatever befalls them."""
        return self.on_death == "restart" and not self.kinds & set(COMES_AND_GOES)

    @property
    def must_finish(self) -> bool:
        """Say whether nothing goes so wrong that the job may give up."""
        faults = parse_faults(self.faults)
        short = all(blow.lasts is not None and blow.lasts.most <= 1.5 * NANOSECONDS for blow in faults.blows)
        return self.is_steady and short and len(faults.blows) <= min(3, self.restarts_max)

    def command(self) -> str:
        """Return the command that lets the same happen at the same times, with other gradients.

        For samples that are dealt out there is none, but `judging` tells of any seed.
        """
        machines = self.machines
        words = ["paramserver", "simulate", "--problem", f"timing:{BYTES}B", "--steps", self.steps]
        words += ["--servers", machines.servers, "--shards", machines.shards]
        words += ["--workers", machines.workers, "--threads", machines.threads]
        words += ["--consistency", self.rule, "--on-death", self.on_death]
        words += ["--checkpoint-every", self.checkpoint_every or "never", "--max-restarts", self.restarts_max]
        for name, seconds in TIMES.items():
            option = name if name == "lease_seconds" else name.removesuffix("_seconds")
            words += [f"--{option.replace('_', '-')}", f"{seconds:g}"]
        words += ["--compute", "exponential:10ms", "--network", LAN, "--faults", self.faults]
        return shlex.join(map(str, [*words, "--world-seed", self.seed]))


def draw_world(seed: int) -> RandomWorld:
    """Return what a seed stands for, for ever."""
    rng = generator(seed, "a random world of faults that meet")
    machines = Machines(
        servers=int(rng.integers(1, 4)),
        shards=int(rng.integers(1, 3)),
        workers=int(rng.integers(1, 5)),
        threads=int(rng.integers(1, 3)),
    )
    kinds = BLOWS + COMES_AND_GOES * bool(rng.random() < 0.3)
    words = [f"{kind}={rng.integers(1, 6)}%{late}" for kind, late in CHANCES if rng.random() < 0.2]
    steps, epochs = int(rng.integers(5, 60)), int(rng.integers(1, 8)) * bool(rng.random() < 0.5)
    if epochs:
        steps = epochs * -(-SAMPLES // (BATCH * machines.replicas))
    return RandomWorld(
        seed,
        rule=str(rng.choice(["sync", "sync", "async", "ssp:0", "ssp:2"])),
        on_death=str(rng.choice(["restart", "restart", "drop"])),
        machines=machines,
        steps=steps,
        epochs=epochs,
        checkpoint_every=int(rng.choice([0, 1, 2, 4, 8, 10, 20])),
        restarts_max=int(rng.choice([3, 10])),
        faults=" ".join([*words, *_draw_blows(rng, machines, kinds, STEP_MS * steps)]),
    )


def draw_rounds_with_lost_servers(seed: int) -> RandomWorld:
    """Return a world in which rounds have to survive the loss of both servers, a kill and a hang.

    The hanging worker is replaced as the launcher does it: killed once it is believed dead, and started.
    """
    rng = generator(seed, "rounds with lost servers")
    blows, at = list[str](), 100.0
    kinds = rng.permutation(["crash=w1", "crash=s1", "crash=s0", "pause=w1", "crash=s0"])
    for blow in kinds[: rng.integers(2, 6)]:
        at += float(rng.choice([*SOON_MS, 700, 2500])) + float(rng.random()) * STEP_MS
        lasts = float(rng.choice([300, 700, 1500]))
        blows.append(f"{blow}@{round(at * 1000)}us+{60_000 if blow == 'pause=w1' else lasts:g}ms")
        if blow == "pause=w1":
            blows.append(f"crash=w1@{round((at + 3000 + lasts) * 1000)}us+700ms")
    return RandomWorld(
        seed,
        "sync",
        "restart",
        Machines(servers=2, shards=1, workers=2, threads=2),
        steps=75,
        epochs=10,
        checkpoint_every=int(rng.choice([2, 5, 10])),
        restarts_max=10,
        faults=" ".join(blows),
    )


def _draw_blows(
    rng: np.random.Generator, machines: Machines, kinds: tuple[str, ...], last_ms: int
) -> list[str]:
    blows, moments = list[str](), list[float]()
    newcomers = 0
    for _ in range(int(rng.integers(0, 9))):
        at = float(rng.integers(0, last_ms))
        if moments and rng.random() < 0.6:
            at = float(rng.choice(moments)) + float(rng.choice(SOON_MS))
        lasts = int(rng.choice(LASTS_MS))
        moments += [at, at + lasts]
        kind = str(rng.choice(kinds))
        when = f"@{round(at * 1000)}us"
        for_ever = rng.random() < 0.05
        who = f"w{rng.integers(machines.workers)}"
        if kind.startswith("server"):
            who = f"s{rng.integers(machines.servers)}"
        if kind == "join":
            who = f"w{machines.workers + newcomers}"
            newcomers += 1
        ends = "" if kind in COMES_AND_GOES or (for_ever and kind.endswith("crash")) else f"+{lasts}ms"
        blows.append(f"{kind.removeprefix('server ')}={who}{when}{ends}")
    return blows
