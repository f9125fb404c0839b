"""What is there, and how to get what is not: the answers behind ``paramserver data``."""

from __future__ import annotations

from pathlib import Path

from paramserver.datasets.fashion_mnist import find_folder
from paramserver.datasets.fetch import Progress, fetch
from paramserver.datasets.flights import HOW_TO_GET, data_file
from paramserver.datasets.sources import SOURCES, Source, source_of
from paramserver.errors import Fault, RequestError

__all__ = ["SOURCES", "get_data", "is_here", "source_of"]


def is_here(source: Source) -> bool:
    """Tell whether a data set can be loaded without fetching or installing anything."""
    if source.package:
        return data_file() is not None
    if source.files:
        try:
            find_folder()
        except RequestError:
            return False
    return True


def get_data(name: str, folder: Path | None = None, progress: Progress | None = None) -> str:
    """Make a data set loadable, as far as fetching files can; blocks until it is there.

    Args:
        name: of a data set, one of `SOURCES`.
        folder: where fetched files go; the cache folder unless given.
        progress: see `paramserver.datasets.fetch.fetch`.

    Returns:
        A sentence that says where it is.

    Raises:
        RequestError: there is no such data set, or it is a Python package that is not installed.
        JobError: its files cannot be fetched.
    """
    source = source_of(name)
    if source.files:
        return f"The data set '{source.name}' is in {fetch(source, folder, progress)}."
    if source.package:
        path = data_file()
        if path is None:
            raise RequestError(HOW_TO_GET, Fault.UNKNOWN)
        return f"The data set '{source.name}' is in {path}."
    return f"The data set '{source.name}' {source.origin}; there is nothing to fetch."
