"""Samples that a trained model is to be tried on: with labels or without, and never cut into parts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from paramserver.datasets import load
from paramserver.datasets.csv_file import is_marked, read_table
from paramserver.datasets.npz import read_npz_samples
from paramserver.errors import Fault, RequestError
from paramserver.types import AnyArray


@dataclass(frozen=True, eq=False)
class Samples:
    """Hold samples.

    Attributes:
        inputs: (samples, features) float32, or (samples, fields) int64 as rows of a table.
        labels: (samples,), int64 for classes or float32 for numbers; None where there are none.
        name: what reports call them.
        class_names: what the data calls its classes; empty where they are just numbers.
    """

    inputs: AnyArray
    labels: AnyArray | None
    name: str
    class_names: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.labels is not None and len(self.labels) != len(self.inputs):
            raise RequestError(
                f"'{self.name}' has {len(self.inputs)} samples, but {len(self.labels)} labels."
            )


def read_samples(
    source: str,
    data_dir: Path | None,
    fits: Callable[[int], bool],
    classes: int,
    class_names: Sequence[str] = (),
    features: int = 0,
) -> Samples:
    """Read samples for a trained model.

    Args:
        source: a file that ends in .csv or .npz, of which all samples are taken, or those of its test part
            where it has one; or the name of a data set, of which the test part is taken.
        data_dir: where data files are looked for; None for the usual places.
        fits: says whether the model takes so many features. A CSV file with exactly as many columns, none of
            them named like labels, has no labels.
        classes: how many the model knows; 0 where it predicts a number.
        class_names: what it calls them.
        features: how many the model takes, for sentences; 0 where that is not known.

    Raises:
        RequestError: the data cannot be read or does not fit the model; for CSV it names line and column.
    """
    path = Path(source).expanduser()
    if data_dir is not None and not path.exists() and (data_dir / path).exists():
        path = data_dir / path
    if path.suffix.lower() == ".csv":
        return _read_csv(path, fits, classes, tuple(class_names), features)
    if path.suffix.lower() == ".npz":
        inputs, labels, part = read_npz_samples(path)
        found = Samples(inputs, labels, f"{path.name} {part}".strip())
    else:
        test = load(source, data_dir).test
        found = Samples(test.inputs, test.labels, test.name, test.class_names)
    if not fits(found.inputs.shape[1]):
        raise RequestError(
            f"'{found.name}' has {found.inputs.shape[1]} features, but the model was trained on "
            f"{features or 'another number'}. Choose data like that which it was trained on.",
            Fault.PRECONDITION,
        )
    return found


def _read_csv(
    path: Path, fits: Callable[[int], bool], classes: int, class_names: tuple[str, ...], features: int
) -> Samples:
    def is_labelled(names: list[str]) -> bool:
        columns = len(names)
        labelled = is_marked(names) or (columns > 1 and fits(columns - 1))
        if not fits(columns - labelled):
            told = ", one of them with labels" if labelled else ""
            raise RequestError(
                f"{path} has {columns} columns{told}, but the model was trained on "
                f"{features or 'another number of'} features. Give a column for each, in their order.",
                Fault.PRECONDITION,
            )
        return labelled

    table = read_table(path, is_labelled=is_labelled)
    inputs = table.inputs()
    if table.label < 0:
        return Samples(inputs, None, path.name)
    if not classes:
        return Samples(inputs, table.read_numbers(), path.name)
    _, labels, names = table.read_labels(class_names, classes)
    if len(names) > classes or (names and not class_names and len(names) != classes):
        raise RequestError(
            f"The labels in {path} are texts, and which class of the model each one is cannot be told from "
            f"this checkpoint alone. Give the run folder, which has their names, or number the classes."
        )
    return Samples(inputs, np.asarray(labels), path.name, names)
