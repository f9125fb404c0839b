"""What a CSV file holds once it has been read, and what its labels are."""

from __future__ import annotations

from array import array
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from paramserver.data import CLASSES_MAX, Indices
from paramserver.errors import RequestError
from paramserver.types import Array


@dataclass
class Table:
    """What a CSV file holds, as text only where it must be.

    Attributes:
        path: the file.
        names: of its columns.
        label: the column of labels; -1 where there is none.
    """

    path: Path
    names: list[str]
    label: int
    values: array[float] = field(default_factory=lambda: array("f"))
    labels: list[str] = field(default_factory=list)
    lines: array[int] = field(default_factory=lambda: array("q"))

    @property
    def features(self) -> list[int]:
        """The positions of the feature columns."""
        return [column for column in range(len(self.names)) if column != self.label]

    def wrong_cell(self, line: int, column: int, expected: str, found: str) -> RequestError:
        """Say which cell is to blame; the line is counted from 1, with the header."""
        return RequestError(
            f"{self.path}, line {line}, column {column + 1} ('{self.names[column]}'): expected {expected}, "
            f"but found {repr(found[:40]) if found.strip() else 'nothing'}."
        )

    def inputs(self) -> Array:
        """Return the features, (samples, features) float32.

        Raises:
            RequestError: one of them is not finite.
        """
        inputs = np.frombuffer(self.values, np.float32).reshape(len(self.lines), -1)
        wrong = np.argwhere(~np.isfinite(inputs))
        if len(wrong):
            sample, feature = wrong[0]
            found = str(inputs[sample, feature])
            raise self.wrong_cell(
                self.lines[sample], self.features[feature], "a finite number within float32", found
            )
        return inputs

    def read_numbers(self) -> Array:
        """Return the labels as numbers, (samples,) float32.

        Raises:
            RequestError: one of them is no finite number.
        """
        for row, text in enumerate(self.labels):
            if not is_number(text) or not abs(float(text)) <= np.finfo(np.float32).max:
                raise self.wrong_cell(self.lines[row], self.label, "a finite number", text)
        return np.array([float(text) for text in self.labels], np.float32)

    def read_labels(
        self, class_names: tuple[str, ...] = (), classes: int = 0
    ) -> tuple[str, Indices | Array, tuple[str, ...]]:
        """Return the task, the labels, and the names of the classes if they have any.

        Args:
            class_names: the classes in the order that a model knows; empty where labels say what they are.
            classes: the number of classes, where it is known; 0 where it is not.

        Raises:
            RequestError: a label is missing, or is none of the classes.
        """
        texts = self.labels
        if "" in texts:
            raise self.wrong_cell(self.lines[texts.index("")], self.label, "a label", "")
        if not class_names and all(is_number(text) for text in texts):
            numbers = np.array([float(text) for text in texts])
            with np.errstate(over="ignore"):
                beyond = np.flatnonzero(~np.isfinite(numbers.astype(np.float32)))
            if len(beyond):
                row = int(beyond[0])
                raise self.wrong_cell(self.lines[row], self.label, "a finite label", texts[row])
            wrong = (numbers != np.rint(numbers)) | (numbers < 0) | (numbers >= classes)
            if classes and wrong.any():
                row = int(np.flatnonzero(wrong)[0])
                expected = f"a class from 0 to {classes - 1}"
                raise self.wrong_cell(self.lines[row], self.label, expected, texts[row])
            if (numbers != np.rint(numbers)).any():
                return "regression", numbers.astype(np.float32), ()
            if numbers.min() >= 0 and numbers.max() < CLASSES_MAX:
                return "classification", numbers.astype(np.int64), ()
            texts = [str(int(number)) for number in numbers]
            class_names = tuple(map(str, sorted({int(number) for number in numbers})))
        elif not class_names:
            class_names = tuple(sorted(set(texts)))
        if len(class_names) > CLASSES_MAX:
            raise RequestError(
                f"{self.path}: the column '{self.names[self.label]}' has {len(class_names)} different "
                f"labels, more than the limit of {CLASSES_MAX} classes."
            )
        number_of = {name: number for number, name in enumerate(class_names)}
        for row, text in enumerate(texts):
            if text not in number_of:
                expected = f"one of the classes {', '.join(class_names[:10])}"
                raise self.wrong_cell(self.lines[row], self.label, expected, text)
        return "classification", np.array([number_of[text] for text in texts], np.int64), class_names


def number(text: str) -> float:
    """Read a number as other programs write it; Python alone would also take 1_000.

    Raises:
        ValueError: it is none.
    """
    if "_" in text:
        raise ValueError
    return float(text)


def is_number(text: str) -> bool:
    """Say whether a text is a number."""
    try:
        number(text)
    except ValueError:
        return False
    return True
