"""What the command ``check`` shows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import typer

from paramserver.check import Report, check_run
from paramserver.storage import json_text

VIOLATIONS_SHOWN = 5
"""How many violations are printed; the others are counted."""

_FATES = ("applied", "dropped", "partial", "under way")


def show_check(run: Path, as_json: bool) -> int:
    """Audit a run and print what was found.

    Args:
        run: its folder.
        as_json: print one JSON document.

    Returns:
        0 if nothing is wrong, else 1.

    Raises:
        RequestError: there is nothing to check.
    """
    report = check_run(run)
    if as_json:
        typer.echo(json_text(as_values(report)).rstrip())
    else:
        for line in lines(report):
            typer.echo(line)
    return 1 if report.violations_count else 0


def as_values(report: Report) -> dict[str, Any]:
    """Return a report as JSON values."""
    story = report.story
    return {
        "run": report.run,
        "state": report.state,
        "consistency": report.consistency,
        "violations": report.violations_count,
        "first_violations": [
            {
                "property": each.property,
                "message": each.message,
                "shard": None if each.shard < 0 else each.shard,
                "rank": None if each.rank < 0 else each.rank,
                "round": None if each.round < 0 else each.round,
            }
            for each in report.violations[:VIOLATIONS_SHOWN]
        ],
        "story": None if story is None else {"before": story.before, "events": list(story.events)},
        "coverage": [
            {
                "shard": each.shard,
                "versions": each.spans,
                "of": each.version,
                "computed_again": each.exact,
                "files": each.segments,
                "full": each.full,
            }
            for each in report.coverage
        ],
        "verified": dict(sorted((name, count) for name, count in report.counts.items())),
        "pushes": dict(report.pushes),
        "samples": dict(report.samples),
        "not_covered": report.notes,
        "seconds": report.seconds,
    }


def lines(report: Report) -> Iterator[str]:
    """Yield a report as lines of text."""
    job = report.consistency or "the job is not known"
    yield f"{report.run}: {job}, {_count(len(report.coverage), 'shard')}, {report.state}"
    yield ""
    if report.violations_count:
        yield from _wrong(report)
        yield ""
    broken = {violation.property for violation in report.violations}
    for name, text in _verified(report):
        yield f"  {name:<12}{'VIOLATED' if name in broken else text}"
    yield ""
    for coverage in report.coverage:
        exact = coverage.exact
        again = f"; computed again from {exact[0]:,} to {exact[1]:,}" if exact else ""
        yield f"  {coverage}{again}"
    for note in report.notes:
        yield f"  {note}"
    yield ""
    if report.violations_count:
        yield f"{_count(report.violations_count, 'violation')} found in {report.seconds:.1f} s."
    else:
        yield f"Nothing is wrong in what was verified, in {report.seconds:.1f} s."


def _wrong(report: Report) -> Iterator[str]:
    """Yield what is wrong, and the events that show the first of it."""
    for violation in report.violations[:VIOLATIONS_SHOWN]:
        yield str(violation)
    more = report.violations_count - VIOLATIONS_SHOWN
    if more > 0:
        yield f"… and {more:,} more; the later ones often follow from the first."
    story, of = report.story, report.story_of
    if story is None or of is None:
        return
    yield ""
    yield str(of)
    yield f"The fewest events on shard {of.shard} that show it. Before, it was at {story.before}."
    for number, event in enumerate(story.events, 1):
        yield f"  {number}. {event}"


def _verified(report: Report) -> Iterator[tuple[str, str]]:
    """Yield each property that was verified, and on how much."""
    counts, rule = report.counts, report.consistency
    yield "once", f"{_count(counts['pushes'], 'push', 'pushes')} to shards, none applied twice"
    yield "version", "each update makes the next version, each read shows the newest"
    yield "read", f"{_count(counts['reads'], 'read')} granted, each as {rule} allows, none held up in vain"
    yield "answer", f"{_count(counts['verdicts'], 'verdict')}, each true and with its event"
    if rule == "sync":
        alike = f"{_count(counts['rounds'], 'round')} of the live replicas, alike on all shards"
        yield "round", alike
    yield "staleness", "as told with each verdict"
    yield (
        "fence",
        f"{_count(counts['fenced'], 'push', 'pushes')} of replicas that count no more, none applied",
    )
    yield "order", f"{_count(counts['orders'], 'order')} handled, in order and alike"
    if counts["generations"]:
        void = f"{_count(counts['rolled back'], 'push', 'pushes')} rolled back"
        yield "generation", f"{_count(counts['generations'], 'generation')}, each at its checkpoint; {void}"
    yield "samples", _sum(report.samples)
    yield "replay", f"{_count(counts['replayed'], 'event')} done again with the same answers"
    links = f"{_count(counts['links'], 'link')} from {_count(counts['checkpoints'], 'checkpoint')}"
    yield "journal", f"{_count(counts['segments'], 'file')}, each following the one before; {links}"
    again = (
        f"; {_count(counts['weights'], 'part')} computed again to the last bit" if counts["weights"] else ""
    )
    yield (
        "weights",
        f"{_count(counts['checkpoints'], 'checkpoint')}, each with the weights that it names{again}",
    )


def _sum(samples: Mapping[str, int]) -> str:
    names = [name for name in _FATES if samples.get(name) or name != "under way"]
    parts = " + ".join(f"{samples.get(name, 0):,} {name}" for name in names)
    return f"{samples.get('received', 0):,} received = {parts}"


def _count(number: int, one: str, many: str = "") -> str:
    return f"{number:,} {one if number == 1 else many or one + 's'}"
