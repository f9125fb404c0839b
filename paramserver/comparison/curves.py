"""Curves of several runs made into one: the median at each place, and how far they lie apart."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Sequence
from statistics import median
from typing import Final

from paramserver.charts import Line

XY = tuple[float, float]

PLACES: Final = 120
"""At which curves of several runs are read."""

BAND_POINTS: Final = 8
"""A curve of fewer points is too coarse for a band; then every run is shown as what it is."""


def joined(label: str, curves: Sequence[Sequence[XY]]) -> Line:
    """Make one line of the curves of several runs.

    Args:
        label: of the line.
        curves: x and y by growing x; of one run each.

    Returns:
        The curve itself where there is one; else the median, with a band from the least to the greatest, or
        thin lines where the curves are coarse. A run that has ended keeps its last value.
    """
    curves = [curve for curve in curves if curve]
    if len(curves) < 2:
        return Line(label, list(curves[0]) if curves else [])
    first, last = max(curve[0][0] for curve in curves), max(curve[-1][0] for curve in curves)
    places = [first + (last - first) * place / (PLACES - 1) for place in range(PLACES)]
    if last <= first:
        places = [first]
    values = [[value_at(curve, place) for curve in curves] for place in places]
    middle = [(x, median(ys)) for x, ys in zip(places, values, strict=True)]
    if min(len(curve) for curve in curves) < BAND_POINTS:
        return Line(label, middle, thin=curves)
    return Line(label, middle, [(x, min(ys), max(ys)) for x, ys in zip(places, values, strict=True)])


def value_at(curve: Sequence[XY], x: float) -> float:
    """Return the height of a curve between its points; before and after them that of the nearest.

    Example:
        >>> value_at([(0, 1), (2, 3)], 1), value_at([(0, 1), (2, 3)], 9)
        (2.0, 3.0)
    """
    at = bisect_right(curve, x, key=lambda point: point[0])
    if at == 0:
        return float(curve[0][1])
    if at == len(curve):
        return float(curve[-1][1])
    (x1, y1), (x2, y2) = curve[at - 1], curve[at]
    share = (x - x1) / (x2 - x1)
    return y1 + share * (y2 - y1) if math.isfinite(y1 + y2) else math.nan
