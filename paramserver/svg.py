"""What all pictures share: the letters, how wide they are, and how an SVG document opens."""

from __future__ import annotations

from html import escape
from typing import Final

FONT: Final = "system-ui, -apple-system, 'Segoe UI', 'DejaVu Sans', sans-serif"

CHARACTER: Final = 6.9
"""Width of a character, in pixels: somewhat more than that of 12 px sans-serif, which differs by machine."""


def text_width(text: str, size: float = 12.0) -> float:
    """Return about how wide a text is, in pixels; rather more than less.

    Args:
        text: one line.
        size: of its letters, in pixels.
    """
    return len(text) * CHARACTER * size / 12


def opening(width: float, height: float, label: str, kind: str = "") -> str:
    """Return the first tag of an SVG document.

    Args:
        width: in pixels.
        height: in pixels.
        label: what the picture shows, for those who cannot see it.
        kind: its class, for the style; empty for none.
    """
    in_class = f'class="{kind}" ' if kind else ""
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" {in_class}width="{width:.0f}" height="{height:.0f}" '
        f'viewBox="0 0 {width:.0f} {height:.0f}" role="img" aria-label="{escape(label)}">'
    )
