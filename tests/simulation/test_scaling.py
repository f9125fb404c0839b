"""What holds a job up, against cases whose answer is known on paper."""

import pytest

from paramserver.errors import JobError, RequestError
from paramserver.scaling import Exertion, barrier_ns, efficiency, measure, parse_counts, speed_up
from paramserver.scaling.page import as_mapping, charts, figure, page, share, table, turns
from paramserver.scaling.point import Point
from paramserver.sim import Machines, parse_problem, world_from_mapping
from paramserver.sim.cores import Cores
from paramserver.sim.heap import EventHeap
from paramserver.sim.links import Link

COSTS = {
    "latency": "0s",
    "bandwidth": "unlimited",
    "server": "unlimited",
    "rpc": "0s",
    "lock": "0s",
    "lock-per-byte": "0s",
}


def network(**costs):
    named = {name.replace("_", "-"): value for name, value in costs.items()}
    return " ".join(f"{name}={value}" for name, value in {**COSTS, **named}.items())


def point(
    workers, rule="async", compute="10ms", size="1MB", steps=40, shards=1, servers=1, threads=1, **costs
):
    machines = Machines(servers, shards, workers, threads)
    world = world_from_mapping({"compute": compute, "network": network(**costs)}, "a test")
    problem = parse_problem(f"timing:{size}", machines.shards_in_all)
    spec = problem.spec(steps, machines, consistency=rule)
    enough = steps * machines.replicas if rule != "sync" else 0
    long = problem.task(steps if rule == "sync" else 8 * steps + 50, machines)
    return measure(Exertion(world, machines, spec, long, enough))


@pytest.mark.parametrize("rule", ["sync", "async", "ssp:2"])
def test_where_only_gradients_take_time_computing_is_the_bottleneck_and_speed_up_is_ideal(rule):
    one, many = point(1, rule), point(20, rule)
    assert one.steps_per_second == pytest.approx(100, rel=0.03)
    assert efficiency(many, one) == pytest.approx(1, rel=0.03)
    assert many.bottleneck == "compute"
    assert many.shares["compute"] == pytest.approx(1, abs=0.03)


def test_a_saturated_link_carries_its_bandwidth_over_the_bytes_of_a_step():
    # 1 Gbit/s in each direction, 1,000,100 bytes of weights out and of gradients in: 125 steps/s, whatever
    # the number of workers. Below that, 4 workers of 10 ms and twice 8 ms would make 154 steps/s.
    for workers in (8, 40):
        found = point(workers, server="1Gbit/s")
        assert found.bottleneck == "server link"
        assert found.shares["server link"] == pytest.approx(1, abs=0.02)
        assert found.steps_per_second == pytest.approx(125, rel=0.03)


def test_a_synchronous_round_over_a_narrow_link_takes_all_pulls_and_all_pushes():
    # Pulls leave one after the other, 8 ms each, the first gradients come back meanwhile, in turn.
    found = point(40, "sync", server="1Gbit/s", steps=10)
    assert found.bottleneck == "server link"
    assert found.seconds / 10 == pytest.approx(40 * 0.008 + 0.010 + 0.008, rel=0.02)
    assert found.wait > 0.2, "most wait for the last, but it is the link that is slow"


def test_two_servers_carry_twice_as_much():
    found = point(40, server="1Gbit/s", servers=2, between_servers="0s")
    assert found.steps_per_second == pytest.approx(250, rel=0.03)
    assert found.bottleneck == "server link"


@pytest.mark.parametrize("shards", [1, 2])
def test_a_lock_lets_through_what_an_update_takes(shards):
    # 5 ns a byte: 5 ms for 1 MB under one lock, 2.5 ms under each of two. A pull waits behind the pushes
    # before it, so all 40 go in a convoy that computes for 10 ms while the lock is free.
    found = point(40, lock_per_byte="5ns", shards=shards)
    held = 40 * 0.005 / shards
    assert found.bottleneck == "lock"
    assert found.shares["lock"] == pytest.approx(held / (held + 0.010), abs=0.01)
    assert found.steps_per_second == pytest.approx(40 / (held + 0.010), rel=0.02)


def test_a_lock_that_applies_a_whole_round_is_no_barrier():
    # A round holds it for 40 x 5 ms while everyone waits.
    found = point(40, "sync", lock_per_byte="5ns", steps=10)
    assert found.bottleneck == "lock"
    assert found.shares["lock"] == pytest.approx(0.2 / 0.21, abs=0.01)
    assert "barrier" not in found.shares
    assert found.wait > 0.9


def test_handlers_serve_so_many_requests_a_second():
    # Two requests of 2 ms each step, 4 at a time: 1000 steps/s.
    found = point(100, rpc="2ms", handlers=4)
    assert found.bottleneck == "handlers"
    assert found.steps_per_second == pytest.approx(1000, rel=0.03)


@pytest.mark.parametrize("replicas", [8, 64])
def test_a_barrier_costs_all_but_one_in_the_harmonic_number(replicas):
    found = point(replicas, "sync", "exponential:10ms", steps=300)
    harmonic = sum(1 / k for k in range(1, replicas + 1))
    assert found.bottleneck == "barrier"
    assert found.shares["barrier"] == pytest.approx(1 - 1 / harmonic, abs=0.03)
    assert found.wait == pytest.approx(found.shares["barrier"], abs=0.02)


def test_a_bound_waits_less_than_a_barrier_and_async_not_at_all():
    waits = [
        point(16, rule, "exponential:10ms").shares.get("barrier", 0.0) for rule in ("sync", "ssp:2", "async")
    ]
    assert waits[0] > waits[1] > waits[2] == 0


def test_workers_links_latency_and_clients_have_shares_of_their_own():
    slow = point(2, bandwidth="100Mbit/s", compute="1ms")
    assert slow.bottleneck == "worker link"
    assert slow.shares["worker link"] == pytest.approx(0.160 / 0.161, abs=0.02)
    far = point(2, latency="50ms")
    assert far.bottleneck == "latency"
    assert far.shares["latency"] == pytest.approx(200 / 210, abs=0.02)
    busy = point(2, client="20ms")
    assert busy.bottleneck == "client"
    assert busy.shares["client"] == pytest.approx(40 / 50, abs=0.02)


def test_shared_cores_are_a_bottleneck_of_their_own():
    free = {"client": "0s", "client_per_request": "0s", "client_per_byte": "0s", "rpc_per_byte": "0s"}
    found = point(8, cores="2", **free)
    assert found.steps_per_second == pytest.approx(200, rel=0.03)
    assert found.shares["cores"] == pytest.approx(1, abs=0.02)
    assert point(1, cores="2", **free).shares["cores"] == pytest.approx(0.5, abs=0.02)


@pytest.mark.parametrize(
    ("costs", "cure"),
    [
        ({"server": "1Gbit/s", "lock_per_byte": "1ns", "rpc": "300us"}, {"server": "unlimited"}),
        ({"server": "10Gbit/s", "lock_per_byte": "5ns", "rpc": "300us"}, {"lock_per_byte": "0s"}),
        ({"server": "10Gbit/s", "lock_per_byte": "1ns", "rpc": "3ms"}, {"rpc": "0s"}),
    ],
)
@pytest.mark.parametrize("rule", ["sync", "async"])
def test_taking_the_named_bottleneck_away_helps_most(rule, costs, cure):
    names = {"server": "server link", "lock_per_byte": "lock", "rpc": "handlers"}
    free = {"server": "unlimited", "lock_per_byte": "0s", "rpc": "0s"}
    found = point(20, rule, **costs, steps=10)
    assert found.bottleneck == names[next(iter(cure))]
    without = {
        names[name]: point(20, rule, **{**costs, name: free[name]}, steps=10).steps_per_second
        for name in free
    }
    assert max(without, key=without.get) == found.bottleneck
    assert without[found.bottleneck] > 1.3 * found.steps_per_second


def test_compute_times_alone_say_what_a_barrier_costs():
    world = world_from_mapping({"compute": "10ms w0=x3", "network": "ideal"}, "a test")
    machines = Machines(workers=3)
    assert barrier_ns(world, machines, 0, 10) == (300_000_000, pytest.approx(500_000_000 / 3))
    assert barrier_ns(world, machines, 4, 10)[0] == 300_000_000
    assert barrier_ns(world, machines, None, 10)[0] == pytest.approx(500_000_000 / 3, abs=1)


def test_either_direction_of_a_link_is_busy_for_the_union_of_both():
    into = Link(8e9)  # a byte takes a nanosecond
    out = Link(8e9, into)
    into.carry(0, 10)  # 0 to 10
    out.carry(5, 10)  # 5 to 15
    out.carry(5, 10)  # 15 to 25
    into.carry(20, 10)  # 20 to 30
    assert [into.either_busy_ns(now) for now in (30, 40)] == [30, 30]
    assert out.either_busy_ns(40) == 30
    into.carry(50, 100)  # 50 to 150
    out.carry(60, 20)  # 60 to 80
    assert out.either_busy_ns(60) == 40
    assert out.either_busy_ns(70) == 50
    assert out.either_busy_ns(150) == 130
    assert (into.busy_ns(60), into.busy_ns(150)) == (30, 120)


def test_shared_cores_count_what_they_compute():
    heap = EventHeap()
    cores = Cores(heap, 1.5)
    cores.begin(30, lambda _: None)
    cores.begin(30, lambda _: None)
    heap.at(20, lambda _: seen.append(cores.busy_ns))
    seen = []
    while heap.run(10):
        pass
    assert seen == [30]
    assert cores.busy_ns == pytest.approx(60, abs=1)
    assert Cores(heap, None).busy_ns == 0


def test_a_replica_that_is_believed_dead_spoils_the_figures():
    machines = Machines(workers=40)
    world = world_from_mapping({"compute": "10ms", "network": network(server="1Mbit/s")}, "a test")
    problem = parse_problem("timing:1MB")
    spec = problem.spec(5, machines, consistency="async", step_timeout_seconds=100.0)
    with pytest.raises(JobError, match=r"believed dead.*--step-timeout"):
        measure(Exertion(world, machines, spec, problem.task(5, machines)))


# ------------------------------------------------------------------------------------------------ texts


@pytest.mark.parametrize(
    ("text", "counts"),
    [
        ("1..10000", (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10000)),
        ("3..70", (3, 5, 10, 20, 50, 70)),
        ("7..7", (7,)),
        ("8,2,4,2", (2, 4, 8)),
        ("16", (16,)),
    ],
)
def test_numbers_of_workers(text, counts):
    assert parse_counts(text) == counts


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("10..1", "ends before it begins. Write 1..10"),
        ("0..5", "go from 1 to 100,000"),
        ("1..1000000", "go from 1 to 100,000"),
        ("many", "such as 1..10000 or 1,2,4,8, but found 'many'"),
        ("1..", "such as"),
        ("-3", "such as"),
        ("", "such as"),
    ],
)
def test_numbers_of_workers_that_cannot_be(text, sentence):
    with pytest.raises(RequestError, match=sentence):
        parse_counts(text)


def made(workers, rate, shares, target=None):
    return Point(workers, workers, rate * 10, 10.0, shares, 0.25, 1.5, target, 99)


POINTS = [
    made(1, 10, {"compute": 1.0}, 8.0),
    made(2, 18, {"compute": 0.9, "lock": 0.2}, 4.5),
    made(10, 30, {"compute": 0.3, "lock": 0.996}),
]


def test_a_table_has_a_row_for_each_number_of_workers():
    heads, rows = table(POINTS, POINTS[0])
    assert heads == [
        "workers",
        "steps/s",
        "speed-up",
        "efficiency",
        "wait",
        "to target",
        "lock",
        "link",
        "bottleneck",
    ]
    assert rows[1] == ["2", "18.0", "1.80", "90%", "25%", "4.50 s", "20%", "0%", "compute 90%"]
    assert rows[2][2:4] + rows[2][5:] == ["3.00", "30%", "never", "100%", "0%", "lock 100%"]


def test_it_is_said_from_where_on_something_else_is_the_bottleneck():
    first, second = turns(POINTS)
    assert first.startswith("With 1 worker the bottleneck is compute: ")
    assert (
        second
        == "From 10 workers on the bottleneck is lock: a shard's lock is held, the busiest shard, 100% of "
        "the time."
    )


def test_data_and_pictures_say_the_same():
    said = as_mapping(POINTS, POINTS[0])["points"][2]
    assert (said["speed_up"], said["bottleneck"], said["target_seconds"]) == (3.0, "lock", None)
    assert speed_up(POINTS[2], POINTS[0]) == 3.0
    drawn = charts(POINTS, POINTS[0], "a job")
    assert set(drawn) == {"speed-up", "shares", "target"}
    assert "ideal" in drawn["speed-up"]
    assert "lock" in drawn["shares"]
    html = page(POINTS, POINTS[0], "a <job>", {"job.toml": "x = 1"}, "paramserver scale")
    assert html.count("<svg xmlns") == 3
    assert "a &lt;job&gt;" in html
    assert "http" not in html.replace("http://www.w3.org/2000/svg", "")


def test_numbers_are_short():
    assert [figure(x) for x in (0.1234, 1.234, 12.34, 123.4, 12345.6)] == [
        "0.123",
        "1.23",
        "12.3",
        "123",
        "12,346",
    ]
    assert [share(x) for x in (0, 0.004, 0.0999, 0.996)] == ["0%", "0.4%", "10%", "100%"]
