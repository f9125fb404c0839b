"""The commands, and how each error leaves: one sentence on standard error, and an exit code.

Exit codes: 0 done, 1 the job failed, 2 bad usage or input, 128 plus the signal when interrupted.
"""

from __future__ import annotations

import os
import sys
import tempfile
import traceback
from collections.abc import Sequence
from typing import Annotated, Any, NoReturn

import typer

from paramserver import __version__
from paramserver.cli.calibrate import calibrate
from paramserver.cli.certs import certs
from paramserver.cli.chaos import chaos
from paramserver.cli.check import check
from paramserver.cli.compare import compare
from paramserver.cli.listing import data, graph, models, optimizers
from paramserver.cli.predict import predict
from paramserver.cli.repro import repro
from paramserver.cli.scale import scale
from paramserver.cli.status import status
from paramserver.cli.timeline import timeline
from paramserver.cli.train import simulate, train
from paramserver.errors import JobError, RequestError, did_you_mean
from paramserver.logs import complain

# Typer carries a copy of click, or uses the real one, depending on its version; this is its ClickException.
_BadUsage: type[Exception] = typer.BadParameter.__mro__[2]

app = typer.Typer(
    name="paramserver",
    help="Train a model through a real parameter server, and see what happened.",
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

_PASSED_ON: dict[str, Any] = {
    "add_help_option": False,
    "context_settings": {"allow_extra_args": True, "ignore_unknown_options": True},
}

app.command()(train)
app.command()(simulate)
app.command()(calibrate)
app.command()(compare)
app.command()(status)
app.command()(check)
app.command()(predict)
app.command()(timeline)
app.command()(scale)
app.command()(repro)
app.command()(certs)
app.command()(models)
app.command()(optimizers)
app.command()(graph)
app.add_typer(data)
app.add_typer(chaos)


@app.command(**_PASSED_ON)
def server(context: typer.Context) -> None:
    """Run one server; see paramserver server --help."""
    _become("server", context.args)


@app.command(**_PASSED_ON)
def worker(context: typer.Context) -> None:
    """Run one worker; see paramserver worker --help."""
    _become("worker", context.args)


@app.callback(invoke_without_command=True)
def paramserver(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False,
) -> None:
    """Train a model through a real parameter server, and see what happened."""
    if version:
        typer.echo(f"paramserver {__version__}")
        raise typer.Exit
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())
        raise typer.Exit


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command line and exit.

    Args:
        arguments: those of the process where None is given.

    Raises:
        SystemExit: always, with the exit code.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # a terminal that lacks a character gets a question mark
            stream.reconfigure(errors="replace")
    try:
        code = _run(given)
        sys.stdout.flush()
    except BrokenPipeError:
        # Whoever read the output has gone. The interpreter flushes once more at its end: into nothing.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 1
    sys.exit(code)


def _run(arguments: list[str]) -> int:
    try:
        # Before typer sees them, which would take the -- and the --help that are meant for the program.
        if arguments[:1] in (["server"], ["worker"]):
            _become(arguments[0], arguments[1:])
        result = app(arguments, prog_name="paramserver", standalone_mode=False)
        return result if isinstance(result, int) else 0
    except RequestError as error:
        return _say(str(error), 2)
    except JobError as error:
        return _say(str(error), 1)
    except _BadUsage as error:
        return _say(_usage_sentence(error), 2)
    except (KeyboardInterrupt, typer.Abort):
        return _say("Interrupted by SIGINT.", 130)
    except MemoryError:
        return _say("There is not enough memory for this job. Use a smaller model, or less data.", 1)
    except BrokenPipeError:
        raise
    except Exception as error:
        return _say(_bug_sentence(error), 1)


def _become(program: str, arguments: Sequence[str]) -> NoReturn:
    """Replace this process by a program, so that signals and exit code are its own."""
    from paramserver.launch.programs import command

    line = command(program, arguments)
    os.execv(line[0], line)


def _say(sentence: str, code: int) -> int:
    complain(sentence)
    return code


def _usage_sentence(error: Any) -> str:
    """Turn click's message into sentences, with the nearest option or command where one is misspelt."""
    sentence = str(error.format_message()).strip()
    if not sentence.endswith((".", "?")):
        sentence += "."
    context = getattr(error, "ctx", None)
    option = getattr(error, "option_name", None)
    path = "paramserver"
    if context is not None:
        path = context.command_path
        if type(error).__name__ == "NoSuchOption":
            known = [name for parameter in context.command.params for name in parameter.opts]
            sentence = f"There is no option {option}.{did_you_mean(str(option), known)}"
        elif sentence.startswith("No such command") and "Did you mean" not in sentence:
            word = sentence.split("'")[1] if "'" in sentence else ""
            sentence += did_you_mean(word, context.command.commands)
    return f"{sentence} See {path} --help."


def _bug_sentence(error: Exception) -> str:
    if getattr(error, "is_written", False):
        return str(error)
    handle, path = tempfile.mkstemp(prefix="paramserver-", suffix=".log")
    with os.fdopen(handle, "w") as file:
        traceback.print_exception(error, file=file)
    return f"This is a bug in paramserver ({type(error).__name__}). The details are in {path}."
