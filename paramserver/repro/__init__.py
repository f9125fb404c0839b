"""Known laws of distributed training, looked for through the deployed shard in virtual time.

A `Claim` states what somebody found, the exact setting in which it is looked for here, and, fixed before the
first run, the bands in which the figures must be; `examine` runs it over some seeds. Start with ``claims``
(what a claim is made of), then read ``staleness``, the shortest of them.
"""

from paramserver.repro.claims import Band, Case, Check, Claim, Figure, Findings, Quantity, examine
from paramserver.repro.delay import DELAY_STABILITY
from paramserver.repro.maximum import SYNC_MAXIMUM
from paramserver.repro.pages import as_mapping, markdown, seeds_text, tables
from paramserver.repro.staleness import ASYNC_STALENESS
from paramserver.repro.stragglers import SSP_STRAGGLERS

CLAIMS: dict[str, Claim] = {
    claim.name: claim for claim in (ASYNC_STALENESS, DELAY_STABILITY, SYNC_MAXIMUM, SSP_STRAGGLERS)
}
"""Every claim by name."""

SEEDS_LEAST = 5
"""Fewer seeds do not decide whether a claim holds: the bands are for the means over so many."""

__all__ = [
    "CLAIMS",
    "SEEDS_LEAST",
    "Band",
    "Case",
    "Check",
    "Claim",
    "Figure",
    "Findings",
    "Quantity",
    "as_mapping",
    "examine",
    "markdown",
    "seeds_text",
    "tables",
]
