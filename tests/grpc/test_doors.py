"""Who does not get in, and the sentence that says why."""

from __future__ import annotations

import socket
import ssl
import threading
import urllib.error
import urllib.request
from contextlib import suppress
from pathlib import Path

import grpc
import numpy as np
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from keys import access, keys, server_options, token_options
from raw import JOB, SECONDS, ServerProcess

from paramserver import observe
from paramserver.client import Connection
from paramserver.errors import Fault, RequestError
from paramserver.launch.watch import Watch
from paramserver.security import Access, read_access
from paramserver.security.channels import open_channel
from paramserver.security.doors import Doors
from paramserver.security.guard import PEERS_MAX, Guard
from paramserver.security.shut import why_shut
from paramserver.wire import paramserver_pb2 as pb
from paramserver.wire.paramserver_pb2_grpc import InternalStub, ParameterServerStub


def refusal(address: str, brought: Access) -> str:
    """Return the sentence that refuses an observer at once; a server that is not there gives none."""
    with Connection(address, access=brought) as connection, pytest.raises(RequestError) as raised:
        connection.observe("me", SECONDS)
    assert raised.value.fault is Fault.DENIED
    return str(raised.value)


def test_a_client_without_tls_is_told_that_the_server_has_it() -> None:
    with ServerProcess(*server_options(keys())) as server:
        assert "speaks TLS, and this side does not" in refusal(server.address, access(token=keys()))


def test_a_client_with_tls_is_told_that_the_server_has_none() -> None:
    with ServerProcess(*token_options(keys())) as server:
        assert "does not speak TLS" in refusal(server.address, access(ca=keys(), token=keys()))


def test_a_server_of_another_ca_is_not_trusted() -> None:
    with ServerProcess(*server_options(keys("another"), mutual=False)) as server:
        assert "comes from another CA" in refusal(server.address, access(ca=keys(), token=keys()))


def test_a_client_without_certificate_is_refused_where_one_is_asked_for() -> None:
    with ServerProcess(*server_options(keys())) as server:
        assert "asks for a certificate" in refusal(server.address, access(ca=keys(), token=keys()))


def test_a_client_whose_certificate_is_of_another_ca_is_refused() -> None:
    with ServerProcess(*server_options(keys())) as server:
        brought = access(ca=keys(), shown=keys("another"), token=keys())
        assert "does not accept the certificate that was shown" in refusal(server.address, brought)


def test_a_server_that_is_back_after_it_was_gone_is_not_taken_for_shut() -> None:
    """What gRPC says of a connection that broke is the same; by the time of the look all is well again."""
    with ServerProcess(*server_options(keys())) as server:
        assert why_shut(server.address, access(ca=keys(), shown=keys(), token=keys())) == ""
        assert "asks for a certificate" in why_shut(server.address, access(ca=keys(), token=keys()))


def test_an_expired_certificate_is_not_trusted() -> None:
    old = keys("old", days=-1)
    with ServerProcess(*server_options(old, mutual=False)) as server:
        assert "has expired" in refusal(server.address, access(ca=old, token=old))


def test_a_certificate_for_another_host_is_not_trusted() -> None:
    with ServerProcess("--listen", "127.0.0.2:0", *server_options(keys())) as server:
        brought = access(ca=keys(), shown=keys(), token=keys())
        assert "is not for '127.0.0.2'" in refusal(server.address, brought)


def test_a_call_without_token_is_refused_and_logged_once() -> None:
    with ServerProcess(*token_options(keys())) as server:
        for _ in range(3):
            assert "asks for the job's token, and none came" in refusal(server.address, access())
        assert server.log().count("A call from ipv4:127.0.0.1 was refused.") == 1


def test_a_call_whose_connection_broke_within_its_headers_is_no_stranger() -> None:
    with ServerProcess(*token_options(keys())) as server:
        sent = bytes_of_a_call(server.address)
        host, _, port = server.address.rpartition(":")
        for size in range(24, len(sent)):
            with socket.create_connection((host, int(port)), SECONDS) as broken:
                broken.sendall(sent[:size])
        assert "is not this job's" in refusal(server.address, access(token=keys("another")))
        assert server.log().count("was refused") == 1


def bytes_of_a_call(address: str) -> bytes:
    """Return what a client with the right token sends for one call."""
    host, _, port = address.rpartition(":")
    sent = bytearray()

    def carry(source: socket.socket, sink: socket.socket, keep: bytearray) -> None:
        with suppress(OSError):
            while data := source.recv(1 << 16):
                keep += data
                sink.sendall(data)

    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        open_channel(f"127.0.0.1:{listener.getsockname()[1]}", access(token=keys()), ()) as channel,
    ):
        call = ParameterServerStub(channel).Status.future(pb.StatusRequest(), timeout=SECONDS)
        near, _ = listener.accept()
        with near, socket.create_connection((host, int(port)), SECONDS) as far:
            ways = [(near, far, sent), (far, near, bytearray())]
            threads = [threading.Thread(target=carry, args=way) for way in ways]
            for thread in threads:
                thread.start()
            call.result()
            for end in (near, far):
                end.shutdown(socket.SHUT_RDWR)
            for thread in threads:
                thread.join()
    return bytes(sent)


def test_a_wrong_token_is_refused() -> None:
    with ServerProcess(*token_options(keys())) as server:
        assert "is not this job's" in refusal(server.address, access(token=keys("another")))
        with pytest.raises(RequestError, match="is not this job's"):
            observe(server.address, token="x" * 32)
        with pytest.raises(RequestError, match="has no token: one has 16"):
            observe(server.address, token="short")


def test_a_workers_token_opens_no_link() -> None:
    with ServerProcess("--servers", "2", *token_options(keys())) as server:
        hello = pb.LinkUp(hello=pb.Hello(server=1, address="127.0.0.1:1", shards=1))
        with open_channel(server.address, access(token=keys()), ()) as channel:
            with pytest.raises(grpc.RpcError) as raised:
                list(InternalStub(channel).Link(iter([hello]), timeout=SECONDS))
            assert raised.value.code() is grpc.StatusCode.UNAUTHENTICATED
            assert "not that of this job's servers" in raised.value.details()
            # and the token of servers opens nothing else
            internal = Access((keys() / "server" / "internal-token").read_text())
            with open_channel(server.address, internal, ()) as other, pytest.raises(grpc.RpcError) as raised:
                ParameterServerStub(other).Status(pb.StatusRequest(), timeout=SECONDS)
            assert raised.value.code() is grpc.StatusCode.UNAUTHENTICATED


def test_a_server_with_another_secret_ends_with_a_sentence(tmp_path: Path) -> None:
    wrong = tmp_path / "internal"
    wrong.write_text("y" * 40)
    with ServerProcess("--servers", "2", *token_options(keys())) as first:
        options = ["--servers", "2", "--server", "1", "--coordinator", first.address]
        options += ["--token-file", str(keys() / "server" / "token"), "--internal-token-file", str(wrong)]
        with ServerProcess(*options) as second:
            assert second.wait() == 2
            assert "not that of this job's servers" in second.log()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--listen", "0.0.0.0:0", "--advertise", "127.0.0.1:0"), "--insecure"),
        (("--listen", "myhost:0"), "--tls-cert and --tls-key"),
        (("--metrics-port", "0", "--metrics-listen", "0.0.0.0"), "--metrics-listen 0.0.0.0 would let"),
        (("--tls-cert", "{server}/server.crt"), "belong together"),
        (("--tls-ca", "{server}/ca.crt"), "which takes TLS"),
        (("--tls-cert", "{server}/server.crt", "--tls-key", "{worker}/worker.key"), "cannot be used"),
        (
            ("--tls-cert", "{server}/token", "--tls-key", "{server}/server.key"),
            "no certificate or key in PEM",
        ),
        (("--token-file", "{server}/missing"), "cannot be read"),
        (("--token-file", "{server}/server.crt"), "has no token"),
        (("--servers", "2", "--token-file", "{server}/token"), "need a secret of their own"),
        (("--token-file", "{server}/token", "--internal-token-file", "{server}/token"), "are the same"),
    ],
)
def test_doors_that_make_no_sense_are_refused(options: tuple[str, ...], words: str) -> None:
    folders = {role: keys() / role for role in ("server", "worker")}
    with ServerProcess(*(option.format(**folders) for option in options)) as server:
        assert server.first_line == ""
        assert server.wait() == 2
        assert words in server.log()


def test_other_addresses_are_listened_at_with_tls_or_if_the_user_says_so() -> None:
    everywhere = ("--listen", "0.0.0.0:0", "--advertise", "127.0.0.1:0")
    for more in (["--insecure"], server_options(keys())):
        with ServerProcess(*everywhere, *more) as server:
            assert server.first_line.startswith("listening 127.0.0.1:")


def test_health_is_open_and_nothing_else_is() -> None:
    with ServerProcess(*token_options(keys())) as server:
        health = health_pb2_grpc.HealthStub(server.channel)
        check = health.Check(health_pb2.HealthCheckRequest(), timeout=SECONDS)
        assert check.status == health_pb2.HealthCheckResponse.SERVING
        reflection = reflection_pb2_grpc.ServerReflectionStub(server.channel)
        asked = reflection_pb2.ServerReflectionRequest(list_services="")
        stub = ParameterServerStub(server.channel)
        calls = [
            lambda: list(reflection.ServerReflectionInfo(iter([asked]), timeout=SECONDS)),
            lambda: stub.Join(pb.JoinRequest(), timeout=SECONDS),
            lambda: stub.Leave(pb.LeaveRequest(), timeout=SECONDS),
            lambda: stub.Heartbeat(pb.HeartbeatRequest(), timeout=SECONDS),
            lambda: stub.Score(pb.ScoreRequest(), timeout=SECONDS),
            lambda: stub.Status(pb.StatusRequest(), timeout=SECONDS),
            lambda: stub.Initialise(iter([pb.InitialiseRequest()]), timeout=SECONDS),
            lambda: stub.Push(iter([pb.PushRequest()]), timeout=SECONDS),
            lambda: list(stub.Pull(pb.PullRequest(), timeout=SECONDS)),
            lambda: list(InternalStub(server.channel).Link(iter([pb.LinkUp()]), timeout=SECONDS)),
            lambda: server.channel.unary_unary("/no.Such/Call")(b"", timeout=SECONDS),
        ]
        for call in calls:
            with pytest.raises(grpc.RpcError) as raised:
                call()
            assert raised.value.code() is grpc.StatusCode.UNAUTHENTICATED


def test_with_token_and_certificate_all_is_as_ever() -> None:
    brought = access(ca=keys(), shown=keys(), token=keys())
    with (
        ServerProcess(*server_options(keys())) as server,
        Connection(server.address, access=brought) as connection,
        Watch(server.address, access=brought) as watch,
    ):
        replica = connection.join("w/0", JOB, SECONDS)
        zeros = {tensor.key: np.zeros(tensor.shape, np.float32) for tensor in JOB.tensors}
        assert replica.initialise(zeros)
        assert replica.pull(0).versions == (0,)
        assert replica.push(0, zeros, 1).version == 1
        assert watch.ask() is not None


def test_a_watch_says_why_it_sees_nothing() -> None:
    with ServerProcess(*server_options(keys())) as server:
        for brought, words in ((access(), "speaks TLS"), (access(ca=keys(), shown=keys()), "token")):
            with Watch(server.address, access=brought) as watch:
                assert watch.ask() is None
                assert words in watch.refusal


def test_metrics_have_the_servers_tls() -> None:
    pytest.importorskip("prometheus_client")
    with ServerProcess("--metrics-port", "0", *server_options(keys())) as server:
        assert server.process.stdout is not None
        url = server.process.stdout.readline().removeprefix("metrics ").strip()
        assert url.startswith("https://")
        at = keys() / "worker"
        context = ssl.create_default_context(cafile=str(at / "ca.crt"))
        with pytest.raises((urllib.error.URLError, OSError)):
            urllib.request.urlopen(url, timeout=SECONDS, context=context)
        context.load_cert_chain(at / "worker.crt", at / "worker.key")
        with urllib.request.urlopen(url, timeout=SECONDS, context=context) as answer:
            assert b"paramserver_" in answer.read()


def test_a_client_whose_files_are_no_certificates_is_told_before_it_calls(tmp_path: Path) -> None:
    bad = tmp_path / "bad.pem"
    bad.write_text("-----BEGIN CERTIFICATE-----\nxx\n-----END CERTIFICATE-----\n")
    at = keys() / "worker"
    ours, another = (at / "ca.crt", at / "worker.crt"), keys("another") / "worker" / "worker.key"
    for ca, cert, key, words in (
        (bad, None, None, "of --tls-ca cannot be used"),
        (ours[0], bad, at / "worker.key", "--tls-cert and --tls-key cannot be used"),
        (*ours, another, "--tls-cert and --tls-key cannot be used"),
    ):
        with pytest.raises(RequestError, match=words):
            read_access(None, ca, cert, key, token="")


def test_the_guards_memory_is_bounded() -> None:
    now = [0.0]
    guard = Guard(Doors("t" * 20, "i" * 20), "x.Internal", lambda: now[0])
    for number in range(PEERS_MAX + 50):
        guard._tell(f"ipv4:10.0.{number // 256}.{number % 256}:77", "Why.")
    assert len(guard._told) == PEERS_MAX
