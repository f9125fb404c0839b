"""The command ``status``: how a running job stands."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from paramserver.cli.keys import AsJson, Keys, TlsCa, TlsCert, TlsKey, TokenFile
from paramserver.errors import RequestError


def status(
    run: Annotated[
        Path | None,
        typer.Argument(
            metavar="[RUN]",
            help="The folder of a run. (default: the newest in runs/ that is going on)",
            show_default=False,
        ),
    ] = None,
    connect: Annotated[
        str | None,
        typer.Option(
            metavar="HOST:PORT[,...]",
            help="The first server, in place of a folder; others, too, if they cannot be reached under the "
            "addresses that they advertise.",
            show_default=False,
        ),
    ] = None,
    watch: Annotated[
        bool,
        typer.Option(
            "--watch",
            metavar="",
            help="Go on until the job is over, or Ctrl-C; with --json a document a line.",
        ),
    ] = False,
    every: Annotated[
        float,
        typer.Option(
            metavar="SECONDS", help="Between two looks with --watch. (default: 1)", show_default=False
        ),
    ] = 1.0,
    as_json: AsJson = False,
    token_file: TokenFile = None,
    tls_ca: TlsCa = None,
    tls_cert: TlsCert = None,
    tls_key: TlsKey = None,
) -> int:
    """Show how a running job stands: its servers, shards and replicas.

    A replica's row says its clock (finished steps), the staleness of its newest gradient, its samples per
    second, what it does now, and for which ranks it waits.
    """
    if run is not None and connect is not None:
        raise RequestError(f"Both the folder {run} and --connect {connect} were given. Give one.")
    if not 0.1 <= every <= 3600:
        raise RequestError(f"--every is from 0.1 to 3600 seconds, and {every:g} was given.")
    from paramserver.cli.watching import show_status

    keys = Keys(token_file, tls_ca, tls_cert, tls_key)
    return show_status(run, connect, every if watch else None, as_json, keys)
