"""A shard behind its journal: what leaves when, and what happens where the disk refuses."""

from __future__ import annotations

import threading

import pytest

from paramserver import events as ev
from paramserver.shard import Shard
from paramserver.storage.journal import journal_folder, read_journal
from server.host import ShardHost
from server.journal import ShardJournal

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
