"""Reading the weights of a running job without taking part: ``observe``."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType

from paramserver.client.clients import ObserverClient
from paramserver.client.connection import Connection
from paramserver.client.own_loop import check_address
from paramserver.events import JobSpec
from paramserver.security import read_access
from paramserver.types import Array


def observe(
    address: str,
    *,
    name: str = "observer",
    timeout: float = 60.0,
    token: str | None = None,
    tls_ca: str | Path | None = None,
    tls_cert: str | Path | None = None,
    tls_key: str | Path | None = None,
) -> Observer:
    """Look at a running job; nobody waits for an observer, and none is counted.

    Blocks until there is a job, or the timeout has passed.

    Args:
        address: of the first server, ``HOST:PORT``.
        name: who this is, for people.
        timeout: seconds to try while there is no job.
        token: of the job, if its servers ask for one; None: what ``PARAMSERVER_TOKEN`` says, which
            ``paramserver.serve`` sets.
        tls_ca: a file with the certificates to trust, which turns TLS on; None: what ``PARAMSERVER_TLS_CA``
            names, if anything.
        tls_cert: a file with your certificate, where servers ask for one (``PARAMSERVER_TLS_CERT``).
        tls_key: its private key (``PARAMSERVER_TLS_KEY``).

    Returns:
        The observer, for a ``with`` block.

    Raises:
        RequestError: the address is none.
        JobError: there was no job in time, or it is over.

    Example:
        >>> with observe("127.0.0.1:1", timeout=0.1) as observer:
        ...     values = observer.pull()
        Traceback (most recent call last):
        paramserver.errors.JobError: 'observer' could not join the job at 127.0.0.1:1 within 0.1 s. ...
    """
    check_address(address)
    access = read_access(ca=tls_ca, cert=tls_cert, key=tls_key, token=token)
    connection = Connection(address, access=access)
    try:
        return Observer(connection.observe(name, timeout))
    except BaseException:
        connection.close()
        raise


class Observer:
    """Reads the weights of a job while others train; ``observe`` makes it.

    Attributes:
        job: what is trained.
        versions: updates applied on each shard to the weights that were pulled last.
    """

    def __init__(self, client: ObserverClient) -> None:
        self.job: JobSpec = client.job
        self.versions: tuple[int, ...] = client.session.versions
        self._client = client

    def __enter__(self) -> Observer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def pull(self) -> dict[str, Array]:
        """Read the newest weights.

        In a synchronous mode they are of one round, which all shards are known to have: while the job runs,
        the one before the newest.

        Returns:
            Fresh float32 arrays by key.

        Raises:
            JobError: there are no weights yet (its ``failure`` is ``UNAVAILABLE``), or a server does not
                answer, as when the job is over.
        """
        pulled = self._client.pull()
        self.versions = pulled.versions
        return pulled.values

    def close(self) -> None:
        """Look no more."""
        self._client.connection.close()
