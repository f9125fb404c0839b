"""The deployed protocol in virtual time: the same bytes, the same trace, times that add up."""

import json
import math
from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from virtual import LAN, simulate

from paramserver.client.channels import PAUSES_SECONDS
from paramserver.consistency import parse_consistency
from paramserver.errors import RequestError
from paramserver.optim import build_optimizer
from paramserver.sequential import train_sequentially
from paramserver.sim import Machines, Simulation, parse_problem, world_from_mapping
from paramserver.sim.asking import RETRY_SECONDS
from paramserver.tracing import Arrow, Span
from paramserver.types import tensors_sha256

MS = 1_000_000
RULES = ["sync", "async", "ssp:0", "ssp:2"]


def sequential_sha256(problem, steps, replicas, optimizer, lr):
    updates = train_sequentially(
        parse_consistency("sync"),
        build_optimizer(optimizer, lr, "constant", steps),
        problem.initial,
        [problem.step(rank) for rank in range(replicas)],
        [steps] * replicas,
    )
    weights = problem.initial
    for update in updates:
        weights = update.weights
    return tensors_sha256(weights)


@st.composite
def steady_worlds(draw):
    """Worlds in which membership never changes: whatever happens is shorter than a lease."""
    compute = draw(st.sampled_from(["constant:10ms", "exponential:10ms", "pareto:3ms,1.5 w0=x5 all/20%=x9"]))
    network = draw(
        st.sampled_from(
            ["ideal", LAN, LAN.replace("latency=100us", "latency=lognormal:2ms,1"), LAN + " handlers=3"]
        )
    )
    faults = draw(
        st.lists(
            st.sampled_from(
                [
                    "lose=4%",
                    "duplicate=20%",
                    "delay=10%+1ms..40ms",
                    "reorder=20%+1ms..20ms",
                    "pause=any@0s..200ms+300ms",
                    "partition=any@0s..200ms+2s",
                ]
            ),
            unique=True,
        )
    )
    return compute, network, " ".join(faults)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    world=steady_worlds(),
    servers=st.integers(1, 2),
    shards=st.integers(1, 2),
    workers=st.integers(1, 4),
    threads=st.integers(1, 2),
    seed=st.integers(0, 2**32 - 1),
    problem=st.sampled_from(["quadratic:0.5,0.3", "logistic"]),
)
def test_synchronous_weights_are_those_of_the_sequential_loop_in_every_steady_world(
    world, servers, shards, workers, threads, seed, problem
):
    made = parse_problem(problem, servers * shards)
    run = simulate(
        *world,
        problem=made,
        steps=6,
        workers=workers,
        threads=threads,
        servers=servers,
        shards=shards,
        seed=seed,
        size=100_000,
        optimizer="momentum:0.9",
        learning_rate=0.1,
    )
    assert run.reason == ""
    assert run.weights_sha256 == sequential_sha256(made, 6, workers * threads, "momentum:0.9", 0.1)
    assert set(run.versions) == {6}
    assert Counter((step.rank, step.clock) for step in run.steps) == Counter(
        (rank, clock) for rank in range(workers * threads) for clock in range(6)
    )


@pytest.mark.parametrize("rule", RULES)
def test_one_seed_is_one_trace_to_the_byte(rule):
    def trace(seed):
        faults = "lose=2% delay=5%+1ms..9ms crash=any@20ms..80ms+50ms"
        return simulate(
            "exponential:10ms",
            LAN,
            faults,
            problem="logistic",
            seed=seed,
            consistency=rule,
            trace_max=100_000,
        )

    one, again, other = trace(3), trace(3), trace(4)
    assert one.chrome_trace() == again.chrome_trace()
    assert (one.weights_sha256, one.steps, one.notes) == (again.weights_sha256, again.steps, again.notes)
    assert one.chrome_trace() != other.chrome_trace()


def test_constant_steps_on_an_ideal_network_take_what_they_say():
    run = simulate("10ms", steps=30, consistency="sync")
    assert (run.began_ns, run.ended_ns) == (0, 300 * MS)
    assert {step.waited_ns for step in run.steps} == {0}


def test_a_step_pays_for_every_cost_once():
    # One worker, one shard, 1,000,000 bytes of weights, and links on which a byte takes 8 ns.
    network = "latency=1ms bandwidth=1Gbit/s server=unlimited rpc=2ms lock=3ms lock-per-byte=10ns"
    run = simulate("50ms", network, workers=1, steps=10, size=1_000_000, consistency="async")
    header = 800  # 100 bytes
    pull = 1 * MS + header + 2 * MS + 3 * MS + 1 * MS + 8 * MS + header
    push = 1 * MS + 8 * MS + header + 2 * MS + 3 * MS + 10 * MS + 1 * MS + header
    times = [step.pushed_ns for step in run.steps]
    assert {later - earlier for earlier, later in pairwise(times)} == {50 * MS + pull + push}
    # 11 pulls, 10 pushes, one initialise and 5 orders: announced, joined, sealed, left, ended.
    assert run.shards[0].held_ns == (11 + 10 + 1 + 5) * 3 * MS + 10 * 10 * MS
    assert run.servers[0].handlers_ns == (10 + 11 + 1) * 2 * MS


def test_workers_share_the_link_of_the_server():
    # On its own link 1 MB takes 8 ms. On a link that four share, the last pull ends after 32 ms; its push
    # finds the link free again.
    def last_push(server):
        network = f"latency=0s bandwidth=1Gbit/s server={server} rpc=0s lock=0s lock-per-byte=0s"
        run = simulate("10ms", network, steps=1, size=1_000_000, consistency="async")
        return (max(step.pushed_ns for step in run.steps) - run.began_ns) / MS

    assert last_push("unlimited") == pytest.approx(8 + 10 + 8, abs=0.1)
    assert last_push("1Gbit/s") == pytest.approx(4 * 8 + 10 + 8, abs=0.1)


def test_a_slow_link_slows_its_worker_alone():
    run = simulate("10ms", f"{LAN} w2.bandwidth=80Mbit/s", size=500_000, steps=5, consistency="async")
    spent = Counter()
    for step in run.steps:
        spent[step.rank] += step.pushed_ns - step.pulled_ns
    slow = spent.pop(2)
    assert slow > 3 * max(spent.values())


def test_who_is_waited_for_is_the_straggler():
    run = simulate("10ms w2=x3", consistency="ssp:1", steps=40)
    waits = dict.fromkeys(range(-1, 4), 0)
    for (_, other), waited in run.waits.items():
        waits[other] += waited
    assert waits[2] > 0.95 * sum(waits.values())
    assert max(step.clock_gap for step in run.steps) == 1
    assert all(step.waited_for == 2 for step in run.steps if step.waited_ns > 15 * MS)


@pytest.mark.parametrize("rule", RULES)
def test_every_second_and_every_gradient_is_accounted_for(rule):
    run = simulate("exponential:10ms", LAN, steps=25, consistency=rule, size=10_000)
    for member in run.status.members:
        counters = member.counters
        assert counters.gradients["computed"] == counters.gradients["applied"] == 25
        assert sum(counters.seconds.values()) == pytest.approx(run.ended_ns / 1e9, abs=0.5)
    busy = sum(member.counters.seconds["compute"] for member in run.status.members)
    assert 0 < busy < 4 * run.seconds


# ---------------------------------------------------------------------------------------------- faults


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("kind", ["lose=5%", "duplicate=30%", "reorder=30%+1ms..30ms", "delay=30%+1ms..30ms"])
def test_messages_that_go_wrong_change_no_account(rule, kind):
    run = simulate("exponential:10ms", LAN, kind, problem="quadratic:1", steps=30, shards=2, consistency=rule)
    assert run.reason == ""
    total = Counter()
    for member in run.status.members:
        total.update(member.counters.gradients)
    assert total["computed"] == total["applied"] == 120
    assert run.versions == ((30, 30) if rule == "sync" else (120, 120))
    if kind == "lose=5%":
        assert total["duplicate"] > 0, "some verdicts were lost, so some pushes came twice"


def test_a_crash_under_drop_costs_its_worker_alone():
    run = simulate("10ms", LAN, "crash=w1@100ms", steps=3000, consistency="ssp:2", lease_seconds=5)
    assert run.reason == ""
    assert {member.standing.value for member in run.status.members} == {"left", "dead"}
    steps = Counter(step.rank for step in run.steps)
    assert steps.pop(1) < 12
    assert set(steps.values()) == {3000}
    # The others wait until the lease is over, and for nobody afterwards.
    assert 4.0 <= max(step.waited_ns for step in run.steps) / 1e9 <= 6.0
    assert any("Replica 1" in sentence and "lease 5 s" in sentence for _, sentence in run.notes)


@pytest.mark.parametrize("rule", RULES)
def test_a_restarted_worker_goes_on_at_its_clock(rule):
    run = simulate(
        "10ms",
        LAN,
        "crash=w1@105ms+1s",
        problem="quadratic:1",
        steps=30,
        consistency=rule,
        on_death="restart",
    )
    assert run.reason == ""
    done = Counter((step.rank, step.clock) for step in run.steps)
    assert set(done) == {(rank, clock) for rank in range(4) for clock in range(30)}
    assert {member.replica.incarnation for member in run.status.members} == {1, 2}
    assert run.versions == ((30,) if rule == "sync" else (120,))


def test_a_worker_that_never_comes_back_ends_a_job_that_waits_for_it():
    run = simulate("10ms", LAN, "crash=w1@105ms", consistency="sync", steps=30)
    assert "was not restarted within" in run.reason


def test_a_pause_stretches_a_step_and_is_waited_for():
    run = simulate("10ms", "ideal", "pause=w1@105ms+1s", steps=20, consistency="sync")
    assert run.reason == ""
    assert run.seconds == pytest.approx(0.2 + 1.0, abs=1e-6)
    [step] = [step for step in run.steps if step.rank == 1 and step.clock == 10]
    assert step.pushed_ns - step.pulled_ns == 1010 * MS
    assert sum(waited for (_, other), waited in run.waits.items() if other == 1) == 3 * 1000 * MS


def test_a_short_partition_is_a_delay_and_a_long_one_a_death():
    short = simulate("10ms", LAN, "partition=w1@105ms+2s", steps=30, consistency="sync")
    assert short.reason == ""
    assert short.seconds == pytest.approx(2.3, abs=0.1)
    assert {member.replica.incarnation for member in short.status.members} == {1}
    long = simulate("10ms", LAN, "partition=w1@105ms+20s", steps=30, consistency="ssp:2", on_death="drop")
    assert long.reason == ""
    assert {member.standing.value for member in long.status.members} == {"left", "dead"}
    restarted = simulate("10ms", LAN, "partition=w1@105ms+20s", steps=30, consistency="sync")
    assert restarted.reason == ""
    assert {member.replica.incarnation for member in restarted.status.members} == {1, 2}
    assert restarted.versions == (30,)


@pytest.mark.parametrize("rule", RULES)
def test_a_paused_worker_costs_a_lease_where_the_dead_are_dropped_and_comes_back_by_itself(rule):
    changes = {"consistency": rule, "on_death": "drop", "lease_seconds": 2.0}
    run = simulate("10ms", LAN, "pause=w1@105ms+5s", steps=1000, problem="quadratic:1", **changes)
    assert run.reason == ""
    [back] = [member for member in run.status.members if member.replica.rank == 1]
    assert (back.replica.incarnation, back.standing.value) == (2, "left")
    waited = max(step.waited_ns for step in run.steps) / 1e9
    assert waited == 0 if rule == "async" else 0 < waited <= 2 + 1
    ended = [step.pushed_ns for step in run.steps if step.rank == 1]
    assert min(ended) < 0.2e9 < 5e9 < max(ended)
    gradients = back.counters.gradients
    named = sum(gradients.get(name, 0) for name in ("applied", "dropped", "fenced", "partial", "lost"))
    assert gradients["computed"] == named > 100


def test_a_late_worker_begins_at_the_slowest_clock():
    run = simulate("10ms", LAN, "join=w4@205ms", steps=40, consistency="ssp:1")
    assert run.reason == ""
    late = [step.clock for step in run.steps if step.rank == 4]
    assert late == list(range(late[0], 40))
    assert 15 <= late[0] <= 21


def test_a_worker_may_leave_early():
    run = simulate("10ms", LAN, "leave=w2@205ms", steps=40, consistency="ssp:1")
    assert run.reason == ""
    steps = Counter(step.rank for step in run.steps)
    assert 15 <= steps.pop(2) <= 21
    assert set(steps.values()) == {40}


@settings(max_examples=80, deadline=None, derandomize=True)
@given(
    rule=st.sampled_from(RULES),
    on_death=st.sampled_from(["restart", "drop"]),
    blows=st.lists(
        st.sampled_from(
            [
                "crash=any@0s..300ms",
                "crash=any@0s..300ms+0s..3s",
                "pause=any@0s..300ms+0s..15s",
                "partition=any@0s..300ms+0s..15s",
                "leave=any@0s..300ms",
                "join=w3@0s..300ms",
                "lose=3%",
                "duplicate=10%",
                "reorder=5%+1ms..50ms",
            ]
        ),
        max_size=5,
        unique=True,
    ),
    shards=st.integers(1, 3),
    seed=st.integers(0, 2**32 - 1),
)
def test_whatever_happens_the_job_ends_and_nothing_is_applied_twice(rule, on_death, blows, shards, seed):
    run = simulate(
        "exponential:10ms",
        LAN,
        " ".join(blows),
        problem="quadratic:1",
        workers=3,
        threads=2,
        steps=25,
        shards=shards,
        seed=seed,
        consistency=rule,
        on_death=on_death,
        restarts_max=5,
    )
    assert run.reason == "" or run.reason.endswith(".")
    ranks = 6 + 2 * any("join" in blow for blow in blows)
    assert all(version <= 25 * (1 if rule == "sync" else ranks) for version in run.versions)
    for member in run.status.members:
        gradients = member.counters.gradients
        decided = sum(
            gradients.get(name, 0)
            for name in ("applied", "dropped", "fenced", "partial", "lost", "rolled_back")
        )
        assert decided <= gradients.get("computed", 0) <= decided + 1
    if rule != "sync":
        applied = sum(step.outcome == "applied" for step in run.steps)
        assert min(run.versions, default=0) >= 0
        assert applied <= max(run.versions, default=0)


def test_the_retries_are_those_of_the_client():
    assert RETRY_SECONDS == PAUSES_SECONDS


def test_a_server_that_answers_nothing_any_more_is_given_up():
    run = simulate("10ms", LAN, "lose=99.99%", workers=1)
    assert run.reason == "No replica could join within 120 s: the servers were not up."


def test_whoever_joins_is_as_patient_as_the_job_for_its_start():
    network = f"{LAN} checkpoint=5ms checkpoint-per-byte=2ns"
    late = simulate("10ms", network, "crash=s1@0s+50s", servers=2, steps=5)
    assert (late.reason, late.versions) == ("", (5, 5))
    never = simulate("10ms", network, "crash=s1@0s", servers=2, steps=5)
    assert never.reason == "No replica could join within 120 s: the servers were not up."


# ---------------------------------------------------------------------------------------------- traces


@pytest.mark.parametrize("rule", ["sync", "async"])
def test_arrows_lead_from_each_push_to_its_update_and_to_the_first_pull_that_sees_it(rule):
    run = simulate("exponential:10ms", LAN, steps=6, shards=2, consistency=rule, trace_max=100_000)
    stations = {}
    for record in run.trace:
        if isinstance(record, Arrow):
            stations.setdefault(record.name, {})[record.stage] = record
    assert len(stations) == 4 * 6 * 2
    for arrow in stations.values():
        assert arrow["leaves"].at < arrow["passes"].at < arrow["arrives"].at
        assert arrow["passes"].row.thread.startswith("shard")
    first_seen = [arrow["arrives"].at for arrow in stations.values()]
    pulls = {span.end for span in run.trace if isinstance(span, Span) and span.name == "pull"}
    assert set(first_seen) <= pulls


def test_spans_of_a_row_nest_and_fill_it():
    run = simulate("10ms w1=x3", LAN, steps=10, consistency="ssp:1", trace_max=100_000)
    rows = {}
    for record in run.trace:
        if isinstance(record, Span):
            rows.setdefault(record.row.thread, []).append(record)
    waits = [span for span in rows["worker0/0"] if span.name == "wait"]
    assert waits
    assert {span.notes["for"] for span in waits} == {1}
    for wait in waits:
        assert any(p.begin <= wait.begin <= wait.end <= p.end for p in rows["worker0/0"] if p.name == "pull")
    main = sorted((span for span in rows["worker0/0"] if span.name != "wait"), key=lambda span: span.begin)
    assert [span.name for span in main] == ["pull", "compute", "push"] * 10 + ["pull"]
    assert all(one.end == following.begin for one, following in pairwise(main))


def test_a_trace_is_chrome_trace_events_and_keeps_the_newest():
    run = simulate("10ms", LAN, steps=10, trace_max=50)
    assert len(run.trace) == 50
    assert run.forgotten > 0
    events = json.loads(run.chrome_trace())["traceEvents"]
    assert {event["ph"] for event in events} <= {"M", "X", "s", "t", "f"}
    names = [event["args"]["name"] for event in events if event["name"] == "thread_name"]
    assert names == ["shard 0", "worker0/0", "worker1/0", "worker2/0", "worker3/0"]
    assert all(math.isfinite(event["ts"]) for event in events if event["ph"] != "M")


# ------------------------------------------------------------------------------------------- the edges


def test_a_job_for_other_machines_is_refused():
    machines, problem = Machines(workers=3), parse_problem("timing")
    world = world_from_mapping({"compute": "1ms", "network": "ideal"}, "a test")
    spec = problem.spec(5, Machines(workers=2))
    with pytest.raises(RequestError, match="The job is for 2 replicas, but 3 workers of 1 threads are 3"):
        Simulation(world, machines, spec, problem.task(5, machines))


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("quadratc:1", "Unknown problem 'quadratc'.*Did you mean 'quadratic'?"),
        ("quadratic", "Expected quadratic:CURVATURE"),
        ("quadratic:-1", "curvature above 0"),
        ("logistic:3", "takes no numbers"),
        ("timing:3", "'3' has no unit: give one of B, kB, MB, GB"),
        ("timing:0B", "Expected a size above 0"),
    ],
)
def test_a_problem_that_cannot_be_is_refused(text, sentence):
    with pytest.raises(RequestError, match=sentence):
        parse_problem(text)


@pytest.mark.parametrize("rule", RULES)
def test_logistic_regression_finds_its_truth(rule):
    problem = parse_problem("logistic")
    run = simulate("exponential:10ms", problem=problem, steps=500, consistency=rule, learning_rate=0.1)
    truth, found = problem.solution["w"], run.weights["w"]
    cosine = truth @ found / np.linalg.norm(truth) / np.linalg.norm(found)
    assert cosine > 0.98


# ---------------------------------------------------------------------------------------------- scale


@pytest.mark.parametrize("rule", ["sync", "async", "ssp:2"])
def test_a_thousand_workers_take_ten_steps_each(rule):
    run = simulate("exponential:10ms", workers=1000, steps=10, consistency=rule, keep_steps=False)
    assert run.reason == ""
    assert run.versions == ((10,) if rule == "sync" else (10_000,))
    total = Counter()
    for member in run.status.members:
        total.update(member.counters.gradients)
    assert total["applied"] == 10_000
