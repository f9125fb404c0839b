"""A world as data: laws of chance, costs, faults, and the sentences that refuse what cannot be."""

import math

import numpy as np
import pytest

from paramserver.data import generator
from paramserver.errors import RequestError
from paramserver.faults import Fates, decide, parse_faults
from paramserver.quantities import (
    format_duration,
    format_rate,
    parse_duration,
    parse_nanoseconds,
    parse_rate,
    parse_share,
)
from paramserver.sim.compute import StepTimes, parse_compute
from paramserver.sim.laws import LAWS, parse_law
from paramserver.sim.network import IDEAL, parse_network
from paramserver.sim.world import Machines, World, check_world, world_from_mapping, world_from_toml

MS = 1_000_000
EXAMPLES = [
    "constant:10ms",
    "normal:10ms,2ms",
    "lognormal:10ms,0.5",
    "exponential:10ms",
    "shifted-exponential:6ms,4ms",
    "pareto:6ms,3",
    "empirical:6ms,10ms,14ms,7500us",
]
LAN = "latency=100us bandwidth=1Gbit/s server=10Gbit/s rpc=80us lock=5us lock-per-byte=0.3ns"


@pytest.mark.parametrize("text", EXAMPLES)
def test_each_law_draws_whole_nanoseconds_around_its_mean(text):
    law = parse_law(text, "a test")
    drawn = law.draw(generator(1, "test"), 20_000)
    assert (drawn.dtype, drawn.min() >= 0) == (np.int64, True)
    # 0.05 is five standard errors of the widest of these laws: exponential, 1 / sqrt(20,000) = 0.007.
    assert drawn.mean() == pytest.approx(law.mean, rel=0.05)
    assert law.draw(generator(1, "test"), 20_000).tobytes() == drawn.tobytes()
    assert parse_law(str(law), "a test") == law


def test_there_is_an_example_of_every_law():
    assert {text.partition(":")[0] for text in EXAMPLES} == set(LAWS)


def test_laws_have_their_spread():
    def spread(text):
        return parse_law(text, "a test").draw(generator(2, "test"), 50_000).std() / MS

    assert spread("constant:10ms") == 0
    assert spread("normal:10ms,2ms") == pytest.approx(2, rel=0.03)
    assert spread("exponential:10ms") == pytest.approx(10, rel=0.03)
    assert spread("shifted-exponential:6ms,4ms") == pytest.approx(4, rel=0.03)
    logs = np.log(parse_law("lognormal:10ms,0.5", "a test").draw(generator(2, "test"), 50_000))
    assert logs.std() == pytest.approx(0.5, rel=0.03)
    tail = parse_law("pareto:1ms,2", "a test").draw(generator(2, "test"), 50_000) > 10 * MS
    assert tail.mean() == pytest.approx(0.01, rel=0.15)  # (1/10) ** 2


@pytest.mark.parametrize("nanoseconds", [0, 1, 999, 1500, 20 * MS, 1_500_000_000, 7 * 10**9, 0.3, 1 / 3])
def test_durations_are_read_as_they_were_written(nanoseconds):
    assert parse_duration(format_duration(nanoseconds), "it") == nanoseconds


@pytest.mark.parametrize("rate", [1, 8e3, 80e6, 2.5e9, 1e9, 1 / 3, math.inf])
def test_rates_are_read_as_they_were_written(rate):
    assert parse_rate(format_rate(rate), "it") == rate


@pytest.mark.parametrize(
    ("parse", "text", "sentence"),
    [
        (parse_nanoseconds, "20", "'20' has no unit"),
        (parse_nanoseconds, "20 parsec", "unknown unit 'parsec'"),
        (parse_nanoseconds, "-1ms", "must be 0 or more"),
        (parse_nanoseconds, "soon", "such as 20ms as it, but found 'soon'"),
        (parse_nanoseconds, "1e300h", "finite"),
        (parse_rate, "0Mbit/s", "nothing would ever arrive"),
        (parse_rate, "80Mbps", "unknown unit 'Mbps'"),
        (parse_share, "101%", "from 0% to 100%"),
        (parse_law, "expontial:1ms", "Unknown law 'expontial'.*Did you mean 'exponential'?"),
        (parse_law, "exponential", "Expected exponential:MEAN as it"),
        (parse_law, "exponential:", "Expected exponential:MEAN as it"),
        (parse_law, "normal:10ms", "Expected normal:MEAN,DEVIATION .* Every number must be given"),
        (parse_law, "normal:10ms,4ms", "at most a third of the mean"),
        (parse_law, "pareto:1ms,1", "there is no mean"),
        (parse_law, "lognormal:1ms,-1", "sigma must be 0 or more"),
        (parse_law, "empirical:", "Expected empirical:TIME,..."),
    ],
)
def test_a_quantity_or_law_that_cannot_be_is_refused(parse, text, sentence):
    with pytest.raises(RequestError, match=sentence):
        parse(text, "it")


# --------------------------------------------------------------------------------------- compute times


def test_a_step_time_depends_on_seed_replica_and_clock_alone():
    compute = parse_compute("exponential:10ms")
    times = StepTimes(compute, 3, replica=1, worker=1)
    forward = [times.nanoseconds(clock, now=0) for clock in range(100)]
    backward = [times.nanoseconds(clock, now=5) for clock in reversed(range(100))]
    assert forward == backward[::-1]
    assert len(set(forward)) == 100
    for other in (StepTimes(compute, 4, 1, 1), StepTimes(compute, 3, 2, 1)):
        assert other.nanoseconds(0, 0) != forward[0]


def test_who_is_slow_and_when():
    compute = parse_compute("10ms w1=x4 w1=x2@1s+1s stagger=3ms")
    one = StepTimes(compute, 0, replica=2, worker=1)
    assert one.nanoseconds(0, 0) == 46 * MS
    assert one.nanoseconds(1, 999 * MS) == 40 * MS
    assert one.nanoseconds(2, 1000 * MS) == 80 * MS
    assert one.nanoseconds(3, 2000 * MS) == 40 * MS
    assert StepTimes(compute, 0, replica=0, worker=0).nanoseconds(0, 1500 * MS) == 10 * MS


def test_a_share_of_steps_is_slow_by_chance():
    times = StepTimes(parse_compute("10ms all/10%=x2"), 0, 0, 0)
    slow = sum(times.nanoseconds(clock, 0) == 20 * MS for clock in range(5000))
    assert slow == pytest.approx(500, abs=100)  # 4.7 standard deviations of 21


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "compute time is missing"),
        ("10ms w1=4", "a factor above 0, such as x4"),
        ("10ms w1=x0", "a factor above 0"),
        ("10ms 1=x4", "Expected a worker such as w0"),
        ("10ms w1=x4@10s", r"@10s\+5s"),
        ("10ms w1", "Expected name=value in the compute time, but found 'w1'"),
    ],
)
def test_a_compute_time_that_cannot_be_is_refused(text, sentence):
    with pytest.raises(RequestError, match=sentence):
        parse_compute(text)


# ------------------------------------------------------------------------------------- network, faults


def test_a_network_says_what_everything_costs():
    network = parse_network(f"{LAN} w1.bandwidth=80Mbit/s between-servers=50us handlers=4")
    assert (network.rpc_ns, network.lock_per_byte_ns, network.slow_links) == (80_000, 0.3, ((1, 80e6),))
    assert parse_network(str(network)) == network
    assert parse_network("ideal") == parse_network(IDEAL)


@pytest.mark.parametrize("missing", ["latency", "bandwidth", "server", "rpc", "lock", "lock-per-byte"])
def test_a_missing_cost_is_an_error(missing):
    text = " ".join(pair for pair in LAN.split() if not pair.startswith(f"{missing}="))
    with pytest.raises(RequestError, match=f"does not say what {missing} costs. A missing cost is not taken"):
        parse_network(text)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (LAN.replace("latency=100us", "latency=-1us"), "must be 0 or more"),
        (LAN.replace("1Gbit/s", "0Gbit/s"), "nothing would ever arrive"),
        (f"{LAN} latecy=1us", "Unknown cost of the network 'latecy'.*Did you mean 'latency'?"),
        (f"{LAN} handlers=0", "at least 1 handler"),
    ],
)
def test_a_network_that_cannot_be_is_refused(text, sentence):
    with pytest.raises(RequestError, match=sentence):
        parse_network(text)


def test_faults_are_read_as_they_were_written():
    text = (
        "lose=0.01 delay=0.02+1ms..5ms crash=any@0s..60s+2s crash=w1@3s pause=w0@1s+1s join=w2@5s leave=w1@4s"
    )
    assert str(parse_faults(text)) == text


def test_what_faults_leave_open_is_drawn_from_the_seed():
    faults = parse_faults("crash=any@0s..60s+1s..5s pause=w1@3s+1s")
    happenings = decide(faults, seed=5, workers=4)
    assert happenings == decide(faults, seed=5, workers=4)
    assert happenings != decide(faults, seed=6, workers=4)
    [crash] = [happening for happening in happenings if happening.kind == "crash"]
    assert 0 <= crash.at <= 60 * 10**9
    assert 10**9 <= crash.until - crash.at <= 5 * 10**9
    assert sorted(happenings, key=lambda happening: happening.at) == happenings


def test_the_fates_of_messages_have_their_shares():
    fates = Fates(parse_faults("lose=10% delay=20%+1ms..2ms").chances, 0)
    drawn = [fates.next() for _ in range(20_000)]
    kinds = [kind for kind, _ in drawn]
    assert kinds.count("lose") == pytest.approx(2000, rel=0.1)
    assert kinds.count("delay") == pytest.approx(4000, rel=0.1)
    assert all(1 * MS <= late <= 2 * MS for kind, late in drawn if kind == "delay")
    assert all(late == 0 for kind, late in drawn if kind != "delay")


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("crsh=w1@3s", "Unknown fault 'crsh'.*Did you mean 'crash'?"),
        ("crash=w1", "Expected crash=w1@3s"),
        ("pause=w1@3s", r"Expected pause=w1@3s\+2s"),
        ("leave=w1@3s+2s", "Expected leave=w1@3s as"),
        ("join=any@3s", "A newcomer needs a name"),
        ("lose=1%+2ms", "Expected lose=1% as"),
        ("delay=1%", r"Expected delay=1%\+5ms as"),
        ("lose=60% duplicate=50%", "More than 100%"),
        ("lose=100%", "nothing can ever happen"),
        ("crash=w1@5s..3s", "The later time comes first"),
        ("leave=s0@5s", "Expected a worker such as w0"),
    ],
)
def test_faults_that_cannot_be_are_refused(text, sentence):
    with pytest.raises(RequestError, match=sentence):
        parse_faults(text)


# ---------------------------------------------------------------------------------------------- worlds


def test_a_world_file_is_read_as_it_was_written():
    world = World(parse_compute("10ms w1=x4"), parse_network(LAN), parse_faults("lose=1%"), seed=7)
    assert world_from_toml(world.to_toml(), "world.toml") == world


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"compute": None}, "What compute costs is missing in a test"),
        ({"network": None}, "What network costs is missing in a test"),
        ({"netwrok": "ideal"}, "Unknown key of a test 'netwrok'.*Did you mean 'network'?"),
        ({"seed": "7"}, "'seed' in a test must be int"),
        ({"seed": -1}, "must be 0 or more"),
        ({"faults": 3}, "'faults' in a test must be str"),
    ],
)
def test_a_world_file_that_cannot_be_is_refused(changes, sentence):
    values = {"compute": "10ms", "network": "ideal"} | changes
    with pytest.raises(RequestError, match=sentence):
        world_from_mapping({k: v for k, v in values.items() if v is not None}, "a test")


def test_a_world_file_must_be_toml():
    with pytest.raises(RequestError, match=r"The world file w.toml is not valid TOML"):
        world_from_toml("compute = ", "w.toml")


@pytest.mark.parametrize(
    ("compute", "network", "faults", "machines", "sentence"),
    [
        (
            "10ms",
            LAN,
            "crash=w2@3s",
            Machines(workers=2),
            "There is no worker w2, but 'crash=w2@3s' of the faults",
        ),
        ("10ms w5=x2", LAN, "", Machines(workers=2), "There is no worker w5"),
        ("10ms", f"{LAN} w9.bandwidth=1bit/s", "", Machines(workers=2), "There is no worker w9"),
        ("10ms", LAN, "", Machines(servers=2), "Between several servers"),
        ("10ms", LAN, "", Machines(workers=0), "'workers' must be 1 or more"),
        ("10ms", LAN, "join=w4@1s", Machines(workers=2), "expected w2, but found w4"),
        ("10ms", LAN, "join=w2@1s join=w2@2s", Machines(workers=2), "expected w2, w3, but found w2, w2"),
    ],
)
def test_a_world_that_cannot_be_is_refused(compute, network, faults, machines, sentence):
    world = World(parse_compute(compute), parse_network(network), parse_faults(faults))
    with pytest.raises(RequestError, match=sentence):
        check_world(world, machines)


def test_a_crash_of_a_late_worker_is_possible():
    world = World(parse_compute("10ms"), parse_network(LAN), parse_faults("join=w2@1s crash=w2@3s"))
    check_world(world, Machines(workers=2))
