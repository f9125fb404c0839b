"""Where the servers of a run listen, and its token: files in its folder while it runs, for who may watch."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path

from paramserver.errors import JobError, RequestError
from paramserver.storage import RunFolder

SERVERS = "servers.json"

TOKEN_FILE = "token"
"""In the run folder while it runs; only its owner can read it."""


def write_addresses(folder: RunFolder, connect: str, metrics: Sequence[str] = ()) -> None:
    """Write where the servers of a run listen.

    Args:
        folder: of the run.
        connect: host:port of the coordinator, which knows the others.
        metrics: URL of each server's metrics, by index.

    Raises:
        JobError: the disk refuses.
    """
    folder.write_json(SERVERS, {"connect": connect, "metrics": list(metrics)})


def write_token(folder: RunFolder, token: str) -> None:
    """Write a run's token, so that its owner's other programs can take part or look.

    Args:
        folder: of the run.
        token: of its servers.

    Raises:
        JobError: the disk refuses.
    """
    path = folder.path / TOKEN_FILE
    try:
        path.unlink(missing_ok=True)
        # The mode is that of the first moment: nobody reads it between its making and a chmod.
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(token)
    except OSError as error:
        raise JobError(f"The token cannot be written to {path}: {error.strerror or error}.") from None


def token_file(run: Path) -> Path | None:
    """Return where the token of a run is; None if its servers ask for none, or it is over."""
    path = run / TOKEN_FILE
    return path if path.exists() else None


def remove_addresses(folder: RunFolder) -> None:
    """Remove addresses and token: nobody listens there any more."""
    for name in (SERVERS, TOKEN_FILE):
        (folder.path / name).unlink(missing_ok=True)


def read_address(run: Path) -> str:
    """Return where the coordinator of a run listens.

    Raises:
        RequestError: this is not the folder of a run that has servers.
        JobError: the run is over.
    """
    try:
        address = json.loads((run / SERVERS).read_text())["connect"]
    except FileNotFoundError:
        pass
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RequestError(f"{run / SERVERS} cannot be read: {error}.") from None
    else:
        return str(address)
    if ending := read_ending(run):
        raise JobError(ending)
    if not run.is_dir():
        raise RequestError(f"There is no folder {run}. Name that of a run, or --connect HOST:PORT.")
    raise RequestError(
        f"{run} is not the folder of a job with servers: it has no {SERVERS}. A run writes it once its first "
        "server is up; the engines without server processes have none."
    )


def read_ending(run: Path) -> str:
    """Say how a run has ended, in a sentence or two; empty if it has not."""
    summary = run / "summary.json"
    try:
        found = json.loads(summary.read_text())
        outcome, reason = str(found["outcome"]), str(found.get("reason") or "")
    except (OSError, ValueError, KeyError, TypeError):
        return ""
    because = f" {reason}" if reason else ""
    return f"The run in {run} is over ({outcome}).{because} Its figures are in {summary}."


def newest_run(runs: Path, has: str = SERVERS) -> Path:
    """Return the folder of the newest run that is going on.

    Args:
        runs: the folder of run folders.
        has: name of a file that a run folder has while the run goes on.

    Raises:
        RequestError: none is.
    """
    going = sorted(runs.glob(f"*/{has}"), key=lambda path: path.stat().st_mtime_ns)
    if not going:
        raise RequestError(
            f"No run is going on in {runs.absolute()}. Start one with paramserver train, name the folder of "
            "a run, or say --connect HOST:PORT."
        )
    return going[-1].parent
