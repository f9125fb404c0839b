"""A user's own data from a CSV file: a header row with names, then one sample a line.

The label is the column named ``label``, ``target`` or ``class`` (in any case), else one named ``y``, else the
last one. All other columns are features and hold numbers; nothing is scaled. What the labels are follows from
what is there:

- whole numbers from 0: the numbers of classes, as they stand;
- other whole numbers, or text: classes, numbered in sorted order, and `Dataset.class_names` keeps what they
  are called;
- numbers of which at least one has a fraction: quantities, for regression.

Cells are separated by commas and may stand in double quotes (RFC 4180); the text is UTF-8; empty lines are
passed over. A fixed fifth of the samples is the test set, stratified by class.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

from paramserver.data import Dataset
from paramserver.datasets.csv_table import Table, is_number, number
from paramserver.datasets.splits import Splits, cut_whole
from paramserver.errors import Fault, RequestError

BYTES_MAX = 1 << 30
"""Bytes of the file; a larger one is better kept as .npz."""

LABEL_NAMES = ("label", "target", "class")
"""Names that mark the column of labels; so does ``y``, but beside these it may be a coordinate."""


def load_csv(path: Path, bytes_max: int = BYTES_MAX) -> Splits:
    """Read a data set from a CSV file, and cut it; the text above says what the file may hold.

    Raises:
        RequestError: as `read_csv`, or no class has two samples.
    """
    return cut_whole(read_csv(path, bytes_max))


def read_csv(path: Path, bytes_max: int = BYTES_MAX, class_names: Sequence[str] = ()) -> Dataset:
    """Read a CSV file whole, as one data set.

    Args:
        path: the file.
        bytes_max: limit on the size of the file.
        class_names: the classes in the order that a model knows; a label that is not one of them is refused.
            Without them the labels say what the classes are.

    Returns:
        Inputs (n, features) float32 in the order of the columns, and labels of the task that they are for.

    Raises:
        RequestError: the file cannot be read, is too large, or a cell is not what its column needs; the
            sentence names file, line and column, and what was found.
    """
    table = read_table(path, bytes_max)
    inputs = table.inputs()
    task, labels, names = table.read_labels(tuple(class_names))
    # With one class alone, 0 lets the data set say that two are needed.
    classes = len(names) if len(names) > 1 else 0
    return Dataset(inputs, labels, path.name, classes, task, class_names=names)


def read_table(
    path: Path, bytes_max: int = BYTES_MAX, is_labelled: Callable[[list[str]], bool] = lambda names: True
) -> Table:
    """Read a CSV file whole, with or without labels.

    Args:
        path: the file.
        bytes_max: limit on the size of the file.
        is_labelled: told the names of the columns; says whether one of them holds labels.

    Raises:
        RequestError: as `read_csv`.
    """
    try:
        size = path.stat().st_size
        if size > bytes_max:
            raise RequestError(
                f"{path} has {size} bytes, more than the limit of {bytes_max}. Save it as .npz instead.",
                Fault.EXHAUSTED,
            )
        with path.open(encoding="utf-8-sig", newline="") as file:
            return _read_table(path, file, is_labelled)
    except FileNotFoundError:
        raise RequestError(f"There is no file {path}.", Fault.UNKNOWN) from None
    except OSError as error:
        raise RequestError(f"{path} cannot be read: {error.strerror or error}.") from None
    except UnicodeDecodeError:
        raise _not_text(path) from None


def is_marked(names: Iterable[str]) -> bool:
    """Say whether a column has a name that only labels have."""
    return any(name.lower() in LABEL_NAMES for name in names)


def _read_table(path: Path, file: Iterable[str], is_labelled: Callable[[list[str]], bool]) -> Table:
    rows = _rows(path, file)
    _, header = next(rows, (0, []))
    if not header:
        raise RequestError(f"{path} is empty: expected a header row with names, and samples below it.")
    names = [name.strip() for name in header]
    _check_header(path, names)
    table = Table(path, names, _label_column(path, names) if is_labelled(names) else -1)
    features = table.features
    for line, row in rows:
        if len(row) != len(names):
            raise RequestError(
                f"{path}, line {line}: expected {len(names)} cells as in the header, but found {len(row)}."
            )
        try:
            table.values.extend([number(row[column]) for column in features])
        except ValueError:
            column = next(column for column in features if not is_number(row[column]))
            raise table.wrong_cell(line, column, "a number", row[column]) from None
        if table.label >= 0:
            table.labels.append(row[table.label].strip())
        table.lines.append(line)
    if not table.lines:
        raise RequestError(f"{path} has a header row, but no samples below it.")
    return table


def _rows(path: Path, file: Iterable[str]) -> Iterator[tuple[int, list[str]]]:
    """Give the rows that are not empty, each with the line on which it ends."""
    reader = csv.reader(file, strict=True)
    try:
        for row in reader:
            if row:
                yield reader.line_num, row
    except csv.Error as error:
        raise RequestError(f"{path}, line {reader.line_num}: this is no sound CSV ({error}).") from None


def _not_text(path: Path) -> RequestError:
    content = path.read_bytes()
    try:
        content.decode()
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        return RequestError(
            f"{path}, line {line}: expected UTF-8 text, but found the byte 0x{content[error.start]:02x}. "
            f"Save the file as UTF-8."
        )
    return RequestError(f"{path} changed while it was read. Read it again.")


def _check_header(path: Path, names: list[str]) -> None:
    """Refuse a first row that is not one of names."""
    for separator in (";", "\t"):
        if len(names) == 1 and separator in names[0]:
            raise RequestError(
                f"{path} should be separated by commas, but its header is {names[0]!r}. "
                f"Save it with commas in place of {separator!r}."
            )
    if all(is_number(name) for name in names):
        raise RequestError(
            f"{path} should begin with a header row of names, but it begins with the numbers "
            f"{', '.join(names[:3])}. Add a line with names."
        )
    for column, name in enumerate(names):
        if not name:
            raise RequestError(
                f"{path}: column {column + 1} of the header has no name. Name it, or leave the column out "
                f"(in pandas: to_csv(..., index=False))."
            )
        if name in names[:column]:
            raise RequestError(f"{path}: two columns are named '{name}'. Rename one.")


def _label_column(path: Path, names: list[str]) -> int:
    """Return the position of the labels."""
    if len(names) < 2:
        raise RequestError(
            f"{path} needs a column of labels and at least one of features, but has one column."
        )
    marked = [column for column, name in enumerate(names) if name.lower() in LABEL_NAMES]
    marked = marked or [column for column, name in enumerate(names) if name.lower() == "y"]
    if len(marked) > 1:
        raise RequestError(
            f"{path}: both '{names[marked[0]]}' and '{names[marked[1]]}' name a column of labels. Rename one."
        )
    return marked[0] if marked else len(names) - 1
