"""Faults of real processes: the same words as in virtual time, and a plan that a seed decides."""

import pytest

from paramserver.chaos.plan import Asked, decide_plan, parse_own_faults
from paramserver.errors import RequestError
from paramserver.faults import REAL, parse_faults
from paramserver.job import Job

ALL = (
    "lose=0.01 duplicate=0.01 delay=0.01+200ms reorder=0.01+5ms cut=0.01 kill=w1@3s kill=s0@5s pause=w1@4s+1s"
)


def test_the_words_of_real_processes_are_read_as_they_were_written():
    assert str(parse_faults(ALL, REAL)) == ALL


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("crash=w1@3s", "Unknown fault of real processes 'crash': expected lose, .*kill"),
        ("kill=w1@3s+2s", "Expected kill=w1@3s as"),
        ("pause=s0@3s", r"Expected pause=w1@3s\+2s as"),
        ("cut=1%+5ms", "Expected cut=1% as"),
        ("refuse=s0@3s+1s", "Expected a worker such as w0"),
    ],
)
def test_what_real_processes_do_not_know_is_refused(text, sentence):
    with pytest.raises(RequestError, match=sentence):
        parse_faults(text, REAL)


@pytest.mark.parametrize("text", ["kill=w1@3s", "cut=1%", "refuse=w1@1s+1s"])
def test_what_virtual_time_does_not_know_is_refused(text):
    with pytest.raises(RequestError, match="Unknown fault"):
        parse_faults(text)


def test_a_seed_decides_a_plan():
    text = f"{ALL} kill=any@1s..9s"
    plan = decide_plan(text, 7, workers=3, servers=1)
    assert plan.record() == decide_plan(text, 7, workers=3, servers=1).record()
    other = decide_plan(text, 8, workers=3, servers=1).record()
    assert other["messages"] != plan.record()["messages"]
    assert other["happenings"] != plan.record()["happenings"]
    fates = plan.record()["messages"]
    assert fates["worker0"] != fates["worker1"]
    assert {each["what"] for each in fates["worker0"]} == {"lose", "duplicate", "delay", "reorder", "cut"}
    assert [each["whom"] for each in plan.record()["happenings"]][-1] in (
        "server0",
        "worker0",
        "worker1",
        "worker2",
    )


def test_a_worker_is_told_what_it_does_to_itself():
    plan = decide_plan("lose=1% kill=w1@3s partition=w1@1s+2s refuse=w0@1s+500ms", 7, workers=2, servers=1)
    option, text, seed_option, seed = plan.options(1)
    assert (option, seed_option, seed) == ("--chaos", "--chaos-seed", "7")
    assert str(parse_own_faults(text)) == "lose=0.01 partition=w1@1s+2s"
    assert decide_plan("kill=w1@3s", 7, workers=2, servers=1).options(1) == []
    with pytest.raises(RequestError, match="A process cannot kill itself"):
        parse_own_faults("kill=w1@3s")


@pytest.mark.parametrize(
    ("job", "text", "sentence"),
    [
        (Job(workers=2), "kill=w2@1s", "There is no worker 2.*workers 0 to 1"),
        (Job(servers=1), "pause=s1@1s+1s", "There is no server 1"),
        (Job(engine="sequential"), "lose=1%", "the engine 'sequential' has none. Leave it out"),
        (Job(engine="sim"), "lose=1%", "Say --faults"),
    ],
)
def test_a_plan_for_nobody_is_refused(job, text, sentence):
    with pytest.raises(RequestError, match=sentence):
        Asked(text).plan(job)
