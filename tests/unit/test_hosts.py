"""The hosts of other tests: a cable that carries, is slow, or is unplugged, and nothing is left behind."""

import socket
import subprocess
import sys
from pathlib import Path

import pytest
from hosts import PROGRAMS, NoHostsError, two_hosts

SECONDS = 30.0

RECEIVE = """
import socket, sys, time
with socket.create_server((sys.argv[1], 7070)) as listener:
    print("ready", flush=True)
    connection, _ = listener.accept()
    began, received = time.monotonic(), 0
    while data := connection.recv(1 << 16):
        received += len(data)
    print(received, time.monotonic() - began)
"""
SEND = """
import socket, sys
with socket.create_connection((sys.argv[1], 7070), timeout=10) as connection:
    connection.sendall(bytes(int(sys.argv[2])))
"""


def transfer(hosts, size):
    """Send bytes from the second host to the first; return how many came, and the seconds that took."""
    with hosts.first.start(
        [sys.executable, "-c", RECEIVE, hosts.first.address], stdout=subprocess.PIPE
    ) as receiver:
        assert receiver.stdout.readline() == "ready\n"
        hosts.second.run(sys.executable, "-c", SEND, hosts.first.address, str(size))
        received, seconds = receiver.communicate(timeout=SECONDS)[0].split()
    return int(received), float(seconds)


def test_the_cable_carries_no_more_than_its_limit(hosts):
    hosts.limit(80)
    before = hosts.second.bytes_sent()
    received, seconds = transfer(hosts, 2_000_000)
    assert received == 2_000_000
    assert hosts.second.bytes_sent() - before > received
    # 0.2 s at 80 Mbit/s; the first 40 kB are a burst. There is no upper limit to what a busy machine needs.
    assert seconds > 0.15


def test_an_unplugged_cable_carries_nothing_until_it_is_plugged_in(hosts):
    hosts.unplug()
    with pytest.raises(NoHostsError, match="Network is unreachable"):
        hosts.second.run(sys.executable, "-c", SEND, hosts.first.address, "1")
    hosts.plug_in()
    assert transfer(hosts, 1000)[0] == 1000


def test_nothing_is_left_behind(hosts):
    """The fixture has shown that hosts can be made here."""
    with two_hosts() as pair:
        left = pair.first.start(["cat"], stdin=subprocess.PIPE)
        pids = [left.pid, pair.first.pid, pair.second.pid]
    assert left.wait(SECONDS) == -9
    left.stdin.close()
    assert not any(Path(f"/proc/{pid}").exists() for pid in pids)


def test_hosts_that_cannot_be_made_say_why(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(NoHostsError, match=f"{PROGRAMS[0]} is not installed"), two_hosts():
        pass


def test_this_process_is_on_neither_host(hosts):
    with socket.socket() as outside, pytest.raises(OSError, match="assign requested address"):
        outside.bind((hosts.first.address, 0))
