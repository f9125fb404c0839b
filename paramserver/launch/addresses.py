"""Where the servers of a run listen: a file in its folder while it runs, for whoever wants to watch."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from paramserver.errors import JobError, RequestError
from paramserver.storage import RunFolder

SERVERS = "servers.json"


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


def remove_addresses(folder: RunFolder) -> None:
    """Remove them: nobody listens there any more."""
    (folder.path / SERVERS).unlink(missing_ok=True)


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


def newest_run(runs: Path) -> Path:
    """Return the folder of the newest run that is going on.

    Args:
        runs: the folder of run folders.

    Raises:
        RequestError: none is.
    """
    going = sorted(runs.glob(f"*/{SERVERS}"), key=lambda path: path.stat().st_mtime_ns)
    if not going:
        raise RequestError(
            f"No run is going on in {runs.absolute()}. Start one with paramserver train, name the folder of "
            "a run, or say --connect HOST:PORT."
        )
    return going[-1].parent
