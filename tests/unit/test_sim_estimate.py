"""From measured times back to the world that they were measured in."""

import math
from dataclasses import replace

import numpy as np
import pytest

from paramserver.events import JobSpec, TensorSpec
from paramserver.sim import Machines, Simulation, Task, parse_compute, parse_network, world_from_mapping
from paramserver.sim.estimate import Measured, Steps, estimate, quantiles
from paramserver.training import Step

COUNT = 200
BYTES = 800_000
NETWORK = (
    "latency=60us bandwidth=2Gbit/s server=unlimited rpc=500us lock=40us lock-per-byte=0.4ns "
    "client=300us client-per-request=150us client-per-byte=0.8ns rpc-per-byte=1.1ns between-servers=310us"
)


def steps_in(world, shards, size):
    """Do in virtual time what a calibration does for real, and return what a step takes."""
    spec = JobSpec(tensors=(TensorSpec("w", (shards,)),), consistency="async", versions_total=COUNT)
    zeros = {"w": np.zeros(shards, np.float32)}
    step = Step(lambda clock: clock, lambda values, clock: (0.0, zeros, 1))
    task = Task((COUNT,), lambda rank: step, lambda: zeros, size)
    run = Simulation(world, Machines(1, shards, 1, 1), spec, task).run()
    seconds = run.status.members[0].counters.seconds
    network = world.network
    client = 2 * (network.client_ns + network.client_per_request_ns * shards) + (
        2 * network.client_per_byte_ns * size
    )
    held = 2 * shards * network.lock_ns + network.lock_per_byte_ns * size
    server = 2 * (shards * network.rpc_ns + network.rpc_per_byte_ns * size) + held
    # The last pull has no push, so it is a step and a half that the shares are of.
    wall = 1e9 * (seconds["push"] / COUNT + seconds["pull"] / (COUNT + 1))
    return Steps(shards, size, wall, client, server, held)


def measured_in(world, **changes):
    found = Measured(
        single=steps_in(world, 1, 4),
        several=steps_in(world, 4, 16),
        whole=steps_in(world, 1, BYTES),
        gradients_ns=[4e6, 5e6, 6e6],
        cpu=0.9,
        cores=2.0,
    )
    return replace(found, **changes)


def world_of(network):
    return world_from_mapping({"compute": "5ms", "network": network}, "a test")


def near(value, share=0.03):
    return pytest.approx(value, rel=share)


def test_a_world_that_is_measured_in_virtual_time_comes_back():
    true = parse_network(NETWORK)
    world = estimate(measured_in(world_of(NETWORK)), seed=7)
    found = world.network
    assert found.client_ns == near(true.client_ns)
    assert found.client_per_request_ns == near(true.client_per_request_ns)
    assert found.client_per_byte_ns == near(true.client_per_byte_ns)
    assert found.rpc_ns == near(true.rpc_ns)
    assert found.rpc_per_byte_ns == near(true.rpc_per_byte_ns)
    assert found.lock_ns == near(true.lock_ns)
    assert found.lock_per_byte_ns == near(true.lock_per_byte_ns)
    assert found.latency.mean == near(60_000)
    assert found.bandwidth == near(2e9)
    assert found.between_servers_ns == near(310_000)
    assert (found.cores, world.seed) == (2.0, 7)
    assert str(world.compute) == "empirical:4ms,5ms,6ms cpu=0.9"


def test_what_takes_no_time_on_the_way_is_an_unlimited_link():
    world = estimate(measured_in(world_of(NETWORK.replace("2Gbit/s", "unlimited"))))
    assert math.isinf(world.network.bandwidth)


def test_a_far_server_adds_its_way_to_that_within_the_machine():
    found = measured_in(
        world_of(NETWORK.replace("2Gbit/s", "unlimited")), cores=None, trip_ns=1e6, byte_ns=100.0
    )
    network = estimate(found).network
    assert network.latency.mean == near(1_060_000)
    assert network.bandwidth == near(80e6)
    assert network.cores is None


def test_noise_makes_no_cost_negative():
    nothing = Steps(1, 4, 1e6, 5e5, 4e5, 1e4)
    less = Steps(4, 16, 9e5, 4e5, 3e5, 9e3)
    whole = Steps(1, BYTES, 8e5, 4e5, 3e5, 9e3)
    network = estimate(Measured(nothing, less, whole, [1e6], 1.5, 1.0)).network
    costs = (network.client_per_request_ns, network.client_per_byte_ns, network.rpc_per_byte_ns)
    assert costs == (0, 0, 0)
    assert network.lock_per_byte_ns == 0
    assert parse_network(str(network)) == network


def test_the_file_of_an_estimated_world_is_read_back_as_the_same_world():
    world = estimate(measured_in(world_of(NETWORK)))
    assert parse_network(str(world.network)) == world.network
    assert parse_compute(str(world.compute)) == world.compute


def test_quantiles_keep_the_mean_and_the_order():
    rng = np.random.default_rng(0)
    times = rng.lognormal(15, 0.5, 3200)
    few = quantiles(times)
    assert len(few) == 32
    assert list(few) == sorted(few)
    assert np.mean(few) == near(np.mean(times), 1e-3)
    assert np.std(few) == near(np.std(times), 0.15)


def test_without_a_gradient_there_is_no_world():
    with pytest.raises(ValueError, match=r"No gradient was measured\. Give it more seconds\."):
        estimate(measured_in(world_of(NETWORK), gradients_ns=[]))
