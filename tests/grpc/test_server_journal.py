"""A shard behind its journal: what leaves when, and what happens where the disk refuses."""

from __future__ import annotations

import threading

import numpy as np
import pytest

from paramserver import events as ev
from paramserver.shard import Shard
from paramserver.storage import finish_checkpoint
from paramserver.storage.journal import journal_folder, read_journal
from server.checkpoints import CutKeeper
from server.host import ShardHost
from server.journal import FINAL_CUT, ShardJournal

SECONDS = 30.0
PART = ev.Slice("w", 0, 2, 0)


def announced(durability):
    job = ev.JobSpec((ev.TensorSpec("w", (2,)),), consistency="async", durability=durability)
    return ev.JobAnnounced(1, job, (PART,))


class Journal(ShardJournal):
    """A journal that waits to be told before it writes."""

    def __init__(self, *arguments):
        self.may_write = threading.Event()
        super().__init__(*arguments)

    def _write(self):
        assert self.may_write.wait(SECONDS)
        super()._write()


def test_what_a_full_journal_does_not_have_does_not_leave(tmp_path):
    journal = Journal(tmp_path, 0, 0, pytest.fail)
    host = ShardHost(Shard(0), lambda: 1.0, journal=journal)
    released = threading.Event()
    host.when_released(released.set)
    host.handle(announced("journal"))
    assert list(host.effects()) == []
    journal.may_write.set()
    assert released.wait(SECONDS)
    assert list(host.effects()) == [ev.Reported(ev.OrderHandled(0, 1, {}))]
    journal.close()
    (segment,) = read_journal(journal_folder(tmp_path, 0))
    assert [each.event for each in segment.records] == [announced("journal")]


def test_a_light_journal_holds_nothing_up(tmp_path):
    journal = Journal(tmp_path, 0, 1 << 20, pytest.fail)
    host = ShardHost(Shard(0), lambda: 1.0, journal=journal)
    host.handle(announced("checkpoint"))
    assert list(host.effects()) == [ev.Reported(ev.OrderHandled(0, 1, {}))]
    journal.may_write.set()
    journal.close()
    (segment,) = read_journal(journal_folder(tmp_path, 0))
    assert [each.event for each in segment.records] == [announced("checkpoint")]


def test_without_room_no_light_journal_is_written(tmp_path):
    journal = ShardJournal(tmp_path, 0, 0, pytest.fail)
    host = ShardHost(Shard(0), lambda: 1.0, journal=journal)
    host.handle(announced("checkpoint"))
    journal.close()
    assert read_journal(journal_folder(tmp_path, 0)) == []


def test_where_the_disk_refuses_a_full_journal_lets_nothing_leave_and_says_so(tmp_path):
    (tmp_path / "journal").write_text("in the way")
    sentences, failed = [], threading.Event()

    def fail(sentence):
        sentences.append(sentence)
        failed.set()

    journal = ShardJournal(tmp_path, 0, 0, fail)
    host = ShardHost(Shard(0), lambda: 1.0, journal=journal)
    host.handle(announced("journal"))
    assert failed.wait(SECONDS)
    host.handle(ev.MembershipChanged(2, (), False, 1))
    assert list(host.effects()) == []
    assert "The journal of shard 0 cannot be written: " in sentences[0]
    journal.close()


def test_where_the_disk_refuses_a_light_journal_the_training_goes_on(tmp_path, caplog):
    (tmp_path / "journal").write_text("in the way")
    journal = ShardJournal(tmp_path, 0, 1 << 20, pytest.fail)
    host = ShardHost(Shard(0), lambda: 1.0, journal=journal)
    host.handle(announced("checkpoint"))
    journal.close()
    host.handle(ev.MembershipChanged(2, (), False, 1))
    assert len(list(host.effects())) == 2
    assert "The training goes on without it." in caplog.text


@pytest.fixture
def trained(tmp_path):
    """A shard with weights, behind its light journal, and the keeper of its cuts."""
    journal = ShardJournal(tmp_path, 0, 1 << 20, pytest.fail)
    host = ShardHost(Shard(0), lambda: 1.0, journal=journal)
    keeper = CutKeeper(tmp_path, 1, lambda _: None, {0: journal})
    for event in (
        announced("checkpoint"),
        ev.MembershipChanged(2, (ev.Member(0, 1),), started=True, expected=1),
        ev.InitialiseReceived(1, "a", {PART: np.zeros(2, np.float32)}),
        ev.Sealed(3, "a"),
    ):
        host.handle(event)
    yield tmp_path, host, journal, keeper
    journal.close()


def test_a_cut_says_where_in_the_journal_it_was_made(trained):
    run, host, journal, _ = trained
    host.handle(ev.CutOrdered(4, 0))
    host.handle(ev.PullReceived(2, ev.Replica(0, 1)))
    host.handle(ev.CutAsked(3))
    first, last = journal.link(0), journal.link(FINAL_CUT)
    # Whoever knows the place can read the journal up to there.
    before, after = read_journal(journal_folder(run, 0))
    assert (first.segment, first.frames, first.digest) == (0, 6, before.digest)
    assert (last.segment, last.frames, last.digest) == (1, 2, after.digest)
    assert journal.link(7) is None


def test_the_last_checkpoint_stays_as_it_is_where_it_is_made_once_more(trained):
    run, host, _, keeper = trained

    def write():
        host.handle(ev.CutAsked(9))
        cut = [effect for effect in host.effects() if isinstance(effect, ev.CutTaken)][-1].cut
        return keeper.write(run / "checkpoint", cut, 0, FINAL_CUT)

    file = write()
    finish_checkpoint(run / "checkpoint", announced("checkpoint").job, [file], 0, 0)
    host.handle(ev.PullReceived(2, ev.Replica(0, 1)))  # the journal goes on, the shard stays what it is
    assert write() == file
    host.handle(ev.PushReceived(3, ev.Replica(0, 1), 0, 0, 0, 1, {PART: np.ones(2, np.float32)}))
    assert write() != file
