"""Short ways to make and run a virtual world."""

from paramserver import sim
from paramserver.sim import Machines, parse_problem, world_from_mapping

LAN = (
    "latency=100us bandwidth=1Gbit/s server=1Gbit/s between-servers=50us "
    "rpc=80us lock=5us lock-per-byte=0.3ns"
)


def simulate(
    compute,
    network="ideal",
    faults="",
    *,
    problem="timing",
    steps=20,
    workers=4,
    threads=1,
    servers=1,
    shards=1,
    seed=0,
    size=None,
    trace_max=0,
    keep_steps=True,
    watch=None,
    **spec,
):
    machines = Machines(servers, shards, workers, threads)
    made = problem if not isinstance(problem, str) else parse_problem(problem, machines.shards_in_all)
    world = world_from_mapping(
        {"compute": compute, "network": network, "faults": faults, "seed": seed}, "a test"
    )
    return sim.simulate(
        world,
        machines,
        made,
        steps,
        bytes_in_all=size,
        trace_max=trace_max,
        keep_steps=keep_steps,
        watch=watch,
        **spec,
    )
