"""Pictures of numbers, as SVG text: line charts, and what happened when.

Everything here is pure: plain data in, text out, the same text for the same data. Start with ``ticks``
(round numbers) and ``lines`` (a chart). A timeline is ``slices`` (what of a trace is shown), ``page`` (where
it is on the picture) and ``timeline`` (both together).
"""

from paramserver.charts.lines import Axis, Line, line_chart
from paramserver.charts.timeline import Timeline, View, draw_timeline

__all__ = ["Axis", "Line", "Timeline", "View", "draw_timeline", "line_chart"]
