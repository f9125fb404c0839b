"""Data sets by name or from a file, each as training, validation and test part."""

from __future__ import annotations

from pathlib import Path

from paramserver.datasets.digits import load_digits
from paramserver.datasets.fashion_mnist import load_fashion_mnist
from paramserver.datasets.npz import load_npz
from paramserver.datasets.splits import Splits
from paramserver.errors import Fault, RequestError, did_you_mean

__all__ = ["NAMES", "Splits", "load", "load_digits", "load_fashion_mnist", "load_npz"]

NAMES = ("digits", "fashion-mnist")
"""The data sets that have a name."""


def load(name_or_path: str | Path, data_dir: str | Path | None = None) -> Splits:
    """Read a data set into memory.

    Args:
        name_or_path: ``digits``, ``fashion-mnist``, or the path of a file that ends in ``.npz``.
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
    path = Path(name_or_path)
    if path.suffix.lower() == ".npz":
        if folder is not None and not path.exists() and (folder / path).exists():
            path = folder / path
        return load_npz(path)
    raise RequestError(
        f"Unknown data set '{name}': expected {', '.join(NAMES)} or a file that ends in .npz."
        f"{did_you_mean(name, NAMES)}",
        Fault.UNKNOWN,
    )
