"""A confusion matrix as a terminal shows it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from paramserver.types import AnyArray

CLASSES_MAX = 20
"""As many columns as fit in 80 characters."""

PAIRS_MAX = 10
"""Of more classes only the pairs that are confused most are listed."""

NAME_CHARACTERS_MAX = 14


def confusion_counts(labels: AnyArray, predicted: AnyArray, classes: int) -> AnyArray:
    """Count how often each class was taken for each.

    Args:
        labels: (samples,) int64.
        predicted: (samples,) int64.
        classes: how many there are.

    Returns:
        (classes, classes) int64: a row for each label, a column for each prediction.

    Example:
        >>> confusion_counts(np.array([0, 1, 1]), np.array([0, 1, 0]), 2).tolist()
        [[1, 0], [1, 1]]
    """
    counts: AnyArray = np.bincount(labels * classes + predicted, minlength=classes**2)
    return counts.reshape(classes, classes)


def confusion_lines(counts: AnyArray, names: Sequence[str] = (), width: int = 80) -> list[str]:
    """Draw a confusion matrix; where counts are too wide for it, percent of each row.

    Args:
        counts: as `confusion_counts` gives them.
        names: of the classes; their numbers unless given.
        width: of the terminal, in characters.

    Returns:
        Lines of at most `width` characters where there are up to 20 classes and the terminal has 80. Of more
        classes only the pairs that are confused most are listed.
    """
    classes = len(counts)
    if classes > CLASSES_MAX:
        return _pairs(counts, names)
    heads = [str(number) for number in range(classes)]
    rows = [f"{head} {name[:NAME_CHARACTERS_MAX]}" for head, name in zip(heads, names, strict=False)] or heads
    first = max(len(row) for row in rows)
    cell = len(str(counts.max())) + 1
    unit = "samples"
    if first + classes * max(cell, 3) > width:
        unit, cell = "% of label", 4 if first + classes * 4 <= width else 3
        totals = np.maximum(counts.sum(axis=1, keepdims=True), 1)
        counts = np.rint(100 * counts / totals).astype(np.int64)
    if first + classes * cell > width:  # names give way to numbers
        rows, first = heads, len(heads[-1])
    cell = max(cell, 3)
    lines = [
        f"Confusion matrix, {unit}: a row for each label, a column for each prediction",
        " " * first + "".join(head.rjust(cell) for head in heads),
    ]
    for row, numbers in zip(rows, counts, strict=True):
        cells = "".join((str(number) if number else ".").rjust(cell) for number in numbers.tolist())
        lines.append(row.ljust(first) + cells)
    return lines


def _pairs(counts: AnyArray, names: Sequence[str]) -> list[str]:
    """List the pairs of classes that are confused most."""
    wrong = counts.copy()
    np.fill_diagonal(wrong, 0)
    lines = [f"Of {len(counts)} classes, the most confused (label, prediction, samples):"]
    for place in np.argsort(-wrong, axis=None, kind="stable")[:PAIRS_MAX]:
        label, predicted = divmod(int(place), len(counts))
        if wrong[label, predicted]:
            told = [names[each] if names else str(each) for each in (label, predicted)]
            lines.append(f"  {told[0]}  {told[1]}  {wrong[label, predicted]:,}")
    return lines if len(lines) > 1 else [*lines, "  none"]
