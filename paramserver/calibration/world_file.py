"""A measured world as a file that says what each of its numbers is, and where it comes from."""

from __future__ import annotations

from paramserver.job import Job
from paramserver.sim import World
from paramserver.sim.estimate import Measured

_NOTES = """\
# compute: the time of a gradient ({gradients:,} measured; each time here stands for an equal share of them),
#   and cpu, the share of it that needs a core: processor time over wall time of the same gradients
#
# network, from {single} and {several} requests at a time without weights, and one with {size:,} bytes:
#   client, client-per-request, client-per-byte: processor time of the replica's process for a pull or a push,
#     for each of its requests, for each byte
#   rpc, rpc-per-byte: processor time of the server for a request and for a byte, without what follows
#   lock, lock-per-byte: how long the shard's lock was held, for an event and for a byte that was applied
#   latency, bandwidth: what is left of the wall time of a pull or push without and with weights
#   between-servers: latency and half of rpc; not measured by itself
{cores}#   server: unlimited, since nothing was measured that several workers share but the server's own time
"""

_CORES = {
    True: "#   cores: how many times as much as one core all cores of this machine did together\n",
    False: (
        "#   cores: left out, for servers and workers are taken to be on machines of their own\n"
        "#   latency and bandwidth: those of the link to {connect} are in them\n"
    ),
}


def world_file(job: Job, world: World, measured: Measured, connect: str = "") -> str:
    """Return a world file with notes.

    Args:
        job: what was run.
        world: what was estimated.
        measured: what it was estimated from.
        connect: the server on another machine that was measured, too; empty for none.
    """
    what = job.code or f"{job.model} on {job.data}"
    notes = _NOTES.format(
        gradients=len(measured.gradients_ns),
        single=measured.single.requests,
        several=measured.several.requests,
        size=measured.whole.size,
        cores=_CORES[not connect].format(connect=connect),
    )
    return (
        f"# Measured by paramserver calibrate with {what}, batch {job.batch}.\n#\n{notes}\n{world.to_toml()}"
    )
