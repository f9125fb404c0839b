"""Clusters that hypothesis drives: it delivers, loses, repeats, kills, brings back, and lets time pass."""

import pytest
from ending import judge_end
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule
from scenario import Scenario
from schedules import MOVES_MAX, RULES
from universe import Universe

pytestmark = pytest.mark.slow

FAULTS = {"lose": 3, "repeat": 2, "crash": 2, "mute": 1, "stop": 1, "time": 3}
UNIVERSES: dict[Scenario, Universe] = {}
"""What is known of each scenario, kept from one example to the next."""

PICK = st.integers(0, 2**16)


class Cluster(RuleBasedStateMachine):
    """A cluster in any rule; whatever hypothesis does to it, it ends well."""

    @initialize(
        rule=st.sampled_from(RULES),
        steps=st.lists(st.integers(0, 2), min_size=2, max_size=3),
        late=st.booleans(),
        shards=st.integers(1, 2),
        on_death=st.sampled_from(["drop", "restart"]),
        refused=st.frozensets(st.tuples(st.integers(0, 1), st.integers(0, 1)), max_size=2),
    )
    def begin(self, rule, steps, late, shards, on_death, refused):
        scenario = Scenario(
            rule,
            tuple(steps),
            shards,
            expected=len(steps) - late,
            on_death=on_death,
            refused=refused,
            faults=tuple(FAULTS.items()),
            returns=True,
        )
        self.universe = UNIVERSES.setdefault(scenario, Universe(scenario))
        self.state = self.universe.start()
        self.done = []

    def _do(self, moves, pick):
        """Make one of these moves, if there is any; they are in an order of their own, so a find repeats."""
        if not moves:
            return
        move = sorted(moves, key=self.universe.name)[pick % len(moves)]
        self.done.append(move)
        self.state, found = self.universe.apply(self.state, move)
        assert not found, self._tell(found)

    def _tell(self, found):
        return "\n".join([*map(self.universe.describe, self.done), *map(str, found)])

    def _faults(self, kind):
        return [move for move in self.universe.faults(self.state) if move[0] == kind]

    @rule(picks=st.lists(PICK, min_size=1, max_size=12))
    def something_arrives(self, picks):
        for pick in picks:
            self._do(self.universe.moves(self.state), pick)

    @rule(pick=PICK)
    def an_answer_or_a_request_is_lost(self, pick):
        self._do(self._faults("lose"), pick)

    @rule(pick=PICK)
    def a_request_is_sent_twice(self, pick):
        self._do(self._faults("repeat"), pick)

    @precondition(lambda self: self._faults("crash"))
    @rule(pick=PICK)
    def a_replica_dies(self, pick):
        self._do(self._faults("crash"), pick)

    @precondition(lambda self: self._faults("mute"))
    @rule(pick=PICK)
    def heartbeats_are_lost(self, pick):
        self._do(self._faults("mute"), pick)

    @precondition(lambda self: self._faults("stop"))
    @rule(pick=PICK)
    def a_replica_leaves_early(self, pick):
        self._do(self._faults("stop"), pick)

    @rule(pick=PICK)
    def leases_run_out(self, pick):
        self._do(self._faults("time"), pick)

    @rule(pick=PICK)
    def one_comes_late_or_again(self, pick):
        self._do([move for move in self.universe.moves(self.state) if move[0] == "join"], pick)

    def teardown(self):
        if not hasattr(self, "state"):
            return
        for _ in range(MOVES_MAX):
            if not self.universe.moves(self.state):
                break
            self._do(self.universe.moves(self.state), 0)
        found = judge_end(self.universe, self.state)
        assert not found, self._tell(found)


QUICK = settings(
    max_examples=200,
    stateful_step_count=25,
    deadline=None,
    derandomize=True,
    suppress_health_check=list(HealthCheck),
)

TestCluster = Cluster.TestCase
TestCluster.settings = QUICK


@pytest.mark.long
@pytest.mark.timeout(1800)
class TestManyClusters(Cluster.TestCase):
    settings = settings(QUICK, max_examples=3000, stateful_step_count=50)
