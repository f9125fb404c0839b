"""A run that is over, and a server that is started in its folder all the same."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from server.finish import SUMMARY

TOLD_SECONDS = 10.0
"""How long a coordinator stays to say that its run is over: workers that are started with it come by then."""


@dataclass(frozen=True, slots=True)
class Ending:
    """How a run has ended.

    Attributes:
        sentence: for people.
        code: the exit code of a server that finds it so.
    """

    sentence: str
    code: int


def ending_of(out: Path | None) -> Ending | None:
    """Return how the run in a folder has ended; None if it has not, or there is no folder."""
    if out is None:
        return None
    try:
        found = json.loads((out / SUMMARY).read_text())
        outcome, reason = str(found["outcome"]), str(found.get("reason") or "")
    except (OSError, ValueError, KeyError, TypeError):
        return None
    because = f" {reason}" if reason else ""
    sentence = f"The run in {out} is over ({outcome}).{because} A new run needs a name of its own."
    return Ending(sentence, 0 if outcome == "finished" else 1)
