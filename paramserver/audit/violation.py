"""What an auditor says."""

from __future__ import annotations

from dataclasses import dataclass

PROPERTIES = (
    "once",
    "version",
    "read",
    "wake",
    "round",
    "staleness",
    "fence",
    "order",
    "answer",
    "samples",
    "generation",
    "replay",
    "journal",
    "weights",
)
"""The names of what must hold; `paramserver.audit` says what each means."""


@dataclass(frozen=True, slots=True)
class Violation:
    """Something that must not be.

    Attributes:
        property: one of ``PROPERTIES``.
        message: what was expected and what was found, as a sentence.
        shard: on which; -1: at the coordinator, or in no one place.
        rank: of whom; -1: of nobody in particular.
        round: in which; -1: in none.
    """

    property: str
    message: str
    shard: int = -1
    rank: int = -1
    round: int = -1

    def __str__(self) -> str:
        return f"{self.property}: {self.message}"
