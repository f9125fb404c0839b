"""``paramserver check``: sound runs of every kind pass, and whatever is planted in one is found."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from contextlib import suppress
from dataclasses import replace

import numpy as np
import pytest
from forged_runs import ForgedRun

from paramserver import events as ev
from paramserver.check import check_run
from paramserver.errors import RequestError
from paramserver.storage.journal import journal_folder, segment_path

pytestmark = pytest.mark.slow

SHORT = ("--epochs", "2", "--checkpoint-every", "15", "--lease-seconds", "3")
RUNS = {
    "sync": (*SHORT, "--consistency", "sync"),
    "async": (*SHORT, "--consistency", "async", "--servers", "2", "--shards", "1"),
    "ssp": (*SHORT, "--consistency", "ssp:0"),
    "journal": (*SHORT, "--consistency", "sync", "--durability", "journal"),
    "back": (
        *("--epochs", "60", "--checkpoint-every", "20", "--lease-seconds", "2", "--consistency", "async"),
        *("--servers", "2", "--shards", "1", "--chaos", "kill=s1@2s"),
    ),
}


@pytest.fixture(scope="module")
def run_of(new_launcher):
    """A function that returns the folder of a sound run of a kind; each is made once."""
    made = {}

    def make(kind):
        if kind not in made:
            launcher = new_launcher()
            code, _, err = launcher.run(*RUNS[kind])
            assert code == 0, err
            made[kind] = launcher.out
        return made[kind]

    return make


@pytest.fixture
def forge(run_of, tmp_path):
    """A function that returns a copy of a sound run, to be tampered with."""
    return lambda kind: ForgedRun(run_of(kind), tmp_path / "forged")


def command(*arguments):
    """Run ``paramserver check``; return exit code, output and errors."""
    line = [sys.executable, "-P", "-m", "paramserver", "check", *map(str, arguments)]
    done = subprocess.run(line, capture_output=True, text=True, timeout=60)
    assert "Traceback" not in done.stdout + done.stderr
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize("kind", list(RUNS))
def test_a_sound_run_passes(run_of, kind):
    report = check_run(run_of(kind))
    assert report.violations == []
    summary = json.loads((run_of(kind) / "summary.json").read_text())
    assert [coverage.version for coverage in report.coverage] == summary["versions"]
    assert report.counts["pushes"] == report.counts["verdicts"] / (2 if kind in ("sync", "journal") else 1)
    # A full journal begins where its oldest checkpoint ends.
    linked = report.counts["checkpoints"] - (kind == "journal")
    assert report.counts["links"] == linked * len(report.coverage)
    assert report.samples["applied"] == report.samples["received"] >= summary["samples"]["applied"]
    if kind != "journal":
        assert all(coverage.spans[0][0] == 0 for coverage in report.coverage)
    assert report.counts["weights"] == (4 if kind == "journal" else 0)
    assert report.counts["generations"] == (1 if kind == "back" else 0)


@pytest.mark.parametrize("kind", list(RUNS))
def test_a_run_that_was_only_copied_by_the_forger_passes(forge, kind):
    # A test of the tests: it is the fault that is found, and not that somebody has rewritten the files.
    assert check_run(forge(kind).write()).violations == []


def test_a_run_that_goes_on_and_one_that_was_killed_altogether(launcher):
    options = ("--epochs", "15", "--consistency", "async", "--checkpoint-every", "10")
    with launcher.start(*options, "--servers", "2", "--shards", "1") as process:
        try:
            launcher.until(lambda: len(list((launcher.out / "checkpoints").glob("*/manifest.json"))) > 1)
            going_on = check_run(launcher.out)
        finally:
            servers_and_workers = list(launcher.processes())
            process.kill()
            for pid in servers_and_workers:
                with suppress(ProcessLookupError):  # they end by themselves, too
                    os.kill(pid, signal.SIGKILL)
            process.communicate()
    assert (going_on.state, going_on.violations) == ("going on", [])
    assert any("is going on" in note for note in going_on.notes)
    launcher.until(lambda: launcher.processes() == {})
    killed = check_run(launcher.out)
    assert (killed.state, killed.violations) == ("interrupted", [])
    assert killed.counts["pushes"] > 0
    # It goes on with other servers and shards.
    code, _, err = launcher.command("--resume", str(launcher.out), "--servers", "1", "--shards", "3")
    assert code == 0, err
    report = check_run(launcher.out)
    assert (report.state, report.violations) == ("over", [])
    assert report.counts["generations"] == 1
    assert [coverage.version for coverage in report.coverage] == launcher.summary()["versions"]
    # The rows that went to the new shard came with the version that they had.
    assert report.coverage[2].spans[0][0] > 0
    code, out, _ = command(launcher.out)
    assert code == 0
    assert "1 generation, each at its checkpoint" in out


# ------------------------------------------------------------------------------------------ what is planted


def other_version(answer, further):
    """Return the answer to a push with another version."""
    return replace(answer, verdict=replace(answer.verdict, version=answer.verdict.version + further))


def granted_at_once(run):
    """Return the pulls that were granted as soon as they came."""
    return list(run.records(ev.PullReceived, lambda record: isinstance(record.effects[0], ev.PullGranted)))


def applied_twice(run):
    """A push is applied again when it comes again."""
    push = list(run.records(ev.PushReceived))[20]
    other = push.again()
    [answer] = push.record.effects
    verdict = replace(
        answer.verdict, version=answer.verdict.version + 1, staleness=answer.verdict.staleness + 1
    )
    other.change(effects=[replace(answer, verdict=verdict)])
    run.after(push, other)


def applied_without_update(run):
    """A verdict says applied, but the version stays."""
    push = list(run.records(ev.PushReceived))[20]
    [answer] = push.record.effects
    push.change(
        effects=[replace(answer, verdict=replace(answer.verdict, version=answer.verdict.version - 1))]
    )


def version_gap(run):
    """A version is left out."""
    for push in list(run.records(ev.PushReceived))[30:]:
        push.change(effects=[other_version(push.record.effects[0], 1)])


def update_without_push(run):
    """A push that was applied is not there."""
    run.remove(list(run.records(ev.PushReceived))[20])


def read_too_early(run):
    """A reader that has to wait is not made to."""
    waits = next(
        pull
        for pull in run.records(ev.PullReceived)
        if pull.record.event.clock > 3 and isinstance(pull.record.effects[0], ev.PullParked)
    )
    clock, newest = waits.record.event.clock, 0
    for grain in run.records((ev.PushReceived, ev.RoundClosed, ev.PullReceived)):
        if grain is waits:
            break
        for effect in grain.record.effects:
            if isinstance(effect, ev.PushAnswered):
                newest = effect.verdict.version
    waits.change(effects=[ev.PullGranted(waits.record.event.request, ev.Snapshot(newest, 0, {}), clock)])


def read_an_old_version(run):
    """A read shows the version before the newest."""
    pull = list(run.records(ev.PullReceived, lambda record: isinstance(record.effects[0], ev.PullGranted)))[
        20
    ]
    granted, *others = pull.record.effects
    snapshot = replace(granted.snapshot, version=granted.snapshot.version - 1)
    pull.change(effects=[replace(granted, snapshot=snapshot), *others])


def held_up(run):
    """A reader is made to wait for nothing."""
    pull = list(run.records(ev.PullReceived, lambda record: isinstance(record.effects[0], ev.PullGranted)))[
        20
    ]
    pull.change(effects=[ev.PullParked(pull.record.event.request, (), "", 0.0)])


def round_without_a_live_member(run):
    """A round leaves somebody out whose gradient was there."""
    for shard in run.shards():
        closed = list(run.records(ev.RoundClosed, shard=shard))[5]
        event = closed.record.event
        closed.change(event=replace(event, ranks=event.ranks[1:]))


def rounds_that_differ(run):
    """A round is another one on another shard."""
    closed = list(run.records(ev.RoundClosed, shard=1))[5]
    event = closed.record.event
    closed.change(event=replace(event, ranks=event.ranks[:-1]))


def round_too_early(run):
    """A round is closed before everyone's gradient is there."""
    closed = list(run.records(ev.RoundClosed))[5]
    last = list(run.records(ev.PushReceived, lambda record: record.event.sequence == 5))[-1]
    run.remove(closed)
    grains = next(grains for grains in run.files.values() if last in grains)
    grains.insert(grains.index(last), closed)


def fenced_and_applied(run):
    """An incarnation that counts no more goes on pushing."""
    for shard in run.shards():
        change = next(run.records(ev.MembershipChanged, shard=shard))
        [member] = change.record.event.members
        change.change(event=replace(change.record.event, members=(replace(member, incarnation=2),)))


def stale_version(run):
    """A gradient is said to be made of another version than was read."""
    push = list(run.records(ev.PushReceived, lambda record: record.event.version > 3))[20]
    [answer] = push.record.effects
    verdict = replace(answer.verdict, staleness=answer.verdict.staleness + 1)
    event = replace(push.record.event, version=push.record.event.version - 1)
    push.change(event=event, effects=[replace(answer, verdict=verdict)])


def samples_changed(run):
    """A shard has got another number of samples than another."""
    push = list(run.records(ev.PushReceived))[20]
    push.change(event=replace(push.record.event, samples=push.record.event.samples + 1))


def samples_changed_alike(run):
    """All shards have got another number of samples than the replica says."""
    for shard in run.shards():
        push = next(
            run.records(
                ev.PushReceived,
                lambda record: (record.event.sequence, record.event.replica.rank) == (7, 0),
                shard,
            )
        )
        push.change(event=replace(push.record.event, samples=1000))


def order_left_out(run):
    """A shard misses an order."""
    run.remove(list(run.records(ev.CutOrdered))[-1])


def orders_that_differ(run):
    """Two shards are told different things under one number."""
    change = next(run.records(ev.MembershipChanged, shard=1))
    event = change.record.event
    change.change(event=replace(event, expected=event.expected + 1))


def answer_changed(run):
    """A reader hears of its push what is not true."""
    closed = next(run.records(ev.RoundClosed, lambda record: len(record.effects) > 0))
    effects = [
        replace(effect, verdict=replace(effect.verdict, outcome=ev.Outcome.DROPPED, version=0))
        for effect in closed.record.effects
    ]
    closed.change(effects=effects)


def header_changed(run):
    """A file says that the shard was something else when it was begun."""
    run.headers(0, lambda value: value["record"].update(expected=77), 1)


def another_checkpoint(run):
    """A shard goes back to something else than it had been."""
    back = next(run.records(ev.GenerationBegun))
    event = back.record.event
    snapshot = replace(event.cut.snapshot, version=event.cut.snapshot.version - 1)
    back.change(event=replace(event, cut=replace(event.cut, snapshot=snapshot)))


def checkpoint_says_another_clock(run):
    """A checkpoint says that a replica was further than it was."""

    def change(notes):
        clocks = json.loads(notes["clocks"])
        clocks["0"] += 1
        notes["clocks"] = json.dumps(clocks)

    run.cut(run.path / "checkpoints" / "000001", 0, notes=change)


def chain_broken(run):
    """A checkpoint names another journal."""

    def change(notes):
        link = json.loads(notes["journal"])
        notes["journal"] = json.dumps({**link, "digest": "00" + link["digest"][2:]})

    run._marks.clear()
    run.cut(run.path / "checkpoints" / "000001", 0, notes=change)


def counts_changed(run):
    """A shard had counted other pushes than its journal has."""

    def change(notes):
        link = json.loads(notes["journal"])
        link["pushes"]["applied"] += 1
        notes["journal"] = json.dumps(link)

    run._marks.clear()
    run.cut(run.path / "checkpoint", 0, notes=change)


def weights_changed(run):
    """The final weights are others, with a manifest that says so."""
    run.cut(run.path / "checkpoint", 0, tensor=lambda tensor: tensor.__iadd__(1))


def weights_and_summary_changed(run):
    """The same, and the summary says so, too."""
    weights_changed(run)
    path = run.path / "summary.json"
    manifest = json.loads((run.path / "checkpoint" / "manifest.json").read_text())
    path.write_text(
        json.dumps({**json.loads(path.read_text()), "weights_sha256": manifest["weights_sha256"]})
    )


def gradient_changed(run):
    """A gradient in a full journal is another."""
    push = list(run.records(ev.PushReceived))[-1]
    gradients = {part: np.array(value) + 1 for part, value in push.record.event.gradients.items()}
    push.change(event=replace(push.record.event, gradients=gradients))


def summary_changed(run):
    """The summary says that more was applied."""
    path = run.path / "summary.json"
    summary = json.loads(path.read_text())
    summary["samples"]["applied"] += 32
    path.write_text(json.dumps(summary))


PLANTED = [
    ("async", applied_twice, "once"),
    ("ssp", applied_twice, "once"),
    ("async", applied_without_update, "version"),
    ("async", version_gap, "version"),
    ("async", update_without_push, "once"),
    ("ssp", read_too_early, "read"),
    ("sync", read_too_early, "read"),
    ("async", read_an_old_version, "version"),
    ("async", held_up, "wake"),
    ("sync", round_without_a_live_member, "round"),
    ("sync", rounds_that_differ, "round"),
    ("sync", round_too_early, "round"),
    ("async", fenced_and_applied, "fence"),
    ("sync", fenced_and_applied, "fence"),
    ("async", stale_version, "staleness"),
    ("async", samples_changed, "samples"),
    ("sync", samples_changed_alike, "samples"),
    ("async", order_left_out, "order"),
    ("async", orders_that_differ, "order"),
    ("sync", answer_changed, "answer"),
    ("sync", header_changed, "replay"),
    ("back", another_checkpoint, "generation"),
    ("async", checkpoint_says_another_clock, "journal"),
    ("async", chain_broken, "journal"),
    ("async", counts_changed, "samples"),
    ("sync", weights_changed, "weights"),
    ("journal", weights_and_summary_changed, "weights"),
    ("journal", gradient_changed, "weights"),
    ("async", summary_changed, "samples"),
]


@pytest.mark.parametrize(
    ("kind", "plant", "broken"), PLANTED, ids=[f"{kind}-{plant.__name__}" for kind, plant, _ in PLANTED]
)
def test_what_is_planted_is_found(forge, kind, plant, broken):
    run = forge(kind)
    plant(run)
    report = check_run(run.write())
    # What follows from it may be found, too.
    assert broken in {violation.property for violation in report.violations}, report.violations


# -------------------------------------------------------------------------------------- what checksums tell


def flip(path, place):
    """Change one byte of a file."""
    data = bytearray(path.read_bytes())
    data[place] ^= 1
    path.write_bytes(data)


def cut_off(path):
    """Take the end of a file away."""
    path.write_bytes(path.read_bytes()[:-50])


def last(folder):
    """Return the newest file of a journal."""
    return max(folder.iterdir())


FIRST = "000001.journal"
DAMAGES = {
    "shard-0000 is missing: the final checkpoint was made there": shutil.rmtree,
    "a segment is missing": lambda here: (here / FIRST).unlink(),
    ".journal is missing: the final checkpoint": lambda here: last(here).unlink(),
    "has been changed or cut off since it was written": lambda here: flip(here / FIRST, -20),
    "has been changed since it was written": lambda here: flip(last(here), -20),
    "it does not begin as a journal does": lambda here: flip(here / FIRST, 0),
    "has no sound header": lambda here: flip(here / FIRST, 30),
    "it is file 1 of shard 1": lambda here: shutil.copy(here.parent / "shard-0001" / FIRST, here),
    "the final checkpoint was made: it has been cut off": lambda here: cut_off(last(here)),
}


@pytest.mark.parametrize("said", list(DAMAGES))
def test_a_damaged_journal_ends_in_a_sentence(run_of, tmp_path, said):
    run = shutil.copytree(run_of("async"), tmp_path / "run")
    DAMAGES[said](journal_folder(run, 0))
    found = [each for each in check_run(run).violations if each.property == "journal"]
    assert any(said in violation.message for violation in found), found


def test_a_frame_with_a_right_checksum_and_another_digest(run_of, tmp_path):
    run = ForgedRun(run_of("async"), tmp_path / "run")
    path = segment_path(journal_folder(run.path, 0), 1)
    untouched = path.read_bytes()
    samples_changed(run)
    run.write()
    assert path.read_bytes() != untouched
    for number in (0, 2):  # the other files and the checkpoints as they were
        name = segment_path(journal_folder(run_of("async"), 0), number)
        shutil.copy(name, segment_path(journal_folder(run.path, 0), number))
    found = [each.message for each in check_run(run.path).violations if each.property == "journal"]
    assert any("which has been changed or cut off since" in message for message in found), found


def test_a_damaged_checkpoint_ends_in_a_sentence(run_of, tmp_path):
    run = shutil.copytree(run_of("async"), tmp_path / "run")
    flip(next((run / "checkpoint").glob("shard-0001*")), -1)
    [found] = [each for each in check_run(run).violations if each.property == "weights"]
    assert "is not the file that the manifest means" in found.message


# ------------------------------------------------------------------------------------------ the command line


def test_the_command_says_what_was_verified(run_of):
    code, out, err = command(run_of("ssp"))
    assert (code, err) == (0, "")
    assert "none applied twice" in out
    assert "shard 1: versions 0 to 88 of 88" in out
    assert "weights are not computed again" in out
    code, out, _ = command(run_of("journal"), "--json")
    report = json.loads(out)
    assert (code, report["violations"], report["not_covered"]) == (0, 0, [])
    assert report["coverage"][0]["computed_again"] == [0, 22]


def test_the_command_shows_what_is_wrong(forge):
    run = forge("async")
    applied_twice(run)
    run.write()
    code, out, _ = command(run.path)
    assert code == 1
    lines = out.splitlines()
    [begin] = [place for place, line in enumerate(lines) if line.startswith("The fewest events on shard 0")]
    first, second, end = lines[begin + 1 : begin + 4]
    assert first.lstrip().startswith("1. 00000")
    assert "applied at version" in first
    assert second.lstrip().startswith("2. 00000")
    assert "applied at version" in second
    assert not end.strip()
    code, out, _ = command(run.path, "--json")
    report = json.loads(out)
    assert code == 1
    assert report["first_violations"][0]["property"] == "once"
    assert len(report["story"]["events"]) == 2


def test_where_there_is_nothing_to_check(tmp_path, run_of):
    code, out, err = command(tmp_path / "nowhere")
    assert (code, out) == (2, "")
    assert "There is no folder" in err
    run = shutil.copytree(run_of("ssp"), tmp_path / "run")
    shutil.rmtree(run / "journal")
    with pytest.raises(RequestError, match="has no journal, so there is nothing to check"):
        check_run(run)
