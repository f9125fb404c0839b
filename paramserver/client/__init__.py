"""The blocking gRPC client: join a job, pull weights, push gradients, watch.

Example, of a whole replica::

    from paramserver.client import Connection

    with Connection("127.0.0.1:50051") as connection:
        replica = connection.join("me", job)
        with Heartbeats(connection, replica.heartbeat_seconds, lambda: [replica.beat()]):
            if replica.rank == 0 and not replica.sealed:
                replica.initialise(first_values)
            for clock in range(replica.clock, steps):
                pulled = replica.pull(clock)
                gradients, samples = ...
                replica.push(clock, gradients, samples)
            replica.pull(steps)
        replica.leave()

``channels`` knows addresses, deadlines and how errors become sentences; ``transfers`` and ``reading`` move
tensors; ``connection`` and ``clients`` are what programs call, before they have joined and after;
``heartbeats`` is the thread that says that a replica is alive; ``own_loop`` and ``observing`` put these
together for a person's own loop: ``connect`` and ``observe``.
"""

from paramserver.client.channels import Limits
from paramserver.client.clients import ObserverClient, ReplicaClient
from paramserver.client.connected import ConnectedReplica
from paramserver.client.connection import Connection, Status
from paramserver.client.heartbeats import Heartbeats
from paramserver.client.observing import Observer, observe
from paramserver.client.own_loop import connect
from paramserver.client.reading import FencedError

__all__ = [
    "ConnectedReplica",
    "Connection",
    "FencedError",
    "Heartbeats",
    "Limits",
    "Observer",
    "ObserverClient",
    "ReplicaClient",
    "Status",
    "connect",
    "observe",
]
