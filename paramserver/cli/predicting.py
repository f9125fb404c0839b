"""One prediction as a person at a terminal sees it; imported only once it is wanted."""

from __future__ import annotations

import csv
import io
import shutil
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import nullcontext, redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np

from paramserver.cli.keys import Keys
from paramserver.client import Connection
from paramserver.client.own_loop import check_address
from paramserver.datasets.samples import Samples, read_samples
from paramserver.errors import Failure, JobError, RequestError
from paramserver.job import CODE
from paramserver.launch.confusion import confusion_counts, confusion_lines
from paramserver.models import Score
from paramserver.prediction import Prediction, Trained, fit_model, predict, read_trained
from paramserver.storage import json_text, replacing
from paramserver.user_code import UserCode, load_code
from paramserver.workload import load_data

JOIN_SECONDS = 10.0
"""How long a job's servers may take to answer, and to have first weights."""

ROWS_AT_ONCE = 10_000
"""Lines of the CSV that are in memory at once."""


def predict_and_show(
    source: Path | None,
    connect: str | None,
    keys: Keys,
    data: str | None,
    data_dir: Path | None,
    threads: int,
    out: Path | None,
    code: Path | None,
    as_json: bool,
) -> int:
    """Predict, write the CSV, and print what there is to say.

    Args:
        source: a run folder or a checkpoint; None for a running job.
        connect: address of that job's first server; None for no running job.
        keys: files that open the servers' doors.
        data: what to predict; None for the data of the run.
        data_dir: where data files are looked for.
        threads: that share the model.
        out: the CSV; None for none.
        code: the user's file.
        as_json: print JSON.

    Returns:
        The exit code, 0.

    Raises:
        RequestError: the input is wrong.
        JobError: the servers do not answer, or the disk refuses.
    """
    with redirect_stdout(sys.stderr) if as_json else nullcontext():  # for what a user's code prints
        if out is not None and out.suffix.lower() != ".csv":
            raise RequestError(
                f"The predictions are written as CSV. Name a file such as {out.with_suffix('.csv')}."
            )
        trained = read_trained(source) if source is not None else _live(connect or "", keys)
        own = None if code is None else load_code(code, trained.job.code_sha256 if trained.job else "")
        samples = _samples(trained, data, data_dir, own)
        model = fit_model(trained, samples, own)
        began = time.perf_counter()
        prediction = predict(model, trained.weights, samples.inputs, threads)
        seconds = time.perf_counter() - began
        names = trained.class_names or samples.class_names
        score = None if samples.labels is None else prediction.score(samples.labels)
        if out is not None:
            _write(out, prediction, samples, names)
    speed = len(samples.inputs) / seconds
    if as_json:
        print(json_text(_summary(trained, prediction, samples, names, score, speed, threads), indent=2))
        return 0
    for line in _report(trained, prediction, samples, names, score, speed, threads):
        print(line)
    if out is not None:
        print(f"The predictions are in {out}.")
    elif score is None:
        print("To keep the predictions, give --out FILE.csv.")
    return 0


def _live(address: str, keys: Keys) -> Trained:
    """Read the newest weights of a running job, as an observer."""
    check_address(address)
    with Connection(address, access=keys.access()) as connection:
        observer = connection.observe("predict", JOIN_SECONDS)
        deadline = time.monotonic() + JOIN_SECONDS
        while True:
            try:
                pulled = observer.pull()
                break
            except JobError as error:  # the job may have no weights yet
                if error.failure is not Failure.UNAVAILABLE or time.monotonic() > deadline:
                    raise
            connection.pause(0.1)
    weights = {key: np.asarray(value) for key, value in pulled.values.items()}
    return Trained(f"the job at {address}", observer.job.model, weights, max(pulled.versions))


def _samples(trained: Trained, data: str | None, data_dir: Path | None, own: UserCode | None) -> Samples:
    if data is None:
        if trained.job is None:
            raise RequestError(
                f"Which data is to be predicted? {trained.origin} does not say. Name it with --data."
            )
        data = trained.job.data
        data_dir = data_dir or (Path(trained.job.data_dir) if trained.job.data_dir else None)
    if data == CODE:
        if own is None:
            raise RequestError("The data of this run is in a Python file of your own. Name it with --code.")
        test = load_data(CODE, "", own).test
        return Samples(test.inputs, test.labels, test.name, test.class_names)
    classes = max(trained.known_classes(), 0)
    return read_samples(data, data_dir, trained.fits, classes, trained.class_names, trained.features)


def _report(
    trained: Trained,
    prediction: Prediction,
    samples: Samples,
    names: Sequence[str],
    score: Score | None,
    speed: float,
    threads: int,
) -> Iterator[str]:
    workers = "1 thread" if threads == 1 else f"{threads} threads"
    yield f"Model        {trained.model} of {trained.origin}, version {trained.version:,}"
    yield f"Data         {samples.name}, {len(samples.inputs):,} samples"
    yield f"Speed        {speed:,.0f} samples/s with {workers}"
    if score is not None:
        regression = prediction.task == "regression"
        yield f"{'R2' if regression else 'Accuracy':<12} {score.accuracy:.4f}"
        yield f"{'Mean sq. err.' if regression else 'Loss':<12} {score.loss:.4f}"
        if score.auc is not None:
            yield f"AUC          {score.auc:.4f}"
    if prediction.task == "regression":
        return
    yield ""
    classes = prediction.probabilities.shape[1]
    if score is None or samples.labels is None:
        yield "Predicted classes"
        for number, count in enumerate(np.bincount(prediction.classes, minlength=classes).tolist()):
            if count:
                yield f"  {count:>8,}  {names[number] if names else number}"
        return
    width = max(shutil.get_terminal_size((80, 24)).columns, 40)
    yield from confusion_lines(confusion_counts(samples.labels, prediction.classes, classes), names, width)


def _summary(
    trained: Trained,
    prediction: Prediction,
    samples: Samples,
    names: Sequence[str],
    score: Score | None,
    speed: float,
    threads: int,
) -> dict[str, Any]:
    summary: dict[str, Any] = {
        "model": trained.model,
        "version": trained.version,
        "data": samples.name,
        "samples": len(samples.inputs),
        "task": prediction.task,
        "class_names": names,
        "threads": threads,
        "samples_per_second": speed,
        "accuracy": score.accuracy if score else None,
        "loss": score.loss if score else None,
        "auc": score.auc if score else None,
    }
    if prediction.task != "regression" and samples.labels is not None:
        classes = prediction.probabilities.shape[1]
        summary["confusion"] = confusion_counts(samples.labels, prediction.classes, classes)
    return summary


def _write(out: Path, prediction: Prediction, samples: Samples, names: Sequence[str]) -> None:
    """Write the CSV whole or not at all, some rows at a time."""
    labels = samples.labels
    columns = ["sample", *(["label"] if labels is not None else []), "predicted"]
    if prediction.task == "regression":
        shown, chances = prediction.logits, None
    else:
        shown, chances = prediction.classes, prediction.probabilities
        told = names or [str(number) for number in range(chances.shape[1])]
        columns += ["probability", *(f"p_{name}" for name in told)]

    def word(value: Any) -> Any:
        return names[int(value)] if names and chances is not None else value.item()

    with replacing(out) as file:
        for begin in range(0, len(shown), ROWS_AT_ONCE):
            text = io.StringIO()
            writer = csv.writer(text, lineterminator="\n")
            if begin == 0:
                writer.writerow(columns)
            for row in range(begin, min(begin + ROWS_AT_ONCE, len(shown))):
                cells = [row, *([word(labels[row])] if labels is not None else []), word(shown[row])]
                if chances is not None:
                    # Seven digits tell any two probabilities of float32 apart that differ by a millionth.
                    cells += [f"{chances[row].max():.7g}", *(f"{chance:.7g}" for chance in chances[row])]
                writer.writerow(cells)
            file.write(text.getvalue().encode())
