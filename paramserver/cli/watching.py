"""How a running job stands, on a terminal or as JSON; imported only once somebody asks."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

from rich.console import Console

from paramserver.cli.keys import NO_KEYS, Keys
from paramserver.client.own_loop import check_address
from paramserver.errors import Failure, JobError, RequestError
from paramserver.launch.addresses import newest_run, read_address, read_ending, token_file
from paramserver.launch.live import LiveTable, is_live
from paramserver.launch.overview import Overview
from paramserver.launch.progress import line_of
from paramserver.launch.view import JobView, state_of
from paramserver.launch.watch import Watch
from paramserver.storage import json_text

RUNS = Path("runs")

SILENCES_MAX = 3
"""After so many questions without an answer a watch ends."""


def show_status(
    run: Path | None, connect: str | None, every: float | None, as_json: bool, keys: Keys = NO_KEYS
) -> int:
    """Show how a job stands.

    Args:
        run: the folder of its run; None without ``connect``: the newest that is going on.
        connect: addresses of its servers, with commas.
        every: seconds between two looks; None: one look.
        as_json: print JSON documents.
        keys: files that open the servers' doors; a run's own token is found in its folder.

    Returns:
        The exit code: 0, or 1 if the job has failed.

    Raises:
        RequestError: there is no such run, or an address is none.
        JobError: the run is over, or no server answers.
    """
    if connect is None:
        run = run or newest_run(RUNS)
        addresses = [read_address(run)]
    else:
        addresses = [address.strip() for address in connect.split(",")]
    for address in addresses:
        check_address(address)
    access = keys.access(None if run is None else token_file(run))
    console = Console(force_terminal=None if sys.stdout.isatty() else False)
    with Watch(*addresses, access=access) as watch:
        overview = watch.look()
        if overview is None:
            raise _silence(watch, run, addresses)
        if every is None:
            if as_json:
                print(json_text(asdict(overview), indent=2))
            else:
                console.print(JobView(overview, parts=True))
            return int(overview.state == "failed")
        with _shown(console, as_json) as show:
            last = _follow(watch, overview, every, show)
    if not as_json:
        print((read_ending(run) if run else "") or _ending(last))
    return int(last.state == "failed")


@contextmanager
def _shown(console: Console, as_json: bool) -> Iterator[Callable[[Overview], None]]:
    """Choose how an overview is shown again and again: live on a terminal, else a line each."""
    if as_json:
        yield lambda seen: print(json_text(asdict(seen)), flush=True)
    elif is_live(console):
        table = LiveTable(console, parts=True)
        try:
            yield table.show
        finally:
            table.close()
    else:
        yield lambda seen: print(_line(seen), flush=True)


def _follow(watch: Watch, overview: Overview, every: float, show: Callable[[Overview], None]) -> Overview:
    """Show how a job stands again and again until it is over; return how it stood last."""
    silences = 0
    show(overview)
    while overview.state not in ("over", "failed") and silences < SILENCES_MAX:
        time.sleep(every)
        seen = watch.look()
        if seen is None:
            silences += 1
            continue
        overview, silences = seen, 0
        show(overview)
    return overview


def _line(overview: Overview) -> str:
    """Say how a job stands in one line."""
    if overview.state != "training":
        return state_of(overview)
    return line_of(overview.moment, overview.seconds_to_go, overview.samples_per_second)


def _ending(overview: Overview) -> str:
    if overview.state in ("over", "failed"):
        return state_of(overview)
    return "The servers do not answer any more: the job is over, or they were stopped."


def _silence(watch: Watch, run: Path | None, addresses: list[str]) -> JobError | RequestError:
    """Say why there is nothing to show."""
    names = " and ".join(addresses)
    if watch.refusal:
        return RequestError(watch.refusal)
    if watch.heard:
        return RequestError(
            f"A server answers at {names}, but it is not the first one, which knows the job. Name the "
            "address of server 0."
        )
    if run is not None and (ending := read_ending(run)):
        return JobError(ending)
    return JobError(
        f"No server answers at {names}. The job is over, its servers are not up yet, or they listen "
        "elsewhere.",
        Failure.UNAVAILABLE,
    )
