"""Pictures of numbers, as SVG text: line charts, and what happened when.

Everything here is pure: plain data in, text out, the same text for the same data. Start with ``ticks`` (round
numbers) and ``lines`` (a chart).
"""

from paramserver.charts.lines import Axis, Line, line_chart

__all__ = ["Axis", "Line", "line_chart"]
