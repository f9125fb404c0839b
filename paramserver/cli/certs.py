"""The command ``certs``: a CA, certificates and tokens for one cluster."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from paramserver.errors import RequestError

DAYS, DAYS_MAX = 365, 3650


def certs(
    folder: Annotated[
        Path, typer.Argument(metavar="DIR", help="Where they go; nothing is overwritten.", show_default=False)
    ],
    host: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="A name or address under which servers are reached; again for each one more. localhost, "
            "127.0.0.1 and ::1 are in any case.",
            show_default=False,
        ),
    ] = None,
    days: Annotated[
        int, typer.Option(metavar="N", help=f"How long they are valid. (default: {DAYS})", show_default=False)
    ] = DAYS,
) -> int:
    """Make a private CA, certificates and tokens for the servers and workers of one cluster.

    DIR/server is for the machines of servers, DIR/worker for all others. The key of the CA is not kept, so
    that nobody can make more certificates of it: for another host name or after the last day, make new ones.
    """
    if not 1 <= days <= DAYS_MAX:
        raise RequestError(f"--days is from 1 to {DAYS_MAX}, and {days} was given.")
    from paramserver.security.certificates import LOCAL_HOSTS, make_certificates

    end = make_certificates(folder, host or [], days)
    typer.echo(
        f"Certificates for {', '.join([*LOCAL_HOSTS, *(host or [])])}, valid until {end:%Y-%m-%d %H:%M} UTC."
    )
    typer.echo(f"{folder / 'server'}: ca.crt, server.crt, server.key, token, internal-token")
    typer.echo(f"{folder / 'worker'}: ca.crt, worker.crt, worker.key, token")
    typer.echo("Keys and tokens are for their owner's eyes alone. The key of the CA was not kept.")
    return 0
