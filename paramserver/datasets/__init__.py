"""Data sets by name or from a file, each as training, validation and test part."""

from __future__ import annotations

from pathlib import Path

from paramserver.data import synthetic_data
from paramserver.data.synthetic_spec import PREFIX
from paramserver.datasets.csv_file import load_csv, read_csv
from paramserver.datasets.digits import load_digits
from paramserver.datasets.fashion_mnist import load_fashion_mnist
from paramserver.datasets.flights import load_flights
from paramserver.datasets.npz import load_npz
from paramserver.datasets.sources import SOURCES
from paramserver.datasets.splits import Splits, cut_whole
from paramserver.errors import Fault, RequestError, did_you_mean

__all__ = [
    "NAMES",
    "Splits",
    "load",
    "load_csv",
    "load_digits",
    "load_fashion_mnist",
    "load_flights",
    "load_npz",
    "read_csv",
]

NAMES = tuple(SOURCES)
"""The data sets that have a name; synthetic ones take options, such as ``synthetic:spirals,n=3000``."""


def load(name_or_path: str | Path, data_dir: str | Path | None = None) -> Splits:
    """Read a data set into memory.

    Args:
        name_or_path: ``digits``, ``fashion-mnist``, ``flights``, ``synthetic:KIND`` with options such as
            ``synthetic:spirals,n=3000``, or the path of a file that ends in ``.npz`` or ``.csv``.
        data_dir: the folder of ``fashion-mnist``; a relative path to a file that does not exist is looked
            for here, too.

    Raises:
        RequestError: the name is unknown, or the files are missing or not sound; it says what to do.

    Example:
        >>> splits = load("digits")
        >>> splits.train.features, splits.train.classes
        (64, 10)
        >>> len(splits.train) + len(splits.validation) + len(splits.test)
        1797
    """
    name = str(name_or_path)
    folder = None if data_dir is None else Path(data_dir)
    if name == "digits":
        return load_digits()
    if name == "fashion-mnist":
        return load_fashion_mnist(folder)
    if name == "flights":
        return load_flights()
    if name.startswith(PREFIX):
        return cut_whole(synthetic_data(name))
    path = Path(name_or_path)
    read = {".npz": load_npz, ".csv": load_csv}.get(path.suffix.lower())
    if read is not None:
        if folder is not None and not path.exists() and (folder / path).exists():
            path = folder / path
        return read(path)
    raise RequestError(
        f"Unknown data set '{name}': expected {', '.join(NAMES)} or a file that ends in .npz "
        f"or .csv."
        f"{did_you_mean(name, NAMES)}",
        Fault.UNKNOWN,
    )
