"""Every state that a small cluster can reach, in every rule, and with one fault.

Two replicas with two steps each on two shards reach, from the first reads on and with answers that are there
at once, so many states: sync 54,353, ssp:0 144,549, ssp:1 1,757,038, async 1,875,060. With a fault they are
more than 2,500,000 in sync, so faults are explored on one shard, or with fewer steps.
"""

import pytest
from exploring import explore
from scenario import Scenario
from universe import Universe

SYNC_END = 1
"""How many different final weights synchronous training may have."""

CRASH = (("crash", 1), ("time", 1))


def check(scenario, *, from_start=False, ends_like=("",)):
    universe = Universe(scenario, answers_travel=False)
    explored = explore(universe, universe.start() if from_start else universe.settled())
    said = "\n".join([*explored.schedule, *map(str, explored.found)])
    assert not explored.found, said
    assert not explored.circular, "a schedule goes on for ever"
    assert set(explored.reasons) <= set(ends_like)
    return explored


def test_all_states_of_synchronous_training_end_with_the_same_bytes():
    explored = check(Scenario("sync"))
    assert explored.states > 10_000
    assert len(explored.weights) == SYNC_END


@pytest.mark.parametrize("rule", ["async", "ssp:0", "ssp:1"])
def test_all_states_on_one_shard(rule):
    explored = check(Scenario(rule, shards=1))
    assert explored.states > 500
    assert len(explored.weights) == 1, "marks do not depend on the order in which they were made"


@pytest.mark.parametrize("rule", ["async", "ssp:0", "ssp:1"])
def test_all_states_of_one_step_on_two_shards(rule):
    assert check(Scenario(rule, steps=(1, 1))).states > 10_000


def test_all_ways_to_begin():
    assert check(Scenario("sync", steps=(0, 0)), from_start=True).states > 10_000


@pytest.mark.parametrize("fault", ["lose", "repeat"])
@pytest.mark.parametrize("rule", ["sync", "ssp:0"])
def test_all_states_with_a_lost_answer_or_a_repeated_request(rule, fault):
    explored = check(Scenario(rule, steps=(2, 1), shards=1, faults=((fault, 1),)))
    assert len(explored.weights) == 1, "a retry changes nothing"


@pytest.mark.parametrize("rule", ["sync", "async", "ssp:0"])
def test_all_states_with_a_death(rule):
    scenario = Scenario(rule, steps=(2, 1), shards=1, faults=CRASH, on_death="drop")
    assert len(check(scenario).weights) > 1, "some of the dead had pushed, some had not"


@pytest.mark.parametrize("rule", ["sync", "async"])
def test_all_states_with_a_death_and_a_restart(rule):
    faults = (("crash", 1),)  # its lease runs out only where all else has happened
    scenario = Scenario(rule, steps=(1, 1), shards=1, faults=faults, on_death="restart", returns=True)
    assert len(check(scenario).weights) == SYNC_END


def test_answers_that_travel_lead_to_the_same_ends():
    # A test of the test: leaving out the states in which an answer travels leaves out no end.
    scenario = Scenario("async", steps=(1, 1), shards=1)
    fast, slow = (Universe(scenario, travel) for travel in (False, True))
    without, whole = explore(fast, fast.settled()), explore(slow, slow.settled())
    assert not whole.found
    assert without.states < whole.states
    assert without.weights == whole.weights
    assert without.ends == whole.ends


# --------------------------------------------------------------------------------------------------- long


@pytest.mark.long
@pytest.mark.timeout(900)
@pytest.mark.parametrize("rule", ["async", "ssp:0", "ssp:1"])
def test_all_states_of_two_steps_on_two_shards(rule):
    assert len(check(Scenario(rule)).weights) == 1


@pytest.mark.long
@pytest.mark.timeout(900)
@pytest.mark.parametrize("fault", ["lose", "repeat"])
@pytest.mark.parametrize("rule", ["async", "ssp:1"])
def test_all_states_of_two_steps_with_a_lost_answer_or_a_repeated_request(rule, fault):
    assert len(check(Scenario(rule, shards=1, faults=((fault, 1),))).weights) == 1


@pytest.mark.long
@pytest.mark.timeout(900)
def test_all_states_of_a_round_on_two_shards_with_a_death():
    check(Scenario("sync", steps=(1, 1), faults=CRASH, on_death="drop"))


@pytest.mark.long
@pytest.mark.timeout(900)
@pytest.mark.parametrize("rule", ["sync", "async"])
def test_all_states_with_a_death_at_any_time_and_a_restart(rule):
    scenario = Scenario(rule, steps=(1, 1), shards=1, faults=CRASH, on_death="restart", returns=True)
    assert len(check(scenario).weights) == SYNC_END


@pytest.mark.long
@pytest.mark.timeout(900)
@pytest.mark.parametrize("rule", ["async", "ssp:1"])
def test_all_states_of_two_steps_with_a_death(rule):
    check(Scenario(rule, shards=1, faults=CRASH, on_death="drop"))
