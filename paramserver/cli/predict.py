"""The command ``predict``: a trained model, some data, and what the one says of the other."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from paramserver.cli.keys import AsJson, Keys, TlsCa, TlsCert, TlsKey, TokenFile
from paramserver.errors import RequestError


def predict(
    source: Annotated[
        Path | None,
        typer.Argument(
            metavar="[RUN|CHECKPOINT]",
            help="The folder of a finished run, or of a checkpoint.",
            show_default=False,
        ),
    ] = None,
    data: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="What to predict: all samples of FILE.csv, or the test part of a data set or FILE.npz. "
            "(default: the data of the run)",
            show_default=False,
        ),
    ] = None,
    data_dir: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Folder in which data files are looked for. (default: the usual places)",
            show_default=False,
        ),
    ] = None,
    connect: Annotated[
        str | None,
        typer.Option(
            metavar="HOST:PORT",
            help="The first server of a running job, in place of a folder: predict from its live weights.",
            show_default=False,
        ),
    ] = None,
    threads: Annotated[
        int, typer.Option(metavar="N", help="Threads that share the model. (default: 1)", show_default=False)
    ] = 1,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE.csv",
            help="Where classes and probabilities go. (default: nowhere)",
            show_default=False,
        ),
    ] = None,
    code: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE.py", help="Your own file, if the model or the data is in it.", show_default=False
        ),
    ] = None,
    as_json: AsJson = False,
    token_file: TokenFile = None,
    tls_ca: TlsCa = None,
    tls_cert: TlsCert = None,
    tls_key: TlsKey = None,
) -> int:
    """Predict with a trained model; with labels, say how right it is and what it confuses.

    The CSV has a line for each sample: its number, its label if there is one, the predicted class, the
    probability of that, and the probability of each class.
    """
    if (source is None) == (connect is None):
        given = "both were given" if source is not None else "neither was given"
        raise RequestError(
            f"Predicting takes the folder of a run or checkpoint, or --connect HOST:PORT, but {given}."
        )
    from paramserver.launch.programs import blas_environment

    # Set while numpy is not imported yet: threads of ours, each with a core, and none of the library's.
    os.environ.update(blas_environment(1))
    from paramserver.cli.predicting import predict_and_show

    keys = Keys(token_file, tls_ca, tls_cert, tls_key)
    return predict_and_show(source, connect, keys, data, data_dir, threads, out, code, as_json)
