"""Measure a machine by a short real run, and write a world file for runs in virtual time.

Start with ``measure``; ``side`` is one server under measurement, ``world_file`` what is written.
"""

from paramserver.calibration.measure import busy_elsewhere, check_seconds, cores_here, measure
from paramserver.calibration.world_file import world_file

__all__ = ["busy_elsewhere", "check_seconds", "cores_here", "measure", "world_file"]
