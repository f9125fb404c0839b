"""The program: its options, its line on stdout, its exit codes, its sentences."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import grpc
import pytest
from raw import JOB, SECONDS, RawReplica, ServerProcess, two_servers, wait_serving

from paramserver.wire import paramserver_pb2 as pb
from paramserver.wire.jobs import encode_replica


def run(*options: str) -> tuple[int, str]:
    """Run a server that ends by itself; return its exit code and its stderr."""
    command = [sys.executable, "-P", "-m", "server", *options]
    done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=False)
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    assert len(done.stderr.splitlines()) == 1
    return done.returncode, done.stderr


def test_it_says_in_one_line_where_it_listens() -> None:
    with ServerProcess() as server:
        assert server.first_line == f"listening {server.address}\n"
        host, port = server.address.split(":")
        assert (host, int(port) > 0) == ("127.0.0.1", True)
        wait_serving(server)


def test_a_port_in_use_is_refused() -> None:
    with ServerProcess() as server:
        code, sentence = run("--listen", server.address)
    assert code == 2
    assert server.address in sentence
    assert "--listen" in sentence


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--shard", "2"), ("'--shard'", "Did you mean '--shards'?")),
        (("--shards", "0"), ("--shards", "'0'")),
        (("--listen", "somewhere"), ("--listen", "HOST:PORT", "'somewhere'")),
        (("--listen", "0.0.0.0:0"), ("--advertise",)),
        (("--server", "1", "--servers", "2"), ("--coordinator",)),
        (("--server", "2", "--servers", "2"), ("--server", "from 0 to 1")),
        (("--out", "/dev/null/run"), ("--out", "/dev/null/run")),
    ],
)
def test_wrong_options_are_refused(options: tuple[str, ...], words: tuple[str, ...]) -> None:
    code, sentence = run(*options)
    assert code == 2
    for word in words:
        assert word in sentence


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_ends_it_with_a_sentence(number: signal.Signals, code: int) -> None:
    with ServerProcess() as server, closing(RawReplica(server)) as replica:
        stream = replica.pull_stream()  # waits: nobody has initialised
        assert next(stream).HasField("waiting")
        server.process.send_signal(number)
        assert server.wait() == code
        assert f"stopped by {number.name}." in server.log()
        assert "Traceback" not in server.log()


def test_it_ends_with_its_parent() -> None:
    with ServerProcess("--exit-with-parent", stdin=subprocess.PIPE) as server:
        wait_serving(server)
        assert server.process.stdin is not None
        server.process.stdin.close()
        assert server.wait() == 1
        assert "process that started" in server.log()


def test_a_coordinator_that_does_not_answer_is_given_up() -> None:
    with ServerProcess(
        "--server", "1", "--servers", "2", "--coordinator", "127.0.0.1:1", "--connect-timeout", "0.5"
    ) as server:
        assert server.wait() == 1
        assert "127.0.0.1:1" in server.log()
        assert "Traceback" not in server.log()


def test_servers_that_do_not_come_up_are_given_up() -> None:
    with ServerProcess("--servers", "3", "--connect-timeout", "0.2") as server:
        assert server.wait() == 1
        assert "Servers 1, 2 did not come up" in server.log()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--server", "1", "--servers", "2", "--shards", "3"), ("3 shards", "has 2")),
        (("--server", "4", "--servers", "5", "--shards", "2"), ("no server 4",)),
    ],
)
def test_a_server_that_does_not_fit_is_refused(options: tuple[str, ...], words: tuple[str, ...]) -> None:
    with (
        ServerProcess("--servers", "2", "--shards", "2") as first,
        ServerProcess(*options, "--coordinator", first.address) as other,
    ):
        assert other.wait() == 2
        for word in words:
            assert word in other.log()


def test_an_index_is_taken_once() -> None:
    with two_servers() as (first, _):
        options = ("--servers", "2", "--server", "1", "--coordinator", first.address)
        with ServerProcess(*options) as other:
            assert other.wait() == 2
            assert "Server 1 has registered already" in other.log()
        wait_serving(first)


def test_a_lost_server_ends_the_job() -> None:
    with two_servers() as (first, second), closing(RawReplica(first)) as replica:
        replica.initialise()
        second.process.kill()
        beats = pb.HeartbeatRequest(beats=[pb.Beat(replica=encode_replica(replica.replica))])
        while not (reply := first.stub.Heartbeat(beats, timeout=SECONDS)).ended:
            pass  # the loss is on its way
        assert "Server 1 was lost" in reply.reason
        assert first.wait() == 1
        assert "Server 1 was lost" in first.log()


def test_a_lost_coordinator_ends_the_other_servers() -> None:
    with two_servers() as (first, second), closing(RawReplica(first, JOB)):
        first.process.kill()
        assert second.wait() == 1
        assert f"coordinator at {first.address}" in second.log()


def test_a_coordinator_that_is_stopped_ends_the_other_servers() -> None:
    with two_servers() as (first, second), closing(RawReplica(first, JOB)):
        first.process.terminate()
        assert first.wait() == 143
        assert second.wait() == 1
        assert "server 0 was stopped by SIGTERM" in second.log()


def test_blas_threads_are_one_unless_the_user_says_otherwise() -> None:
    code = "import os, server.__main__ as m; m._set_environment(); print(os.environ['OPENBLAS_NUM_THREADS'])"
    for given, expected in (({}, "1"), ({"OPENBLAS_NUM_THREADS": "3"}, "3")):
        environment = {key: value for key, value in os.environ.items() if key != "OPENBLAS_NUM_THREADS"}
        done = subprocess.run(
            [sys.executable, "-P", "-c", code],
            env={**environment, **given},
            capture_output=True,
            text=True,
            timeout=SECONDS,
            check=True,
        )
        assert done.stdout.strip() == expected


def test_who_asks_a_server_that_has_come_back_too_soon_asks_again(tmp_path: Path) -> None:
    # Before the coordinator has told it what it was, it knows no replica.
    coordinator = ("--servers", "2", "--out", str(tmp_path))
    other = ("--server", "1", *coordinator, "--recover")
    with ServerProcess(*coordinator) as first, ServerProcess(*other, "--coordinator", first.address) as back:
        wait_serving(back)
        request = pb.PullRequest(shard=1, replica=pb.Replica(rank=0, incarnation=1), clock=3)
        with pytest.raises(grpc.RpcError) as refused:
            list(back.stub.Pull(request, timeout=SECONDS))
    assert refused.value.code() is grpc.StatusCode.UNAVAILABLE
    assert "has come back, and is waiting for its weights" in str(refused.value.details())
