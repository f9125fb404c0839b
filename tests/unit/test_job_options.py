"""The options of a job are declared once, and a command gets those that were really given."""

from __future__ import annotations

from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from paramserver.cli.job_arguments import takes_job
from paramserver.cli.job_options import JobFile, Out


@pytest.fixture
def call():
    """Call a command that takes a job but no engine; returns what it was handed."""
    handed = {}
    app = typer.Typer()

    @app.command()
    @takes_job(without=("engine",))
    def command(given: dict[str, Any], job_file: JobFile = None, out: Out = None) -> int:
        """Do nothing."""
        handed.update(given=given, job_file=job_file, out=out)
        return 0

    def call(*arguments):
        result = CliRunner().invoke(app, arguments)
        return handed if result.exit_code == 0 else result.exit_code

    return call


def test_only_what_was_given_is_handed_on(call):
    assert call()["given"] == {}
    assert call("--lr", "1", "job.toml", "--clip-norm=2")["given"] == {"lr": 1.0, "clip_norm": 2.0}


def test_a_flag_that_is_absent_says_nothing(call):
    assert call("--epochs", "3")["given"] == {"epochs": 3}
    assert call("--trace")["given"] == {"trace": True}


def test_the_other_parameters_are_the_commands_own(call):
    handed = call("job.toml", "--out", "folder")
    assert (str(handed["job_file"]), str(handed["out"])) == ("job.toml", "folder")


def test_a_command_may_do_without_an_option(call):
    assert call("--engine", "local") == 2
