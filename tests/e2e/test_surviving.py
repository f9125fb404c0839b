"""Processes of a run are killed and stopped; the run survives, and its account of gradients is closed."""

import os
import signal
from contextlib import contextmanager
from itertools import pairwise

import pytest

from paramserver.events import PushReceived
from paramserver.storage import read_metrics
from paramserver.storage.journal import read_journal

pytestmark = pytest.mark.chaos

LEASE_SECONDS = 2
QUICK = ("--lease-seconds", f"{LEASE_SECONDS}", "--checkpoint-every", "10")
EPOCHS = ("--epochs", "10")
REPLICAS, ROUNDS = 4, 10 * 11
ENDS = ("applied", "dropped", "fenced", "partial", "lost", "rolled_back")


class Run:
    """A run that goes on, and what can be done to it."""

    def __init__(self, launcher, process):
        self._launcher = launcher
        self.process = process

    def until(self, condition):
        """Wait until a condition holds, while the run goes on."""
        self._launcher.until(lambda: condition() or self.process.poll() is not None)
        assert self.process.poll() is None, self.process.communicate()

    def reach(self, checkpoint):
        """Wait until the checkpoint of this number, or a later one, is whole."""
        whole = self._launcher.out.glob
        self.until(
            lambda: any(int(p.parent.name) >= checkpoint for p in whole("checkpoints/*/manifest.json"))
        )

    def hear(self, log, words):
        """Wait until a log has these words."""
        path = self._launcher.out / "logs" / log
        self.until(lambda: path.exists() and words in path.read_text())

    def read(self, words):
        """Read what the run says until it has said these words."""
        assert any(words in line for line in self.process.stdout), f"It has never said '{words}'."

    def pid(self, *words):
        """Return the process id of the one process whose command line has all these words."""
        [pid] = [pid for pid, line in self._launcher.processes().items() if all(w in line for w in words)]
        return pid

    def hit(self, *words, number=signal.SIGKILL):
        """Send a signal to one process, once there is one."""
        found = self._launcher.processes
        self.until(lambda: any(all(word in line for word in words) for line in found().values()))
        os.kill(self.pid(*words), number)

    def end(self):
        """Wait for the end, and return exit code and output."""
        out, err = self.process.communicate(timeout=90)
        assert "Traceback" not in out + err
        assert self._launcher.processes() == {}
        return self.process.returncode, out, err


@contextmanager
def running(launcher, *options):
    with launcher.start(*options) as process:
        try:
            yield Run(launcher, process)
        finally:
            process.kill()


def busy():
    """Say how much longer than on a quiet machine things may take: so many processes want each processor."""
    return max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1))


def check_account(summary):
    """See that every gradient and every sample ended as exactly one thing."""
    for counts in (summary["gradients"], summary["samples"]):
        assert counts["computed"] == sum(counts[name] for name in ENDS), counts
    assert not any("accounts for more" in note for note in summary["notes"])


def test_three_kills_and_a_hang_leave_the_same_weights(launcher, undisturbed):
    with running(launcher, *EPOCHS, *QUICK, "--servers", "2", "--shards", "1") as run:
        run.reach(2)
        run.hit("-m worker", "--worker 1 ", "--threads")
        run.reach(4)
        run.hit("-m server", "--server 1 ")
        run.reach(6)
        run.hit("-m server", "--server 0 ")
        run.reach(8)
        run.hit("-m worker", "--worker 1 ", "--threads", number=signal.SIGSTOP)
        code, out, err = run.end()
    assert code == 0, err
    summary = launcher.summary()
    assert summary["weights_sha256"] == undisturbed
    assert summary["restarts"] == {"worker 1": 2, "server 1": 1, "server 0": 1}
    assert summary["generation"] == 2
    check_account(summary)
    assert "The process of server 1 was ended by SIGKILL. It is started again (1 of 3)." in out
    assert "The process of worker 1 runs, but 2 replicas of it are dead" in out
    assert "restarts             worker 1: 2, server 1: 1, server 0: 1" in out


def test_the_only_server_may_die_while_it_writes_a_checkpoint(launcher, undisturbed):
    with running(launcher, *EPOCHS, *QUICK, "--checkpoint-every", "2", "--quiet") as run:
        run.reach(15)
        run.hit("-m server")
        code, _, err = run.end()
    assert code == 0, err
    summary = launcher.summary()
    assert summary["weights_sha256"] == undisturbed
    assert summary["gradients"]["applied"] == REPLICAS * ROUNDS
    check_account(summary)


def test_a_checkpoint_that_was_changed_is_passed_over_while_the_run_goes_on(launcher, undisturbed):
    with running(launcher, *EPOCHS, *QUICK, "--servers", "2", "--shards", "1") as run:
        run.reach(3)
        os.kill(run.pid("-m server", "--server 0 "), signal.SIGSTOP)  # so that no newer one becomes whole
        newest = max(launcher.out.glob("checkpoints/*/manifest.json")).parent
        torn = newest / "shard-0001-of-0002.safetensors"
        torn.write_bytes(torn.read_bytes()[:-4] + b"0000")
        run.hit("-m server", "--server 1 ")
        os.kill(run.pid("-m server", "--server 0 "), signal.SIGCONT)
        code, out, err = run.end()
    assert code == 0, err
    assert launcher.summary()["weights_sha256"] == undisturbed
    if launcher.summary()["generation"] > 1:  # else a newer one had become whole after all
        assert f"{torn} is not the file that the manifest means" in out
        assert "The checkpoint before it is used." in out
    check_account(launcher.summary())


def test_chance_is_the_same_when_steps_are_done_again(new_launcher):
    # Dropout and the order of samples are functions of seed, rank, epoch and clock, and nothing else.
    options = ("--epochs", "8", "--model", "mlp:32:dropout=0.5", "--data", "synthetic:spirals,n=600")
    alone, launcher = new_launcher(), new_launcher()
    code, _, err = alone.run(*options, "--engine", "sequential", "--quiet")
    assert code == 0, err
    with running(launcher, *options, *QUICK, "--checkpoint-every", "7", "--quiet") as run:
        run.reach(2)
        run.hit("-m server")
        code, _, err = run.end()
    assert code == 0, err
    assert launcher.summary()["generation"] == 1
    assert launcher.summary()["weights_sha256"] == alone.summary()["weights_sha256"]


def test_a_run_goes_on_after_its_launcher_was_killed(launcher, undisturbed):
    with running(launcher, *EPOCHS, *QUICK, "--quiet") as run:
        run.reach(6)
    launcher.until(lambda: not launcher.processes())
    before = read_metrics(launcher.out / "metrics.jsonl")
    newest = max(launcher.out.glob("checkpoints/*/manifest.json")).parent
    torn = next(newest.glob("*.safetensors"))
    os.truncate(torn, torn.stat().st_size - 1)
    go_on = ("--resume", str(launcher.out), "--servers", "2", "--shards", "3")
    code, out, err = launcher.command(*go_on)
    assert code == 0, err
    assert f"{torn} " in out
    assert "The checkpoint before it is used." in out
    assert f"The run goes on from checkpoint {int(newest.name) - 1}, which has " in out
    summary = launcher.summary()
    assert summary["weights_sha256"] == undisturbed
    assert (summary["resumed"], summary["generation"], summary["servers"]) == (True, 1, 2)
    check_account(summary)
    told = [line["seconds"] for line in read_metrics(launcher.out / "metrics.jsonl")]
    assert told[: len(before)] == [line["seconds"] for line in before]
    assert told == sorted(told)
    assert summary["wall_seconds"] > before[-1]["seconds"]
    code, _, err = launcher.command(*go_on)
    assert code == 2
    assert "has finished, so there is nothing to go on with." in err


def waits_seconds(out):
    """Return of each rank the longest time that its first shard has waited for a push of it."""
    pushes = {}
    for segment in read_journal(out / "journal" / "shard-0000"):
        for record in segment.records:
            if isinstance(record.event, PushReceived):
                pushes.setdefault(record.event.replica.rank, []).append(record.now)
    return sorted(max(later - sooner for sooner, later in pairwise(times)) for times in pushes.values())


def test_a_paused_worker_costs_a_lease_and_comes_back_by_itself(launcher):
    options = ("--epochs", "100000", *QUICK, "--consistency", "ssp:2", "--quiet")
    with running(launcher, *options) as run:
        run.reach(2)
        words = ("-m worker", "--worker 1 ", "--threads")
        paused = run.pid(*words)
        os.kill(paused, signal.SIGSTOP)
        run.hear("server0.log", "(worker1/1) was not heard of")
        os.kill(paused, signal.SIGCONT)
        run.hear("worker1.log", ", incarnation 2, goes on at clock")
        assert run.pid(*words) == paused
        # Until it has pushed again: so long was the wait for it.
        run.reach(max(int(path.name) for path in launcher.out.glob("checkpoints/*")) + 3)
        run.process.send_signal(signal.SIGINT)
        code, _, _ = run.end()
    assert code == 130
    summary = launcher.summary()
    assert not (launcher.out / "logs" / "worker1.1.log").exists()
    check_account(summary)
    others, _, paused, _ = waits_seconds(launcher.out)
    # The others are two steps ahead, and then wait until its lease is over; it has joined again since.
    assert LEASE_SECONDS / 2 < others < 2 * LEASE_SECONDS * busy()
    assert others < paused


@pytest.mark.parametrize("consistency", ["sync", "async"])
@pytest.mark.timeout(400)
def test_a_server_may_be_started_again_ten_times(launcher, new_launcher, consistency):
    epochs = ("--epochs", "40", "--consistency", consistency)
    options = (*epochs, *QUICK, "--max-restarts", "10", "--servers", "2", "--shards", "1", "--quiet")
    with running(launcher, *options) as run:
        for time in range(10):
            run.reach(2 + 3 * time)
            run.hit("-m server", f"--server {time % 2} ")
            run.hear(f"server{time % 2}.{time // 2 + 1}.log", "listening")
        code, _, err = run.end()
    assert code == 0, err
    summary = launcher.summary()
    assert summary["restarts"] == {"server 0": 5, "server 1": 5}
    assert summary["accuracy"] > 0.92
    check_account(summary)
    if consistency == "sync":
        calm = new_launcher()
        assert calm.run(*epochs, "--engine", "sequential", "--quiet")[0] == 0
        assert summary["weights_sha256"] == calm.summary()["weights_sha256"]


def test_where_the_dead_are_dropped_they_come_back_late(launcher):
    with running(launcher, *EPOCHS, *QUICK, "--consistency", "ssp:2", "--quiet") as run:
        run.reach(2)
        run.hit("-m worker", "--worker 1 ", "--threads")
        run.reach(5)
        run.hit("-m server")
        code, _, err = run.end()
    assert code == 0, err
    summary = launcher.summary()
    assert summary["restarts"]["server 0"] == 1
    assert summary["accuracy"] > 0.9
    check_account(summary)


def test_past_the_last_restart_the_run_is_saved_and_ends_with_a_sentence(launcher):
    with running(launcher, "--epochs", "100000", *QUICK, "--max-restarts", "1", "--quiet") as run:
        run.reach(1)
        words = ("-m worker", "--worker 1 ", "--threads")
        run.hit(*words)
        run.until((launcher.out / "logs" / "worker1.1.log").exists)
        run.hear("worker1.log", "Joined the job")
        run.hit(*words)
        code, _, err = run.end()
    assert code == 1
    assert err.startswith("paramserver: The process of worker 1 was ended by SIGKILL.")
    assert "It had been started again once; --max-restarts allows no more." in err
    assert launcher.summary()["outcome"] == "failed"
    assert launcher.summary()["restarts"] == {"worker 1": 1}
    assert (launcher.out / "checkpoint" / "manifest.json").exists()


@pytest.mark.parametrize("server", ["--server 1 ", "--server 0 "])
def test_a_server_lost_before_there_is_a_checkpoint_lets_the_run_begin_anew(launcher, undisturbed, server):
    options = (*EPOCHS, *QUICK, "--servers", "2", "--shards", "1")
    with running(launcher, *options) as run:
        run.hear("server0.log", "Server 1 is up")
        run.hear("worker0.log", "Joined the job")
        run.hit("-m server", server)
        code, _, err = run.end()
    assert code == 0, err
    summary = launcher.summary()
    assert summary["weights_sha256"] == undisturbed
    check_account(summary)
