"""Every wait of a launch has a deadline, and each says which one it was."""

from dataclasses import replace
from types import SimpleNamespace

import pytest

from paramserver.events import Counters, JobStatus, MemberStatus, Phase, Replica, Standing
from paramserver.job import Job
from paramserver.launch.local import FINISH_SECONDS, SILENCE_SECONDS, STANDSTILL_SECONDS, _Vigil

START_DEADLINE = 60.0
JOB = Job(lease_seconds=10.0, step_timeout=100.0, start_timeout=60.0)


def standing(*clocks, started=True, sealed=True, ended=False, reason=""):
    members = tuple(
        MemberStatus(Replica(rank, 1), f"w/{rank}", Standing.LIVE, clock, 9, Phase.COMPUTE, 0.1, Counters())
        for rank, clock in enumerate(clocks)
    )
    return JobStatus(None, 0, (), 1, started, sealed, ended, reason, 0, members, ())


@pytest.fixture
def vigil():
    return _Vigil(SimpleNamespace(job=JOB), START_DEADLINE)


def test_a_start_may_take_its_time_and_no_more(vigil):
    assert vigil.complaint(59.0) == ""
    assert "Only 0 of 4 replicas were ready within 60 s." in vigil.complaint(60.0)
    vigil.see(standing(0, 0, started=False), 59.5)
    assert "Only 2 of 4 replicas" in vigil.complaint(60.0)
    vigil.see(standing(0, 0, 0, 0), 60.5)
    assert vigil.complaint(61.0) == ""


def test_a_coordinator_may_be_silent_for_a_while(vigil):
    vigil.see(standing(1, 1, 1, 1), 5.0)
    last = 5.0 + JOB.lease_seconds + JOB.restart_timeout + SILENCE_SECONDS
    assert vigil.complaint(last) == ""
    assert "has not answered for 70 s" in vigil.complaint(last + 0.4)


def test_a_job_may_stand_still_for_a_step_timeout_and_a_little(vigil):
    vigil.see(standing(1, 1, 1, 1), 5.0)
    last = 5.0 + JOB.step_timeout + JOB.lease_seconds + JOB.restart_timeout + STANDSTILL_SECONDS
    vigil.see(standing(1, 1, 1, 1), last)
    assert vigil.complaint(last) == ""
    assert "No replica has finished a step for 201 s." in vigil.complaint(last + 1)
    vigil.see(standing(1, 2, 1, 1), last + 1)
    assert vigil.complaint(last + 2) == ""


def test_the_end_of_a_job_has_a_deadline_of_its_own(vigil):
    vigil.see(standing(9, 9, 9, 9, ended=True), 5.0)
    vigil.end(300.0)  # again: the first time counts
    assert vigil.complaint(5.0 + FINISH_SECONDS) == ""
    assert "The job was over, but not all had ended" in vigil.complaint(6.0 + FINISH_SECONDS)


def test_the_coordinators_reason_is_kept(vigil):
    assert vigil.reason == ""
    vigil.see(standing(1, ended=True, reason="Replica 0 failed."), 5.0)
    assert vigil.reason == "Replica 0 failed."
    assert replace(vigil.status, reason="") == standing(1, ended=True)
