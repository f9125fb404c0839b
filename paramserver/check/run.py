"""The audit of a whole run: each shard, and then what only all of them together show."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from paramserver.audit import Account, OrdersAudit, join_ledgers, overlapping
from paramserver.check.exact import replay_exactly
from paramserver.check.findings import GOING_ON, INTERRUPTED, OVER, Coverage, Findings, Report
from paramserver.check.marks import Marks, read_marks
from paramserver.check.shard import ShardCheck
from paramserver.consistency import parse_consistency
from paramserver.errors import Fault, RequestError
from paramserver.storage.journal import JOURNAL, journal_folder, read_decisions
from paramserver.storage.run_folder import is_going_on

SUMMARY = "summary.json"
_SHARD = "shard-"


def check_run(run: Path) -> Report:
    """Verify what the journals and checkpoints of a run hold; nothing is changed.

    Args:
        run: the run folder, also of a run that still goes on or was killed.

    Returns:
        What was verified, what could not be, and what is wrong.

    Raises:
        RequestError: there is no such folder, or no journal in it.
    """
    began = time.perf_counter()
    shards = _shards(run)
    report = Report(str(run), _state(run))
    rounds, whole = Findings(), Findings()
    marks = read_marks(run, whole)
    for mark in marks.marks:
        if mark.notes.link is not None and mark.file.shard not in shards:
            folder = journal_folder(run, mark.file.shard)
            whole.say("journal", f"{folder} is missing: {mark} was made there.", mark.file.shard)
    orders = OrdersAudit()
    checks = [ShardCheck(run, shard, marks.of(shard), orders, report.state) for shard in shards]
    for check in checks:
        check.run()
        if check.coverage.full:
            found = marks.of(check.coverage.shard)
            note = replay_exactly(
                run, check.coverage.shard, found, check.findings, check.coverage, check.counts
            )
            check.notes += [note] if note else []
    _check_decisions(run, orders, whole)
    for violation in orders.judge_rounds():
        rounds.add(violation)
    _put_together(report, checks, marks, orders)
    _check_accounts(report, checks, whole)
    _check_summary(run, report, marks, orders, whole)
    # What follows from a wrong round is found shard by shard.
    for findings in (rounds, *(check.findings for check in checks), whole):
        report.take(findings)
    report.seconds = time.perf_counter() - began
    return report


def _shards(run: Path) -> list[int]:
    """Return the shards that have a journal."""
    if not run.is_dir():
        raise RequestError(f"There is no folder {run}. Name the folder of a run.", Fault.UNKNOWN)
    folder = run / JOURNAL
    names = [entry.name for entry in folder.iterdir()] if folder.is_dir() else []
    shards = sorted(
        int(name.removeprefix(_SHARD))
        for name in names
        if name.startswith(_SHARD) and name.removeprefix(_SHARD).isdecimal()
    )
    if not shards:
        raise RequestError(
            f"{run} has no journal, so there is nothing to check. A run of servers leaves one once its job "
            "has begun, unless they are told --journal-bytes-max 0; one in virtual time or of one plain loop "
            "leaves none.",
            Fault.PRECONDITION,
        )
    return shards


def _state(run: Path) -> str:
    if is_going_on(run):
        return GOING_ON
    return OVER if (run / SUMMARY).exists() else INTERRUPTED


def _check_decisions(run: Path, orders: OrdersAudit, findings: Findings) -> None:
    """Compare what the coordinator has decided with what the shards have handled."""
    try:
        decided = read_decisions(run)
    except RequestError:
        try:
            decided = read_decisions(run)  # a newer file may just have taken the place of the one before
        except RequestError as error:
            findings.say("journal", str(error))
            return
    if decided is None:
        return
    record, given = decided
    newest = max([record.orders, *(each.order.number for each in given)])
    for each in given:
        for violation in orders.decided(each.order):
            findings.add(violation)
    if orders.newest > newest:
        findings.say(
            "order", f"A shard has handled order {orders.newest}, but the coordinator gave only {newest}."
        )


def _put_together(report: Report, checks: list[ShardCheck], marks: Marks, orders: OrdersAudit) -> None:
    for check in checks:
        report.coverage.append(check.coverage)
        report.counts.update(check.counts)
        report.notes += check.notes
        if check.job is not None:
            report.consistency = check.job.consistency
    report.notes += _left_out(report.coverage)
    report.counts["rounds"] = orders.rounds
    report.counts["generations"] = orders.generations
    report.counts["checkpoints"] = marks.count
    report.counts["segments"] = sum(check.coverage.segments for check in checks)
    if report.state == GOING_ON:
        report.notes.append("The run is going on; it was checked as far as it was.")
    elif report.state == INTERRUPTED:
        light = not all(check.coverage.full for check in checks)
        lost = " What was not on disk then, up to 0.2 s, is not covered." if light else ""
        report.notes.append(f"The run did not come to its end.{lost}")
    if not all(check.coverage.full for check in checks):
        report.notes.append(
            "The journal is light, without gradients: answers and counts are verified, weights are not "
            "computed again."
        )


def _left_out(coverage: Sequence[Coverage]) -> Iterator[str]:
    """Say of which shards a part of the journal is not there any more, or never was whole."""
    torn = [each for each in coverage if each.torn_bytes]
    if torn:
        size = sum(each.torn_bytes for each in torn)
        yield (
            f"Of {_names(torn)} the last {size:,} bytes were being written when the process ended; they are "
            "left out."
        )
    later = [each for each in coverage if each.spans and each.spans[0][0] and not each.full]
    if later:
        why = "its oldest part was removed, or its rows came later"
        yield f"The journal of {_names(later)} begins later: {why}."
    later = [each for each in coverage if each.spans and each.spans[0][0] and each.full]
    if later:
        yield f"Of {_names(later)} the part before the oldest checkpoint was removed."


def _names(coverage: Sequence[Coverage]) -> str:
    shards = [str(each.shard) for each in coverage]
    if len(shards) == 1:
        return f"shard {shards[0]}"
    return f"shards {', '.join(shards[:-1])} and {shards[-1]}"


def _check_accounts(report: Report, checks: list[ShardCheck], findings: Findings) -> None:
    """Join what the shards say of each push."""
    jobs = {check.job.fingerprint(): check.job for check in checks if check.job is not None}
    if len(jobs) > 1:
        findings.say("journal", "The journals are of different jobs, so they do not belong together.")
    if not jobs:
        return
    gathers = parse_consistency(next(iter(jobs.values())).consistency).gathers
    account = Account()
    groups = overlapping({check.coverage.shard: check.ledgers for check in checks})
    for group, after in zip(groups, [*groups[1:], None], strict=True):
        if after is not None:
            checkpoint = next(iter(after.values())).checkpoint
            for ledger in group.values():
                clocks = None if checkpoint is None else ledger.cut(checkpoint)
                if clocks is not None:
                    ledger.go_back(clocks)
        over = after is not None or all(ledger.ended for ledger in group.values())
        for violation in join_ledgers(group, account, gathers=gathers, over=over):
            findings.add(violation)
        for ledger in group.values():
            report.counts["rolled back"] += ledger.rolled_back[0]
            for answer in ("duplicate", "fenced", "refused"):
                report.counts[answer] += ledger.answers[answer]
    for coverage in report.coverage:
        coverage.is_gone = len(groups) > 1 and coverage.shard not in groups[-1]
    report.pushes, report.samples = account.pushes, account.samples
    for name, counts in (("pushes", account.pushes), ("samples", account.samples)):
        received = counts["applied"] + counts["dropped"] + counts["partial"] + counts["under way"]
        if counts["received"] != received:
            findings.say("samples", f"Of {counts['received']} {name} received {received} are accounted for.")


def _check_summary(run: Path, report: Report, marks: Marks, orders: OrdersAudit, findings: Findings) -> None:
    """Compare with what the run said of itself at its end."""
    summary = _summary(run)
    sha256 = summary.get("weights_sha256")
    if report.state != OVER or not summary:
        return
    if sha256 and marks.weights_sha256 and sha256 != marks.weights_sha256:
        findings.say(
            "weights",
            f"The final checkpoint has the weights {marks.weights_sha256[:12]}…, but the run ended with "
            f"{sha256[:12]}…, as its summary says.",
        )
    versions = summary.get("versions")
    here = [coverage.version for coverage in report.coverage][: len(versions or [])]
    if versions and all(coverage.ended for coverage in report.coverage[: len(versions)]) and here != versions:
        findings.say("version", f"The shards ended at versions {versions}, but their journals at {here}.")
    whole = not any(
        coverage.spans[0][0] or len(coverage.spans) > 1 for coverage in report.coverage if coverage.spans
    )
    if not whole or summary.get("generation") or not report.pushes:
        return
    # What a replica did right before it was killed, nobody counted; and one started by hand need not count.
    restarts = summary.get("restarts")
    undisturbed = restarts is not None and not any(restarts.values()) and not summary.get("resumed")
    everyone_counted = undisturbed and not orders.has_deaths
    for name, counts in (("gradients", report.pushes), ("samples", report.samples)):
        told = summary.get(name) or {}
        least, most = told.get("applied", 0), sum(told.get(each, 0) for each in _PERHAPS_APPLIED)
        found = counts["applied"] + counts["partial"]
        if found < least or (everyone_counted and found > most):
            findings.say(
                "samples",
                f"The summary says that {least} {name} were applied, but by the journals it is {found}.",
            )


_PERHAPS_APPLIED = ("applied", "partial", "fenced", "lost")
"""What a replica may call a gradient that was applied: it need not have heard of it."""


def _summary(run: Path) -> Mapping[str, Any]:
    try:
        value = json.loads((run / SUMMARY).read_bytes())
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}
