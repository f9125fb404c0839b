"""A training loop of your own against the servers of a job: ``connect``."""

from __future__ import annotations

import uuid
from collections.abc import Collection, Mapping
from contextlib import ExitStack
from pathlib import Path

from paramserver.client.connected import ConnectedReplica, rounded
from paramserver.client.connection import Connection
from paramserver.consistency import parse_consistency
from paramserver.errors import RequestError, did_you_mean
from paramserver.events import JobSpec, TensorSpec
from paramserver.security import read_access
from paramserver.types import AnyArray


def connect(
    address: str,
    *,
    weights: Mapping[str, AnyArray],
    name: str = "",
    replicas: int = 1,
    consistency: str = "sync",
    optimizer: str = "sgd",
    lr: float = 0.01,
    schedule: str = "constant",
    tables: Collection[str] = (),
    steps: int = 0,
    model: str = "own loop",
    seed: int = 0,
    on_death: str = "auto",
    lease_seconds: float = 10.0,
    step_timeout: float = 600.0,
    start_timeout: float = 60.0,
    token: str | None = None,
    tls_ca: str | Path | None = None,
    tls_cert: str | Path | None = None,
    tls_key: str | Path | None = None,
) -> ConnectedReplica:
    """Join a job as one replica, whose training loop is your own.

    Blocks until the servers have answered, or ``start_timeout`` has passed. The first replica to join says
    what the job is; every other one has to say the same, but for its name and the values of its weights.
    The values of the first one count.

    Args:
        address: of the first server, ``HOST:PORT``.
        weights: the tensors of the model by key, of any shapes, float32 or rounded to it.
        name: who this is. The same name again is a restart of the same replica: it goes on at its ``clock``,
            and whoever had the name before counts no more. Left empty it is a name that nobody else has.
        replicas: how many take part; nothing begins before all have joined.
        consistency: ``sync``, ``async`` or ``ssp:N``.
        optimizer: what the servers do with gradients, such as ``sgd``, ``momentum:0.9`` or ``adam``.
        lr: learning rate per update.
        schedule: of the learning rate, such as ``constant`` or ``cosine``.
        tables: keys of tensors that your model reads row by row: then a pull may name rows of them, and a
            gradient of them may be a ``RowGradient``.
        steps: how many steps each replica means to do, which is where a schedule ends; 0: not known.
        model: a name for people and for the checkpoint.
        seed: for the checkpoint; your loop draws its own chance.
        on_death: ``restart`` (wait for a replica that died to come back), ``drop`` (go on without it), or
            ``auto``: restart for sync, drop for async and ssp.
        lease_seconds: a replica unheard of for this long is dead; heartbeats run by themselves.
        step_timeout: seconds that may pass between a pull and its push.
        start_timeout: seconds that servers and replicas have to come up and join.
        token: of the job, if its servers ask for one; None: what ``PARAMSERVER_TOKEN`` says, which
            ``paramserver.serve`` sets.
        tls_ca: a file with the certificates to trust, which turns TLS on; None: what ``PARAMSERVER_TLS_CA``
            names, if anything.
        tls_cert: a file with your certificate, where servers ask for one (``PARAMSERVER_TLS_CERT``).
        tls_key: its private key (``PARAMSERVER_TLS_KEY``).

    Returns:
        The replica, for a ``with`` block.

    Raises:
        RequestError: an argument is wrong, or the servers train another job.
        JobError: no server answered in time, or the job is over.

    Example:
        >>> import numpy as np
        >>> with connect("127.0.0.1:1", weights={"w": np.zeros(3)}, start_timeout=0.1) as replica:
        ...     for step in range(replica.clock, 100):
        ...         values = replica.pull()
        ...         verdict = replica.push({"w": 2 * (values["w"] - 1)}, samples=1)
        Traceback (most recent call last):
        paramserver.errors.JobError: '...' could not join the job at 127.0.0.1:1 within 0.1 s. ...
    """
    check_address(address)
    access = read_access(ca=tls_ca, cert=tls_cert, key=tls_key, token=token)
    first = {key: rounded(key, value) for key, value in weights.items()}
    for key in tables:
        if key not in first:
            raise RequestError(f"There is no tensor '{key}' to be a table.{did_you_mean(key, first)}")
    gathers = parse_consistency(consistency).gathers
    if schedule != "constant" and steps < 1:
        raise RequestError(
            f"The schedule '{schedule}' ends with the job, so say with steps=N how many steps each replica "
            "does."
        )
    job = JobSpec(
        tensors=tuple(TensorSpec(key, first[key].shape, table=key in tables) for key in sorted(first)),
        model=model,
        consistency=consistency,
        optimizer=optimizer,
        learning_rate=lr,
        schedule=schedule,
        versions_total=max(steps if gathers else steps * replicas, 1),
        seed=seed,
        replicas=replicas,
        replicas_max=replicas,
        on_death=("restart" if gathers else "drop") if on_death == "auto" else on_death,
        lease_seconds=lease_seconds,
        step_timeout_seconds=step_timeout,
        start_timeout_seconds=start_timeout,
    )
    with ExitStack() as stack:
        connection = stack.enter_context(Connection(address, access=access))
        client = connection.join(name or f"own-{uuid.uuid4().hex[:8]}", job, start_timeout)
        replica = ConnectedReplica(client, steps)
        stack.push(replica.__exit__)
        if client.rank == 0 and not client.sealed:
            client.initialise(first)
        stack.pop_all()
    return replica


def check_address(address: str) -> None:
    """Refuse what is no ``HOST:PORT``.

    Raises:
        RequestError: it is not.
    """
    host, colon, port = address.rpartition(":")
    if not colon or not host or not (port.isascii() and port.isdigit()) or not 0 < int(port) < 65536:
        raise RequestError(
            f"The address of a server is HOST:PORT, such as 127.0.0.1:7070, but found '{address}'."
        )
