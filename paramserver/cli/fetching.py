"""Progress of a download: a bar on a terminal, a line for each file elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TaskID, TextColumn, TransferSpeedColumn


@contextmanager
def shown_progress() -> Iterator[Callable[[str, int, int], None]]:
    """Show how fetching goes while the block runs.

    Yields:
        A function to be called with a file's name, the bytes that are there, and all of its bytes.
    """
    console = Console()
    if not console.is_terminal or console.is_dumb_terminal:
        yield _lines(console)
        return
    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        console=console,
    ) as progress:
        tasks: dict[str, TaskID] = {}

        def show(name: str, done: int, total: int) -> None:
            if name not in tasks:
                tasks[name] = progress.add_task(name, total=total)
            progress.update(tasks[name], completed=done)

        yield show


def _lines(console: Console) -> Callable[[str, int, int], None]:
    """Write a line when a file is whole."""
    told: set[str] = set()

    def show(name: str, done: int, total: int) -> None:
        if done == total and name not in told:
            told.add(name)
            console.print(f"{name}: {total:,} bytes", markup=False, highlight=False, soft_wrap=True)

    return show
