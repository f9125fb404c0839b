"""Virtual time: the deployed protocol without threads, sockets or waiting.

`Simulation` runs the same ``training``, ``Session``, ``Shard`` and ``Coordinator`` as the two programs; only
what carries a message and what passes the time differ. Start with ``heap`` (virtual time), then ``replica``
(what drives the training loop, with ``asking`` and ``exchanges``), ``servers``, ``shards`` and
``coordination`` (the other side), ``links`` (the way between), ``outages`` and ``checkpoints`` (servers that
end, and what they come back with). ``world`` is what a person says: ``laws`` and ``compute`` (how long
gradients take), ``network`` (what messages cost), ``faults`` (what goes wrong). ``run`` is what comes of it;
``simulate`` is all of it in one call.
"""

from paramserver.faults import Faults, parse_faults
from paramserver.sim.compute import Compute, parse_compute
from paramserver.sim.diary import StepRecord
from paramserver.sim.engine import Simulation, Watch
from paramserver.sim.heap import EventHeap
from paramserver.sim.laws import Law, parse_law
from paramserver.sim.network import Network, parse_network
from paramserver.sim.problems import Problem, Task, parse_problem
from paramserver.sim.run import Run
from paramserver.sim.simulate import simulate
from paramserver.sim.world import (
    Machines,
    World,
    check_world,
    world_from_mapping,
    world_from_toml,
    world_values_from_toml,
)

__all__ = [
    "Compute",
    "EventHeap",
    "Faults",
    "Law",
    "Machines",
    "Network",
    "Problem",
    "Run",
    "Simulation",
    "StepRecord",
    "Task",
    "Watch",
    "World",
    "check_world",
    "parse_compute",
    "parse_faults",
    "parse_law",
    "parse_network",
    "parse_problem",
    "simulate",
    "world_from_mapping",
    "world_from_toml",
    "world_values_from_toml",
]
