"""The summary accounts for every gradient, sample and second."""

import json
import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paramserver.accounting import (
    SAMPLE_NAMES,
    account,
    merge_counters,
    shares,
    staleness_bound,
)
from paramserver.events import (
    PHASES,
    Counters,
    JobSpec,
    JobStatus,
    MemberStatus,
    Phase,
    Replica,
    Score,
    Standing,
    TensorSpec,
)
from paramserver.storage import json_text
from paramserver.summary import learning_rate_rule, summarise


def member(rank, name, counters):
    return MemberStatus(Replica(rank, 1), name, Standing.LEFT, 5, 5, Phase.IDLE, 0.1, counters)


def status(members=(), scores=(), consistency="ssp:3", reason=""):
    job = JobSpec(
        (TensorSpec("w", (4, 2)),), "softmax", consistency, "sgd", 0.1, versions_total=10, replicas=4
    )
    return JobStatus(job, 0, (), 1, True, True, True, reason, 0, tuple(members), tuple(scores))


def summary_of(*args, versions=(7, 8), wall_seconds=2.0, **kwargs):
    return summarise(status(*args, **kwargs), versions, weights_sha256="ab", wall_seconds=wall_seconds)


def test_counts_of_all_replicas_are_summed():
    one = Counters(
        {"computed": 3, "applied": 3, "duplicate": 1}, {"computed": 30, "applied": 30}, {0: 2, 4: 1}
    )
    two = Counters(
        {"computed": 2, "applied": 1, "dropped": 1}, {"computed": 20, "applied": 10, "dropped": 10}, {4: 1}
    )
    summary = summary_of([member(0, "worker0/0", one), member(1, "worker0/1", two)])
    assert summary["gradients"] == {
        "computed": 5, "applied": 4, "dropped": 1, "duplicate": 1, "fenced": 0, "partial": 0, "lost": 0,
        "rolled_back": 0,
    }  # fmt: skip
    assert summary["samples"]["applied"] == 40
    assert summary["samples_per_second"] == 20.0
    assert summary["staleness"] == {"mean": 2.0, "max": 4, "histogram": {"0": 2, "4": 2}, "bound": 21}
    assert summary["versions"] == [7, 8]


@given(
    st.integers(0, 50),
    st.dictionaries(st.sampled_from(["applied", "dropped", "fenced", "partial"]), st.integers(0, 12)),
)
def test_what_has_no_verdict_is_lost(missing, decided):
    computed = sum(decided.values()) + missing
    counts = account({"computed": computed, **decided}, SAMPLE_NAMES)
    assert counts["lost"] == missing
    assert counts["computed"] == sum(counts[name] for name in SAMPLE_NAMES if name != "computed")


def test_a_replica_that_accounts_for_more_than_it_computed_is_named():
    summary = summary_of([member(2, "worker1/0", Counters({"computed": 1, "applied": 2}))])
    assert summary["notes"] == ["Replica 2 (worker1/0) accounts for more gradients than it computed."]


@given(st.dictionaries(st.sampled_from(PHASES), st.floats(0, 1e9)))
def test_shares_always_sum_to_the_whole(seconds):
    for parts in (100, 800, 1000):
        units = shares(seconds, parts)
        assert sum(units.values()) == parts
        assert list(units) == list(PHASES)


@given(st.lists(st.dictionaries(st.sampled_from(PHASES), st.floats(0, 1e6)), min_size=1, max_size=5))
def test_time_budgets_sum_to_exactly_100_percent(seconds):
    members = [
        member(rank, f"worker{rank // 2}/{rank % 2}", Counters(seconds=one))
        for rank, one in enumerate(seconds)
    ]
    budget = summary_of(members)["time_budget"]
    assert list(budget["workers"]) == [f"worker{index}" for index in range((len(seconds) + 1) // 2)]
    for percent in [budget["total"], *budget["workers"].values()]:
        assert sum(percent.values()) == 100.0
        assert sum(reversed(percent.values())) == 100.0


def test_the_newest_test_score_is_the_result():
    scores = [
        Score("validation", 3, -1, 0.9, 0.7, 10),
        Score("test", 9, -1, 0.5, 0.8, 20),
        Score("test", 10, -1, 0.4, 0.9, 20),
    ]
    summary = summary_of(scores=scores)
    assert (summary["accuracy"], summary["loss"]) == (0.9, 0.4)
    assert [score["accuracy"] for score in summary["validation"]] == [0.7]


def test_a_job_without_any_counts_still_has_a_summary():
    summary = json.loads(json_text(summary_of(reason="Everyone died.", wall_seconds=0.0)))
    assert summary["outcome"] == "failed"
    assert summary["reason"] == "Everyone died."
    assert summary["accuracy"] is None
    assert summary["training_loss"] is None
    assert summary["samples_per_second"] is None
    assert summary["clock_gap"] == {"mean": None, "max": None, "histogram": {}, "bound": 3}
    assert summary["time_budget"]["total"]["rest"] == 100.0


@pytest.mark.parametrize(
    ("consistency", "gap", "staleness"),
    [("sync", None, 0), ("async", None, None), ("ssp:0", 0, 3), ("ssp:3", 3, 21)],
)
def test_bounds_are_those_of_the_consistency_model(consistency, gap, staleness):
    summary = summary_of(consistency=consistency)
    assert summary["clock_gap"]["bound"] == gap
    assert summary["staleness"]["bound"] == staleness == staleness_bound(consistency, 4)


def test_losses_are_averaged_over_those_who_have_one():
    merged = merge_counters([Counters(loss=1.0), Counters(), Counters(loss=3.0)])
    assert merged.loss == 2.0
    assert math.isnan(merge_counters([]).loss)


def test_further_keys_win():
    summary = summarise(
        status(), [1], weights_sha256="", wall_seconds=1.0, extra={"started_at": "now", "model": "mine"}
    )
    assert (summary["started_at"], summary["model"]) == ("now", "mine")


def test_the_learning_rate_rule_says_what_an_update_is_made_of():
    assert "weighted by their samples" in learning_rate_rule(status(consistency="sync"))
    assert "applied as it comes" in learning_rate_rule(status(consistency="async"))


def test_an_early_end_is_told_and_counts_the_first_score_that_reached_the_target():
    scores = [Score("validation", 3, 3, 0.5, 0.7, 8), Score("validation", 6, 6, 0.4, 0.9, 8)]
    job = replace(status().job, target_accuracy=0.7)
    [note] = summarise(replace(status(scores=scores), job=job), (6,), weights_sha256="", wall_seconds=1.0)[
        "notes"
    ]
    assert note.startswith("The job ended at version 3, when the validation accuracy, 0.7000, reached")
    assert summary_of(scores=scores)["notes"] == []


def test_the_rule_names_a_schedule_that_is_not_constant():
    job = replace(status().job, schedule="warmup:5%+cosine")
    assert "by the schedule warmup:5%+cosine over 10 updates" in learning_rate_rule(
        replace(status(), job=job)
    )
