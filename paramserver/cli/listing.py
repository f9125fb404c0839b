"""The commands that say what there is: models, optimizers, the graph of a model, data sets."""

from __future__ import annotations

import shutil
import textwrap
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

import typer

from paramserver.errors import RequestError

data = typer.Typer(
    name="data",
    help="List data sets, and fetch those that do not come with paramserver.",
    context_settings={"help_option_names": ["-h", "--help"]},
)


def models() -> None:
    """List the models that --model can name, a line each."""
    from paramserver.models import MODELS, OPTIONS

    _print_rows("Models", MODELS.items())
    _print_rows("Options, each after a colon", ((name, line) for name, line in OPTIONS.items()))


def optimizers() -> None:
    """List the optimizers and schedules that --optimizer and --schedule can name, a line each."""
    from paramserver.job import USUAL_LEARNING_RATE
    from paramserver.optim import OPTIMIZERS, SCHEDULES

    rows = ((name, f"{line} (usual rate {USUAL_LEARNING_RATE[name]:g})") for name, line in OPTIMIZERS.items())
    _print_rows("Optimizers", rows)
    _print_rows("After any of them", [("+decay:RATE", "weight decay, once in each update")])
    _print_rows("Schedules", SCHEDULES.items())


def graph(
    model: Annotated[
        str,
        typer.Option(
            metavar="MODEL", help="Model; see paramserver models. (default: mlp:128)", show_default=False
        ),
    ] = "mlp:128",
    data_name: Annotated[
        str,
        typer.Option(
            "--data", metavar="NAME", help="Data that it is to fit. (default: digits)", show_default=False
        ),
    ] = "digits",
    data_dir: Annotated[
        str,
        typer.Option(
            metavar="DIR",
            help="Folder in which data files are looked for. (default: the usual places)",
            show_default=False,
        ),
    ] = "",
    code: Annotated[
        Path | None,
        typer.Option(metavar="FILE.py", help="Your own file, for its model and data.", show_default=False),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Draw it to a file that ends in .svg or .dot.", show_default=False),
    ] = None,
) -> None:
    """Print the computation graph of a model, with shapes and parameter counts, or draw it."""
    if out is not None and out.suffix.lower() not in (".svg", ".dot"):
        raise RequestError(f"A graph is drawn as .svg or .dot, but {out} ends in neither. Name another file.")
    from paramserver.autodiff import svg
    from paramserver.job import CODE
    from paramserver.models import Model
    from paramserver.storage import write_text
    from paramserver.user_code import load_code
    from paramserver.workload import load_data, load_model

    own = None if code is None else load_code(code)
    if own is not None:
        model = CODE if own.defines("model") else model
        data_name = CODE if own.defines("data") else data_name
    train = load_data(data_name, data_dir, own).train
    built = load_model(model, train, own)
    if not isinstance(built, Model):
        raise RequestError(
            f"The model of {code} is an object with its own gradient, so it has no computation graph. "
            "Build it with paramserver.Network to see one."
        )
    title = f"{built.spec} on {train.name}"
    if out is None:
        typer.echo(f"{title}: {train.features} features, {train.classes or 'no'} classes\n")
        typer.echo(built.graph.text())
        return
    write_text(out, svg(built.graph, title) if out.suffix.lower() == ".svg" else built.graph.dot() + "\n")
    typer.echo(f"The graph is in {out}.")


@data.callback(invoke_without_command=True)
def _data(context: typer.Context) -> None:
    """List data sets, and fetch those that do not come with paramserver."""
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


@data.command("list")
def list_data() -> None:
    """List the data sets that --data can name: what each is, its licence, and whether it is here."""
    from paramserver.datasets.catalog import SOURCES, is_here

    rows = []
    for source in SOURCES.values():
        here = "here" if is_here(source) else f"not here: {source.origin}"
        size = f", {_megabytes(source.size)}" if source.size else ""
        rows.append((source.name, f"{source.line} (licence: {source.licence}{size}; {here})"))
    _print_rows("Data sets", rows)
    _print_rows(
        "Files",
        [
            ("FILE.npz", "arrays x and y, or x_train, y_train, x_test, y_test (and x_val, y_val)"),
            ("FILE.csv", "a header, then a sample a line; the labels are in the column 'label', or the last"),
        ],
    )


@data.command("get")
def get(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Of the data set.", show_default=False)],
    folder: Annotated[
        Path | None,
        typer.Option(
            "--data-dir",
            metavar="DIR",
            help="Where its files go. (default: the cache folder)",
            show_default=False,
        ),
    ] = None,
    quiet: Annotated[bool, typer.Option("--quiet", metavar="", help="Show no progress.")] = False,
) -> None:
    """Fetch a data set; what is there already is checked and kept, and what broke off goes on."""
    from paramserver.datasets.catalog import get_data

    if quiet:
        typer.echo(get_data(name, folder))
        return
    from paramserver.cli.fetching import shown_progress

    with shown_progress() as progress:
        sentence = get_data(name, folder, progress)
    typer.echo(sentence)


def _print_rows(title: str, rows: Iterable[tuple[str, str]]) -> None:
    """Print names and lines in two columns, as wide as the terminal."""
    rows = list(rows)
    first = max(len(name) for name, _ in rows) + 2
    width = max(shutil.get_terminal_size((80, 24)).columns, 40)
    typer.echo(f"{title}:")
    for name, line in rows:
        wrapped = textwrap.wrap(line, max(width - first - 2, 20))
        typer.echo(f"  {name.ljust(first)}{wrapped[0]}")
        for more in wrapped[1:]:
            typer.echo(" " * (first + 2) + more)
    typer.echo("")


def _megabytes(size: int) -> str:
    return f"{size / 1e6:.0f} MB"
