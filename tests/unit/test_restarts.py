"""What is started again, how often, and what is left alone."""

import signal
from dataclasses import replace

import pytest

from paramserver.events import Counters, JobStatus, MemberStatus, Phase, Replica, Standing
from paramserver.job import Job
from paramserver.launch.restarts import GRACE_SECONDS, PAUSE_SECONDS, Restarts

JOB = Job(max_restarts=2).resolved()
DROP = replace(JOB, on_death="drop")
LIVE, DEAD, LEFT = Standing.LIVE, Standing.DEAD, Standing.LEFT


class Child:
    """A process as far as restarts look at it."""

    def __init__(self, name, code=None, started_at=0.0):
        self.name, self.code, self.started_at = name, code, started_at
        self.words = ""

    def ending(self):
        return f"The process of {self.name} ended with {self.code}."

    def epitaph(self):
        return self.ending() + self.words

    def signal(self, number):
        self.code = -number


class Desk:
    """Restarts of a server and a worker, and what was done."""

    def __init__(self, job=JOB):
        self.server, self.worker = Child("server 0"), Child("worker 0")
        self.all = [self.server, self.worker]
        self.notes = []
        self.restarts = Restarts(job, self, self._restart, self.notes.append)
        self.now = 0.0

    def failed(self):
        return [child for child in self.all if child.code]

    def _restart(self, ended):
        fresh = Child(ended.name, started_at=self.now)
        self.all[self.all.index(ended)] = fresh
        return fresh

    def look(self, now, *standings, incarnation=1, ended=False):
        """Look twice, as what has ended is only then believed."""
        self.now = now
        members = tuple(
            MemberStatus(
                Replica(rank, incarnation), f"worker0/{rank}", standing, 1, 9, Phase.PULL, 0.1, Counters()
            )
            for rank, standing in enumerate(standings)
        )
        status = JobStatus(None, 0, (), 1, True, True, ended, "", 0, members, ())
        self.restarts.look(status, now)
        self.restarts.look(status, now)


def test_a_process_is_started_again_so_often_and_no_more():
    desk = Desk()
    for times in (1, 2):
        desk.all[1].code = -9
        assert desk.restarts.final() == []
        desk.look(10.0 * times, LIVE, LIVE)
        assert desk.all[1].code is None
        assert desk.notes[-1].endswith(f"It is started again ({times} of 2).")
    desk.all[1].code = -9
    desk.look(30.0, LIVE, LIVE)
    [final] = desk.restarts.final()
    assert desk.restarts.epitaph(final).endswith("started again 2 times; --max-restarts allows no more.")
    assert desk.restarts.counts == {"worker 0": 2}


def test_who_could_say_nothing_is_spoken_for_by_the_one_before():
    """Where the disk is full the newest log is empty."""
    desk = Desk()
    desk.all[0].code, desk.all[0].words = 1, " Its last words: No space left."
    for times in (1, 2):
        desk.look(10.0 * times, LIVE, LIVE)
        desk.all[0].code = 1
    [final] = desk.restarts.final()
    assert desk.restarts.epitaph(final).endswith(
        "The one before it said more: The process of server 0 ended with 1. Its last words: No space left."
    )


def test_what_fails_at_once_is_not_started_again_in_a_rush():
    desk = Desk()
    desk.worker.code = 1
    desk.look(PAUSE_SECONDS / 2, LIVE)
    assert desk.all[1] is desk.worker
    desk.look(PAUSE_SECONDS, LIVE)
    assert desk.all[1] is not desk.worker


def test_what_has_just_ended_is_looked_at_once_more():
    desk = Desk()
    desk.worker.code = 1
    desk.restarts.look(None, 9.0)
    assert desk.all[1] is desk.worker, "whether the job has failed is not known yet"
    desk.restarts.look(None, 9.1)
    assert desk.all[1] is not desk.worker


def test_bad_input_is_none_the_second_time_either():
    desk = Desk()
    desk.worker.code = 2
    desk.look(9.0, LIVE)
    assert desk.restarts.final() == [desk.worker]


@pytest.mark.parametrize(
    ("standing", "ended", "again"), [(LIVE, False, 1), (LEFT, False, 0), (LIVE, True, 0)]
)
def test_a_worker_that_has_finished_is_missed_where_its_work_was_lost(standing, ended, again):
    desk = Desk()
    desk.worker.code = 0
    desk.look(9.0, standing, ended=ended)
    assert desk.restarts.counts["worker 0"] == again


def test_without_recovery_a_server_stays_away():
    desk = Desk(replace(JOB, durability="none"))
    desk.server.code = -9
    desk.look(9.0, LIVE)
    assert desk.restarts.final() == [desk.server]


def test_where_the_dead_are_dropped_the_job_goes_on_without_a_worker():
    desk = Desk(replace(DROP, max_restarts=0))
    desk.worker.code = -9
    desk.look(9.0, LIVE)
    assert desk.restarts.final() == []
    assert desk.notes == ["The process of worker 0 ended with -9. The job goes on without it."]


def test_a_worker_that_hangs_is_killed_if_the_others_wait_for_it():
    desk = Desk()
    desk.look(10.0, LIVE, DEAD)
    assert desk.worker.code is None, "it may come back by itself"
    desk.look(10.0 + GRACE_SECONDS, LIVE, DEAD)
    assert desk.worker.code == -signal.SIGKILL
    desk.look(20.0, LIVE, DEAD)
    assert desk.all[1] is not desk.worker
    assert "but 1 replica of it is dead" in desk.notes[0]


def test_a_successor_is_not_taken_for_dead_before_it_has_joined():
    desk = Desk()
    desk.worker.code = -9
    desk.look(10.0, LIVE, LIVE)
    successor = desk.all[1]
    for now, standing, incarnation in [(11, LIVE, 1), (13, DEAD, 2), (20, DEAD, 2), (21, LIVE, 2)]:
        desk.look(float(now), standing, standing, incarnation=incarnation)
        assert successor.code is None
    desk.look(30.0, DEAD, DEAD, incarnation=3)
    desk.look(30.0 + GRACE_SECONDS, DEAD, DEAD, incarnation=3)
    assert successor.code == -signal.SIGKILL


def test_under_drop_a_worker_that_hangs_is_left_alone():
    desk = Desk(DROP)
    desk.look(10.0, DEAD)
    desk.look(99.0, DEAD)
    assert (desk.worker.code, desk.notes) == (None, [])
