"""The command ``check``: the audit of a run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def check(
    run: Annotated[
        Path,
        typer.Argument(metavar="RUN", help="The folder of a run; it may go on, or have been killed."),
    ],
    as_json: Annotated[
        bool, typer.Option("--json", metavar="", help="Print one JSON document instead of tables.")
    ] = False,
) -> int:
    """Verify a run offline, from its journals and checkpoints: was every answer the right one?

    Every push once, versions without a gap, reads as the consistency model allows, rounds of the live
    replicas and alike on all shards, samples accounted for, and the same answers when all is done again.
    Exit code 1 says that something is wrong, with the fewest events that show it.
    """
    from paramserver.cli.checking import show_check

    return show_check(run, as_json)
