"""A server's statistics as Prometheus metrics; imported only where prometheus-client is installed.

To the next editor: nothing is counted here. Every number is read from what shards, transfers and coordinator
count anyway, at the moment of the scrape.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric

from paramserver.accounting import GRADIENT_NAMES, SAMPLE_NAMES, account, merge_counters
from paramserver.events import JobStatus, Outcome, Standing
from paramserver.wire.status import ServerStanding, ShardStanding

STALENESS_BUCKETS = (0, 1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 256, 512)
"""Upper bounds, in versions; they must not depend on the job, or several jobs could not be added up."""

_STANDINGS = tuple(Standing)


def families(job: JobStatus | None, server: ServerStanding) -> Iterator[Metric]:
    """Yield all metrics of one server.

    Args:
        job: how the job stands, from the coordinator; None elsewhere.
        server: how the server itself stands.
    """
    yield from _server_families(server)
    yield from _shard_families(server.shards)
    if job is not None:
        yield from _job_families(job)
        yield from _replica_families(job)


def _server_families(server: ServerStanding) -> Iterator[Metric]:
    waiting = {rank for shard in server.shards for rank, _ in shard.statistics.parked}
    yield _gauge("waiting_replicas", "Replicas that wait for others on a shard of this server.", len(waiting))
    yield _counter("received_bytes", "Bytes of the messages that brought tensors.", server.received_bytes)
    yield _counter("sent_bytes", "Bytes of the messages that took tensors away.", server.sent_bytes)
    yield _counter("cpu_seconds", "Processor time of all threads of this server.", server.cpu_seconds)


def _shard_families(shards: tuple[ShardStanding, ...]) -> Iterator[Metric]:
    pushes = CounterMetricFamily(
        "paramserver_shard_pushes",
        "Pushes that a shard received, by their verdict.",
        labels=("shard", "verdict"),
    )
    staleness = HistogramMetricFamily(
        "paramserver_shard_staleness_versions",
        "Staleness of the gradients that a shard applied, in its versions.",
        labels=("shard",),
    )
    gauges = {
        "version": "Updates that a shard has applied.",
        "rounds": "Rounds that a shard has closed (synchronous mode).",
        "weight_bytes": "Bytes of a shard's weights.",
        "buffered_gradients": "Gradients that wait on a shard for their round.",
        "waiting_pulls": "Pulls that wait on a shard.",
    }
    by_name = {
        name: GaugeMetricFamily(f"paramserver_shard_{name}", text, labels=("shard",))
        for name, text in gauges.items()
    }
    wait = CounterMetricFamily(
        "paramserver_shard_lock_wait_seconds",
        "Time that callers waited for a shard's lock.",
        labels=("shard",),
    )
    hold = CounterMetricFamily(
        "paramserver_shard_lock_hold_seconds", "Time that a shard's lock was held.", labels=("shard",)
    )
    for shard in shards:
        found, index = shard.statistics, [str(shard.statistics.shard)]
        for verdict in sorted({*(each.value for each in Outcome), "duplicate"} - {"buffered", "partial"}):
            pushes.add_metric([*index, verdict], found.pushes.get(verdict, 0))
        _add_histogram(staleness, index, found.staleness)
        by_name["version"].add_metric(index, found.version)
        by_name["rounds"].add_metric(index, found.rounds)
        by_name["weight_bytes"].add_metric(index, found.bytes)
        by_name["buffered_gradients"].add_metric(index, found.pushes.get("buffered", 0))
        by_name["waiting_pulls"].add_metric(index, len(found.parked))
        wait.add_metric(index, shard.lock_wait_seconds)
        hold.add_metric(index, shard.lock_hold_seconds)
    yield from (pushes, staleness, *by_name.values(), wait, hold)


def _job_families(job: JobStatus) -> Iterator[Metric]:
    total = merge_counters(member.counters for member in job.members)
    gradients, samples = dict(total.gradients), dict(total.samples)
    if job.ended:  # what has no verdict by now will never have one
        gradients, samples = account(gradients, GRADIENT_NAMES), account(samples, SAMPLE_NAMES)
    for name, what, counts, names in (
        ("gradients", "Gradients", gradients, GRADIENT_NAMES),
        ("samples", "Training samples", samples, SAMPLE_NAMES),
    ):
        family = CounterMetricFamily(
            f"paramserver_{name}", f"{what} of the job, by what became of them.", labels=("outcome",)
        )
        for outcome in names:
            family.add_metric([outcome], counts.get(outcome, 0))
        yield family
    staleness = HistogramMetricFamily(
        "paramserver_staleness_versions", "Staleness of applied gradients: the largest over the shards."
    )
    _add_histogram(staleness, [], total.staleness)
    yield staleness
    standings = Counter(member.standing for member in job.members)
    members = GaugeMetricFamily("paramserver_replicas", "Replicas, by how they stand.", labels=("standing",))
    for standing in _STANDINGS:
        members.add_metric([standing.value], standings[standing])
    yield members
    yield _gauge(
        "replicas_expected", "Replicas with which the job begins.", job.job.replicas if job.job else 0
    )
    yield _gauge("servers_up", "Servers that are up.", len(job.servers))
    yield _gauge("servers_expected", "Servers of the job.", job.servers_expected)
    yield _gauge("rounds", "Rounds that were closed (synchronous mode).", job.rounds)
    yield _gauge("generation", "Times that the weights have been recovered.", job.generation)
    yield _gauge("job_ended", "1 once the job is over, else 0.", int(job.ended))
    yield _gauge("training_loss", "Mean training loss of the latest steps.", total.loss)
    accuracies = [score.accuracy for score in job.scores if score.split == "validation"]
    if accuracies:
        yield _gauge("validation_accuracy", "Newest accuracy on the validation set.", accuracies[-1])


def _replica_families(job: JobStatus) -> Iterator[Metric]:
    labels = ("rank", "name")
    clock = GaugeMetricFamily("paramserver_replica_clock", "Finished steps of a replica.", labels=labels)
    heard = GaugeMetricFamily(
        "paramserver_replica_heard_seconds", "Age of a live replica's newest heartbeat.", labels=labels
    )
    lease = GaugeMetricFamily(
        "paramserver_replica_lease_remaining_seconds",
        "Time after which a live replica counts as dead unless it is heard of.",
        labels=labels,
    )
    for member in job.members:
        who = [str(member.replica.rank), member.name]
        clock.add_metric(who, member.clock)
        if member.standing is Standing.LIVE and job.job is not None:
            heard.add_metric(who, member.heard_seconds)
            lease.add_metric(who, job.job.lease_seconds - member.heard_seconds)
    yield from (clock, heard, lease)


def _gauge(name: str, text: str, value: float) -> Metric:
    return GaugeMetricFamily(f"paramserver_{name}", text, value=value)


def _counter(name: str, text: str, value: float) -> Metric:
    return CounterMetricFamily(f"paramserver_{name}", text, value=value)


def _add_histogram(family: HistogramMetricFamily, labels: list[str], counts: Mapping[int, int]) -> None:
    """Add counts by value as counts of what is at most each bucket's bound."""
    buckets = [
        (str(float(bound)), float(sum(times for value, times in counts.items() if value <= bound)))
        for bound in STALENESS_BUCKETS
    ]
    buckets.append(("+Inf", float(sum(counts.values()))))
    family.add_metric(labels, buckets, float(sum(value * times for value, times in counts.items())))
