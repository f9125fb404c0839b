"""Tokens of real runs, and a run under mutual TLS from its first call to its last."""

import json
import stat
import subprocess
import sys

from by_hand import ByHand
from keys import keys, server_options, worker_options

JOB = """
epochs = 2
servers = 2
workers = 1
"""


def test_a_run_under_mutual_tls(tmp_path):
    ours = keys()
    with ByHand(tmp_path, JOB) as cluster:
        for index in range(2):
            cluster.server(index, 2, "--expect-evaluator", *server_options(ours))
        cluster.evaluator(*worker_options(ours))
        cluster.worker(0, *worker_options(ours))
        assert set(cluster.end().values()) == {0}
        summary = cluster.summary()
    assert summary["outcome"] == "finished"
    assert summary["accuracy"] > 0.5


def test_a_run_keeps_its_token_for_its_owner_while_it_goes_on(launcher):
    token = launcher.out / "token"
    with launcher.start("--epochs", "500", "--quiet") as process:
        launcher.until(launcher.training)
        assert stat.S_IMODE(token.stat().st_mode) == 0o600
        assert not any(token.read_text() in line for line in launcher.processes().values())
        address = json.loads((launcher.out / "servers.json").read_text())["connect"]

        def status(*options):
            command = [sys.executable, "-P", "-m", "paramserver", "status", "--json", *options]
            return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)

        assert json.loads(status(str(launcher.out)).stdout)["state"] == "training"
        assert json.loads(status("--connect", address, "--token-file", str(token)).stdout)
        refused = status("--connect", address)
        assert refused.returncode == 2
        assert "asks for the job's token" in refused.stderr
        process.terminate()
    assert not token.exists()
