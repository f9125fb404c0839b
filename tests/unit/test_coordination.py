"""The coordinator on the event loop: what cannot be written down is heard of by nobody."""

import asyncio

import pytest

from paramserver import events as ev
from paramserver.coordinator import Coordinator
from paramserver.errors import JobError
from server.coordination import CoordinatorHost
from server.requests import Requests

JOB = ev.JobSpec((ev.TensorSpec("w", (2,)),), replicas=1, replicas_max=1)


def refuse(record):
    raise JobError("There is no room.")


def test_a_job_that_cannot_write_down_who_joins_ends_with_that_sentence():
    async def run():
        orders, failures, requests = [], [], Requests(asyncio.get_running_loop())
        host = CoordinatorHost(Coordinator(1, 1, recovers=True), requests, 1, failures.append)
        host.connect(0, lambda _, order: orders.append(order))
        host.handle(ev.ServerRegistered(0, "here:1", 1))

        host.remember = refuse
        ticket = requests.open()
        host.handle(ev.JoinReceived(ticket.number, "a", "1", JOB))
        with pytest.raises(JobError, match="There is no room"):
            await asyncio.wait_for(ticket.answer, 10)
        host.stop()
        return orders, failures, host.status()

    orders, failures, status = asyncio.run(run())
    assert [type(order) for order in orders] == [ev.JobEnded]
    assert failures == []
    assert (status.ended, status.reason) == (True, "There is no room.")


def test_a_checkpoint_whose_record_finds_no_room_is_missed_and_the_job_goes_on():
    async def run():
        orders, requests = [], Requests(asyncio.get_running_loop())
        host = CoordinatorHost(Coordinator(1, 1, recovers=True), requests, 1, pytest.fail)
        host.connect(0, lambda _, order: orders.append(order))
        host.handle(ev.ServerRegistered(0, "here:1", 1))
        host.handle(ev.JoinReceived(requests.open().number, "a", "1", JOB))
        before = list(orders)
        assert host.write_down_dealt() == ""
        host.remember = refuse
        assert host.write_down_dealt() == "There is no room."
        host.handle(ev.CheckpointKept(ev.Kept(0)))
        records = []
        host.remember = records.append
        assert host.write_down_dealt() == ""
        host.stop()
        assert orders == before
        assert not host.status().ended
        return records

    [record] = asyncio.run(run())
    assert record.members
