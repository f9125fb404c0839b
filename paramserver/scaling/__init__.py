"""How a job fares with more and more workers, and what holds it up.

`measure` runs one number of workers in virtual time; what it finds is a `Point`. Start with ``point``: it
says what the figures are, and which of them is the bottleneck.
"""

from paramserver.scaling.barrier import barrier_ns
from paramserver.scaling.counts import parse_counts
from paramserver.scaling.measure import Exertion, measure
from paramserver.scaling.point import RESOURCES, Point, efficiency, speed_up

__all__ = [
    "RESOURCES",
    "Exertion",
    "Point",
    "barrier_ns",
    "efficiency",
    "measure",
    "parse_counts",
    "speed_up",
]
