"""The health check of a container: ready, not ready yet, not there."""

import subprocess
import sys

import pytest
from raw import SECONDS, ServerProcess, wait_serving

from server.healthy import main


def test_a_server_is_ready_once_it_knows_all_the_others(capsys):
    with ServerProcess("--servers", "2") as first:
        assert main([first.address]) == 1
        assert "waits for the others" in capsys.readouterr().err
        with ServerProcess("--servers", "2", "--server", "1", "--coordinator", first.address) as second:
            for server in (first, second):
                wait_serving(server)
                assert main([server.address]) == 0
    assert main([first.address]) == 1
    assert "does not answer" in capsys.readouterr().err


@pytest.mark.parametrize(("arguments", "code"), [([], 2), (["127.0.0.1:1"], 1)])
def test_as_a_program(arguments, code):
    command = [sys.executable, "-P", "-m", "server.healthy", *arguments]
    assert subprocess.run(command, timeout=SECONDS, capture_output=True, check=False).returncode == code
