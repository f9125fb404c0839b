"""One job under several consistency models: what is measured of each run, and how they stand side by side.

Pure: summaries and scores in, numbers and a page out. ``measures`` says what is compared, ``page`` shows it.
"""

from paramserver.comparison.measures import (
    MEASURES,
    Measure,
    Outcome,
    Point,
    Spread,
    Target,
    choose_target,
    measure,
    spreads,
)
from paramserver.comparison.page import Comparison, comparison_page

__all__ = [
    "MEASURES",
    "Comparison",
    "Measure",
    "Outcome",
    "Point",
    "Spread",
    "Target",
    "choose_target",
    "comparison_page",
    "measure",
    "spreads",
]
