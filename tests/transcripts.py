"""Run a transcript: a text of commands, each followed by what it led to, in plain words.

A command begins at the left margin, what came of it is indented, and ``#`` begins a comment. The commands
drive the real coordinator, the real shards and the real session; the model is one tensor ``w`` of four
numbers under plain gradient descent with a learning rate of 1.

    job RULE [replicas=2] [shards=1] [table=yes] [recovers=yes] [FIELD=VALUE ...]
                                                          a new cluster, and what those who join ask for
    join NAME [attempt=TEXT] [FIELD=VALUE ...]            a replica; with fields it asks for another job
    initialise NAME w=VALUE [shards=0,1] [length=N]       stage first weights, on these shards only
    pull RANK clock=N [rows=0,1]                          RANK is the newest incarnation, RANK.1 the first
    push RANK seq=N gradient=VALUE [rows=0,1] [samples=1] [shards=0,1]
    observe [round=N]                                     an observer's read
    part RANK clock=N                                     what is it to do from that clock on?
    beat RANK [clock=N] [phase=NAME]                      a heartbeat
    leave RANK [failure=TEXT] [goes=yes]                  goes: before its last step
    visits                                                what became of the samples so far?
    tick SECONDS [alive=0,1]                              time passes, and these replicas keep beating
    pause SECONDS                                         time passes, and nothing on the server runs
    hold orders|reports SHARD                             that link is slow from now on
    release                                               what was held arrives
    crash SERVER                                          with recovers=yes each shard has a server of its own
    start SERVER                                          the crashed server is back, and knows nothing
    restart coordinator [without=1]                       it ends, and goes on with what it has written down;
                                                          without these servers, which are still down
"""

from __future__ import annotations

import shlex
from dataclasses import fields, replace

import numpy as np
from cluster import Cluster

from paramserver import events as ev
from paramserver.errors import RequestError
from paramserver.rows import Gradient, RowGradient, RowValues
from paramserver.session import PullExchange, PushExchange, Session

LENGTH = 4


def run(text: str) -> str:
    """Return the transcript with what its commands lead to now."""
    stage = Stage()
    lines: list[str] = []
    for line in text.splitlines():
        if line.startswith("  "):
            continue
        lines.append(line)
        if line and not line.startswith("#"):
            lines += [f"  {outcome}" for outcome in stage.do(line)]
    return "\n".join(lines) + "\n"


class Stage:
    """The cluster of one transcript, and the replicas and observers around it."""

    def __init__(self) -> None:
        self._said: list[tuple[str, int | None]] = []  # what, and on which shard if on one
        self._begin_job(ev.JobSpec((ev.TensorSpec("w", (LENGTH,)),), learning_rate=1.0), shards=1)

    def _begin_job(self, spec: ev.JobSpec, shards: int, recovers: bool = False) -> None:
        self._spec = spec
        self.cluster = Cluster(shards, self._watch, recovers)
        self._sessions: dict[ev.Replica, Session] = {}
        self._joins = 0
        self._started = False
        self._live: set[int] = set()
        self._outside: set[int] = set()  # ranks that do not count, and perhaps will
        self._held: set[tuple[str, int]] = set()

    def do(self, line: str) -> list[str]:
        """Obey a command and say what came of it."""
        name, *words = shlex.split(line)
        plain = [word for word in words if "=" not in word]
        options = dict(word.split("=", 1) for word in words if "=" in word)
        try:
            getattr(self, f"_{name}")(*plain, **options)
        except RequestError as error:
            self._say(f"refused before anything was sent: {error}")
        self._run_links()
        return self._take_said()

    # ----------------------------------------------------------------------------------------- commands

    def _job(self, rule: str, shards: str = "1", table: str = "", recovers: str = "", **changes: str) -> None:
        changes.setdefault("replicas", "2")
        changes.setdefault("replicas_max", changes["replicas"])
        spec = ev.JobSpec((ev.TensorSpec("w", (LENGTH,), table=bool(table)),), learning_rate=1.0)
        self._begin_job(_changed(spec, {"consistency": rule, **changes}), int(shards), bool(recovers))

    def _join(self, name: str, attempt: str = "", **changes: str) -> None:
        self._joins += 1

        def answer(effect: ev.CoordinatorEffect) -> None:
            if not isinstance(effect, ev.JoinGranted):
                self._say(f"{name} {_refusal(effect)}")
                return
            replica = effect.replica
            self._sessions[replica] = Session(effect)
            again = f", incarnation {replica.incarnation}," if replica.incarnation > 1 else ""
            weights = " with the weights that are there" if effect.sealed else ""
            self._say(f"{name} is replica {replica.rank}{again} and begins at clock {effect.clock}{weights}")

        attempt = attempt or str(self._joins)
        spec = _changed(self._spec, changes)
        self.cluster.tell_coordinator(ev.JoinReceived(self.cluster.request(answer), name, attempt, spec))

    def _initialise(self, name: str, w: str, shards: str = "", length: str = str(LENGTH)) -> None:
        session = next(session for session in self._sessions.values())
        if int(length) == LENGTH:
            requests = session.initialise(f"{name}-{w}", {"w": _array(w)})
        else:  # what a session would refuse, straight to the shards
            wrong = {part: _array(w, int(length)) for part in session.granted.placement}
            requests = {
                shard: ev.InitialiseReceived(
                    shard, name, {part: wrong[part] for part in session.slices(shard)}
                )
                for shard in range(session.shards)
            }
        for shard in _shards(shards, requests):

            def answer(effect: ev.ShardEffect, shard: int = shard) -> None:
                if isinstance(effect, ev.InitialiseAnswered):
                    there = "adopts the weights that are there" if effect.adopted else "staged its weights"
                    self._say(f"{name} {there}", shard)
                else:
                    self._say(f"{name} {_refusal(effect)}", shard)

            self.cluster.ask_shard(shard, requests[shard], answer)

    def _pull(self, who: str, clock: str, rows: str = "") -> None:
        replica = self._replica(who)
        wanted = {"w": _rows(rows)} if rows else None
        self._read(f"replica {who}", self._sessions[replica].pull(int(clock), wanted))

    def _observe(self, round: str = "") -> None:
        granted: list[ev.JoinGranted] = []

        def answer(effect: ev.CoordinatorEffect) -> None:
            if isinstance(effect, ev.JoinGranted):
                granted.append(effect)
            else:
                self._say(f"the observer {_refusal(effect)}")

        self.cluster.tell_coordinator(ev.JoinReceived(self.cluster.request(answer), "observer", "1", None))
        if granted:
            self._read("the observer", Session(granted[0]).observe(int(round) if round else None))

    def _push(
        self, who: str, seq: str, gradient: str, rows: str = "", samples: str = "1", shards: str = ""
    ) -> None:
        replica = self._replica(who)
        array: Gradient = _array(gradient)
        if rows:
            touched = _rows(rows)
            array = RowGradient(touched, _array(gradient, len(touched)), (LENGTH,))
        exchange = self._sessions[replica].push(int(seq), {"w": array}, int(samples))
        chosen = _shards(shards, exchange.requests)
        for shard in chosen:
            self.cluster.ask_shard(
                shard, exchange.requests[shard], self._pushed(who, seq, shard, exchange, chosen)
            )

    def _part(self, who: str, clock: str) -> None:
        def answer(effect: ev.CoordinatorEffect) -> None:
            if not isinstance(effect, ev.PartGiven):
                self._say(f"replica {who} {_refusal(effect)}")
            elif effect.waits:
                self._say(f"replica {who} has to wait: {effect.waits}")
            elif effect.dealt is None:
                self._say(f"replica {who} has nothing left to do")
            else:
                clock, part = effect.dealt
                self._say(
                    f"replica {who} does, from clock {clock} on, batches {part.begin} to {part.end - 1} "
                    f"of share {part.place} of {part.places} in epoch {part.epoch}"
                )

        replica = self._replica(who)
        generation = self._sessions[replica].granted.generation
        event = ev.PartAsked(self.cluster.request(answer), replica, generation, int(clock))
        self.cluster.tell_coordinator(event)

    def _visits(self) -> None:
        def answer(effect: ev.CoordinatorEffect) -> None:
            for one in effect.status.visits:
                more = f", {one.refused} refused" * bool(one.refused) + f", {one.repeated} repeated" * bool(
                    one.repeated
                )
                self._say(f"epoch {one.epoch}: {one.seen} of {one.samples} samples seen{more}")

        self.cluster.tell_coordinator(ev.StatusReceived(self.cluster.request(answer)))

    def _beat(self, *who: str, clock: str = "0", phase: str = "wait") -> None:
        def answer(effect: ev.HeartbeatAnswered) -> None:
            for replica in effect.fenced:
                self._say(f"the heartbeat of replica {_who(replica)} is answered: fenced")
            if effect.ended:
                self._say("the heartbeat is answered: the job has ended")

        beats = tuple(
            ev.Beat(self._replica(rank), int(clock), 0, ev.Phase(phase), ev.Counters()) for rank in who
        )
        self.cluster.tell_coordinator(ev.HeartbeatReceived(self.cluster.request(answer), beats))

    def _leave(self, who: str, failure: str = "", goes: str = "") -> None:
        def answer(effect: ev.CoordinatorEffect) -> None:
            done = "leaves" if isinstance(effect, ev.Acknowledged) else _refusal(effect)
            self._say(f"replica {who} {done}")

        number = self.cluster.request(answer)
        replica = self._replica(who)
        generation = self._sessions[replica].granted.generation if replica in self._sessions else 0
        leave = ev.LeaveReceived(number, replica, ev.Counters(), failure, generation, bool(goes))
        self.cluster.tell_coordinator(leave)

    def _tick(self, seconds: str, alive: str = "") -> None:
        end = self.cluster.now + float(seconds)
        who = alive.split(",") if alive else []
        while self.cluster.wake_at is not None and self.cluster.wake_at <= end:
            self.cluster.now = self.cluster.wake_at
            if who:
                self._beat(*who)
            self.cluster.fire()
            self._run_links()
        self.cluster.now = end
        if who:
            self._beat(*who)

    def _pause(self, seconds: str) -> None:
        self.cluster.now += float(seconds)
        if self.cluster.wake_at is not None and self.cluster.wake_at <= self.cluster.now:
            self.cluster.fire()

    def _hold(self, what: str, shard: str) -> None:
        self._held.add((what, int(shard)))

    def _release(self) -> None:
        self._held.clear()

    def _crash(self, server: str) -> None:
        self.cluster.crash_server(int(server))

    def _start(self, server: str) -> None:
        self.cluster.start_server(int(server))

    def _restart(self, _: str, without: str = "") -> None:
        self.cluster.restart_coordinator({int(server) for server in without.split(",") if server})

    # ------------------------------------------------------------------------------------------ answers

    def _read(self, who: str, exchange: PullExchange) -> None:
        def answer_of(shard: int):
            def answer(effect: ev.ShardEffect) -> None:
                match effect:
                    case ev.PullParked():
                        self._say(f"{who} {effect}", shard)
                    case ev.PullGranted():
                        for part, values in effect.values().items():
                            exchange.destination(part)[...] = values
                        pulled = exchange.receive(shard, effect)
                        if pulled is None:
                            return
                        if pulled.verdict is not None:
                            self._say(f"{who} learns of its push: {_verdict(pulled.verdict)}")
                        versions = " and ".join(str(version) for version in pulled.versions)
                        gap = f", clock gap {pulled.clock_gap}" if pulled.clock_gap else ""
                        w = _weights(pulled.values["w"])
                        self._say(f"{who} reads {w} of version {versions}{gap}")
                    case ev.PullFenced():
                        self._say(f"{who} is fenced: {effect.reason} Begin anew at clock {effect.clock}.")
                    case _:
                        self._say(f"{who} {_refusal(effect)}", shard)

            return answer

        for shard, request in exchange.requests.items():
            self.cluster.ask_shard(shard, request, answer_of(shard))

    def _pushed(self, who: str, seq: str, shard: int, exchange: PushExchange, chosen: list[int]):
        def answer(effect: ev.ShardEffect) -> None:
            if not isinstance(effect, ev.PushAnswered):
                self._say(f"push {seq} of replica {who} {_refusal(effect)}", shard)
                return
            whole = exchange.receive(shard, effect.verdict)
            if whole is not None:
                self._say(f"push {seq} of replica {who}: {_verdict(whole)}")
            elif len(chosen) < len(exchange.requests):
                self._say(f"push {seq} of replica {who}: {_verdict(effect.verdict)}", shard)

        return answer

    def _watch(self, effect: ev.Ordered | ev.Noted) -> None:
        match effect:
            case ev.Noted(message):
                self._say(f"note: {message}")
            case ev.Ordered(order, shard, True):
                self._say(f"order {order.number} is sent to shard {shard} again")
            case ev.Ordered(ev.JobAnnounced() as order, shard):
                held = ", ".join(f"w[{part.row_begin}:{part.row_end}]" for part in order.slices) or "nothing"
                self._say(f"the job is fixed; shard {shard} holds {held}")
            case ev.Ordered(ev.MembershipChanged() as order):
                for member in order.members:
                    if not member.live:
                        what = "counts no more" if member.rank in self._live else "does not count yet"
                        self._say(f"replica {member.rank} {what}")
                    elif member.rank in self._outside:
                        self._say(f"replica {member.rank} counts from now on")
                    (self._live.add if member.live else self._live.discard)(member.rank)
                    (self._outside.discard if member.live else self._outside.add)(member.rank)
                if order.started and not self._started:
                    self._say(f"the job starts: {order.expected} replicas have joined")
                self._started = order.started
            case ev.Ordered(ev.Sealed(initialiser=who)):
                self._say(f"the weights of {who.partition('-')[0]} are sealed")
            case ev.Ordered(ev.RoundClosed() as order):
                ranks = " and ".join(f"replica {rank}" for rank in order.ranks)
                self._say(f"round {order.round} is closed with {ranks or 'nobody'}")
            case ev.Ordered(ev.CutOrdered(checkpoint=checkpoint)):
                self._say(f"checkpoint {checkpoint} is made")
            case ev.Ordered(ev.GenerationBegun() as order, 0):
                live = " and ".join(f"replica {member.rank}" for member in order.members if member.live)
                self._say(f"generation {order.generation} begins with {live}")
            case ev.Ordered(ev.JobEnded(reason=reason)):
                self._say(f"the job has ended: {reason or 'every replica is done'}")

    # ------------------------------------------------------------------------------------------ the rest

    def _replica(self, who: str) -> ev.Replica:
        rank, _, incarnation = who.partition(".")
        known = [replica for replica in self._sessions if replica.rank == int(rank)]
        if incarnation or not known:
            return ev.Replica(int(rank), int(incarnation or 1))
        return max(known, key=lambda replica: replica.incarnation)

    def _run_links(self) -> None:
        """Let orders and reports travel until all have arrived that are not held."""
        moved = True
        while moved:
            moved = False
            for shard in range(len(self.cluster.shards)):
                if self.cluster.orders[shard] and ("orders", shard) not in self._held:
                    self.cluster.deliver_order(shard)
                    moved = True
                if self.cluster.reports[shard] and ("reports", shard) not in self._held:
                    self.cluster.deliver_report(shard)
                    moved = True

    def _say(self, what: str, shard: int | None = None) -> None:
        self._said.append((what, shard))

    def _take_said(self) -> list[str]:
        """Return what was said; what all shards said alike is said once."""
        shards = len(self.cluster.shards)
        lines: list[str] = []
        for what, shard in self._said:
            if shard is None or sum(said == what for said, _ in self._said) == shards:
                if shard is None or what not in lines:
                    lines.append(what)
            else:
                lines.append(f"shard {shard}: {what}")
        self._said.clear()
        return lines


def _changed(spec: ev.JobSpec, changes: dict[str, str]) -> ev.JobSpec:
    kinds = {field.name: type(getattr(spec, field.name)) for field in fields(spec)}
    values = {name: kinds[name](value) for name, value in changes.items() if name not in ("length", "shares")}
    if "shares" in changes:
        values["shares"] = tuple(int(share) for share in changes["shares"].split(","))
    if "length" in changes:
        values["tensors"] = (ev.TensorSpec("w", (int(changes["length"]),)),)
    return replace(spec, **values)


def _array(text: str, length: int = LENGTH) -> np.ndarray:
    numbers = [float(number) for number in text.split(",")]
    return np.array(numbers * length if len(numbers) == 1 else numbers, np.float32)


def _numbers(array: np.ndarray) -> str:
    return "[" + " ".join(f"{number:g}" for number in array) + "]"


def _weights(values: np.ndarray | RowValues) -> str:
    if not isinstance(values, RowValues):
        return f"w = {_numbers(values)}"
    return f"rows {' '.join(map(str, values.indices))} of w = {_numbers(values.rows)}"


def _rows(text: str) -> np.ndarray:
    return np.array([int(number) for number in text.split(",")], np.int64)


def _shards(text: str, requests: dict[int, object]) -> list[int]:
    return [int(shard) for shard in text.split(",")] if text else sorted(requests)


def _who(replica: ev.Replica) -> str:
    return str(replica.rank) if replica.incarnation == 1 else f"{replica.rank}.{replica.incarnation}"


def _verdict(verdict: ev.Verdict) -> str:
    again = f" Begin anew at clock {verdict.clock}." if verdict.outcome is ev.Outcome.FENCED else ""
    return f"{verdict}{again}"


def _refusal(effect: ev.ShardEffect | ev.CoordinatorEffect) -> str:
    match effect:
        case ev.Refused(message=message):
            return f"is refused: {message}"
        case ev.Unavailable(message=message):
            return f"has to come again: {message}"
        case ev.Ended(reason=reason):
            return f"is told that the job has ended: {reason or 'every replica is done'}"
    raise AssertionError(effect)
