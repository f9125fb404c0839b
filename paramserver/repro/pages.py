"""Findings as data for a program and as a page for people."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import Any

from paramserver.repro.claims import Figure, Findings

WIDTH = 112
"""Of the text of a page, in characters."""

VERDICTS = {True: "holds", False: "does not hold"}


def as_mapping(findings: Findings) -> dict[str, Any]:
    """Return findings as JSON has them."""
    claim = findings.claim
    return {
        "name": claim.name,
        "claim": claim.says,
        "source": claim.source,
        "setting": claim.setting,
        "band": claim.band,
        "seeds": list(findings.seeds),
        "cases": {
            case: {name: _figure_as_mapping(figure) for name, figure in row.items()}
            for case, row in findings.figures.items()
        },
        "checks": [{"says": says, "holds": holds} for says, holds in findings.checks],
        "report": list(findings.report),
        "holds": findings.holds,
    }


def _figure_as_mapping(figure: Figure) -> dict[str, Any]:
    band = figure.band
    return {
        "mean": figure.mean,
        "least": min(figure.values),
        "most": max(figure.values),
        "values": list(figure.values),
        "expected": None if band is None else band.expected,
        "band": None if band is None else [band.low, band.high],
        "holds": figure.holds,
    }


def tables(findings: Findings) -> list[tuple[list[str], list[list[str]]]]:
    """Return a table for each measured quantity: the heads of its columns, and its rows, as texts.

    The columns are the case, the quantity's mean over the seeds and its spread; where the claim says what it
    is, what is expected, the band and the verdict, too.
    """
    made = []
    for quantity in findings.claim.quantities:
        figures = {case: row[quantity.name] for case, row in findings.figures.items() if quantity.name in row}
        if not figures:
            continue
        heads = ["", quantity.name, "least to most"]
        if any(figure.band is not None for figure in figures.values()):
            heads += ["expected", "band", "verdict"]
        made.append((heads, [[case, *_cells(figure, quantity.digits)] for case, figure in figures.items()]))
    return made


def _cells(figure: Figure, digits: int) -> list[str]:
    def said(number: float) -> str:
        return f"{number:.{digits}f}"

    cells = [said(figure.mean), f"{said(min(figure.values))} to {said(max(figure.values))}"]
    if figure.band is not None:
        band = figure.band
        cells += [said(band.expected), f"{said(band.low)} to {said(band.high)}", VERDICTS[figure.holds]]
    return cells


def seeds_text(seeds: Sequence[int]) -> str:
    """Name the seeds."""
    if len(seeds) > 1 and list(seeds) == list(range(seeds[0], seeds[-1] + 1)):
        return f"seeds {seeds[0]} to {seeds[-1]}"
    return f"seed{'s' * (len(seeds) > 1)} {', '.join(map(str, seeds))}"


def markdown(everything: Sequence[Findings]) -> str:
    """Return a page of findings in Markdown.

    Args:
        everything: at least one, all with the same seeds.
    """
    seeds = seeds_text(everything[0].seeds)
    parts = [
        "# Known laws",
        _fill(
            "What others have found about distributed training, looked for through the deployed shard, "
            "session and training loop in virtual time. Each band was fixed in advance; a claim holds if "
            f"every mean over the seeds is in its band and every check holds. This page ({seeds}) is what "
            "`paramserver repro --all --markdown` prints, in about a minute; one claim is examined by "
            "`paramserver repro NAME`."
        ),
        "| claim | name | verdict |\n| --- | --- | --- |\n"
        + "\n".join(
            f"| {one.claim.title} | `{one.claim.name}` | {VERDICTS[one.holds]} |" for one in everything
        ),
    ]
    for one in everything:
        parts += _section(one)
    return "\n\n".join(parts) + "\n"


def _section(findings: Findings) -> list[str]:
    claim = findings.claim
    parts = [
        f"## {claim.title}",
        _fill(f"**Claim.** {claim.says}"),
        _fill(f"**Source.** {claim.source}."),
        _fill(f"**Setting.** {claim.setting}"),
        _fill(f"**Band.** {claim.band}"),
    ]
    for heads, rows in tables(findings):
        lines = [_line(heads), _line(["---"] + ["---:"] * (len(heads) - 1)), *map(_line, rows)]
        parts.append("\n".join(lines))
    if findings.checks:
        parts.append("\n".join(_fill(f"* {says} This {VERDICTS[holds]}.") for says, holds in findings.checks))
    if findings.report:
        parts.append("Reported, and deciding nothing:")
        parts.append("\n".join(_fill(f"* {sentence}") for sentence in findings.report))
    parts.append(f"The claim **{VERDICTS[findings.holds]}**.")
    return parts


def _fill(text: str) -> str:
    indent = "  " if text.startswith("* ") else ""
    return textwrap.fill(
        text, WIDTH, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False
    )


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
