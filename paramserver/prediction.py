"""Use a trained model: find it, fit it to samples, and let threads share it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from paramserver.data import Dataset
from paramserver.datasets.samples import Samples
from paramserver.errors import Fault, RequestError
from paramserver.job import CODE, Job
from paramserver.job_toml import job_from_toml
from paramserver.models import Score, Trainable, build_model, classes_of, probabilities, score_logits
from paramserver.models.scoring import BATCH
from paramserver.storage import MANIFEST, read_checkpoint
from paramserver.types import AnyArray, Array, Shapes, Tensors
from paramserver.user_code import UserCode
from paramserver.workload import load_model

CODE_PREFIX = "code:"
THREADS_MAX = 256


@dataclass(frozen=True, eq=False)
class Trained:
    """Trained weights, and what is known of the model that they belong to.

    Attributes:
        origin: where they come from, for people.
        model: the text of the model.
        weights: by key.
        version: updates applied to them; of several shards the largest.
        features: that the model was trained on; 0 where that is not known.
        classes: that it was trained on; -1 where that is not known.
        class_names: what they are called; empty where they are just numbers, or it is not known.
        job: that trained them; None where it is not known.
    """

    origin: str
    model: str
    weights: Tensors
    version: int
    features: int = 0
    classes: int = -1
    class_names: tuple[str, ...] = ()
    job: Job | None = None

    @property
    def shapes(self) -> Shapes:
        """The shapes of the tensors, in key order."""
        return {key: self.weights[key].shape for key in sorted(self.weights)}

    @property
    def needs_code(self) -> bool:
        """Say whether the model is in a Python file of the user's."""
        return self.model.startswith(CODE_PREFIX)

    def known_classes(self) -> int:
        """Return how many classes there are; 0 for numbers, -1 where that cannot be known."""
        if self.classes >= 0 or self.needs_code:
            return self.classes
        return classes_of(self.model, self.shapes)

    def fits(self, features: int) -> bool:
        """Say whether the model takes samples of so many features, as far as that is known."""
        if self.features or self.needs_code:
            return features == self.features or not self.features
        try:
            found = build_model(self.model, features, self.known_classes()).shapes
        except RequestError:
            return False
        return dict(found) == self.shapes


def read_trained(path: Path) -> Trained:
    """Read a run folder or a checkpoint.

    Args:
        path: a run folder, or the checkpoint's own folder in it or anywhere else.

    Raises:
        RequestError: there is none, or it is not sound.
    """
    folder = path / "checkpoint"
    run = path
    if (path / MANIFEST).exists():
        folder, run = path, path.absolute().parent
    elif not folder.is_dir():
        what = "has no checkpoint: its run did not come to an end" if path.is_dir() else "does not exist"
        raise RequestError(
            f"{path} {what}. Name the folder of a run that has finished, or of a checkpoint.", Fault.UNKNOWN
        )
    checkpoint = read_checkpoint(folder)
    text = checkpoint.manifest.details.get("model")
    if not isinstance(text, str) or not text:
        raise RequestError(f"The manifest in {folder} does not say which model its weights belong to.")
    summary = _summary_of(run, checkpoint.manifest.weights_sha256)
    if summary.get("task") == "problem":
        raise RequestError(f"{path} trained the problem {text}, which predicts nothing. Name a model's run.")
    return Trained(
        origin=str(path),
        model=text,
        weights=checkpoint.weights,
        version=max(checkpoint.versions),
        features=summary.get("features", 0),
        classes=summary.get("classes", -1),
        class_names=tuple(summary.get("class_names", ())),
        job=_job_of(run) if summary else None,
    )


def fit_model(trained: Trained, samples: Samples, code: UserCode | None = None) -> Trainable:
    """Build the model of trained weights for samples.

    Args:
        trained: the weights.
        samples: what is to be predicted.
        code: the user's file, for a model of its own.

    Raises:
        RequestError: the samples do not fit, the weights are of another model, or the user's file is needed.
    """
    features, classes = samples.inputs.shape[1], trained.known_classes()
    if trained.needs_code:
        model = _own_model(trained, samples, classes, code)
    else:
        model = build_model(trained.model, features, classes)
    if dict(model.shapes) != trained.shapes:
        raise RequestError(
            f"The weights in {trained.origin} are of another model than '{model.spec}' with {features} "
            f"features: {_difference(trained.shapes, model.shapes)}.",
            Fault.PRECONDITION,
        )
    model.check_inputs(samples.inputs)
    if samples.labels is not None and classes:
        model.check_labels(samples.labels, len(samples.inputs))
    return model


@dataclass(frozen=True, eq=False)
class Prediction:
    """What a model says of samples.

    Attributes:
        task: what is predicted.
        logits: (samples, classes) float32, or (samples,) where the task is not classification.
    """

    task: str
    logits: Array

    @property
    def classes(self) -> AnyArray:
        """The most likely class of each sample, (samples,) int64."""
        found: AnyArray = self.logits > 0 if self.task == "binary" else self.logits.argmax(axis=1)
        return found.astype(np.int64)

    @property
    def probabilities(self) -> Array:
        """The probability of each class, (samples, classes) float32."""
        return probabilities(self.logits)

    def score(self, labels: AnyArray) -> Score:
        """Compare with labels, (samples,)."""
        numbers = labels.astype(np.float32) if self.task == "regression" else labels
        return score_logits(self.task, self.logits, numbers)  # type: ignore[arg-type]


def predict(model: Trainable, weights: Tensors, inputs: AnyArray, threads: int = 1) -> Prediction:
    """Predict samples with threads that share one model.

    Samples go through the model in the same batches whatever the number of threads, so the result has the
    same bytes. Linear algebra lets go of the interpreter's lock, so threads run side by side on cores.

    Args:
        model: fits the weights.
        weights: by key; only read.
        inputs: (samples, features), at least one.
        threads: how many, at least 1.

    Raises:
        RequestError: the inputs do not fit the model, or the threads are too few or too many.
    """
    if not 1 <= threads <= THREADS_MAX:
        raise RequestError(f"Threads are from 1 to {THREADS_MAX}, but got {threads}.")
    starts = range(0, len(inputs), BATCH)

    def logits_of(start: int) -> Array:
        return model.logits(weights, inputs[start : start + BATCH])

    with ThreadPoolExecutor(threads) as pool:
        return Prediction(model.task, np.concatenate(list(pool.map(logits_of, starts))))


def _own_model(trained: Trained, samples: Samples, classes: int, code: UserCode | None) -> Trainable:
    if code is None or not code.defines("model"):
        raise RequestError(
            f"The weights in {trained.origin} are of a model of your own, "
            f"{trained.model.removeprefix(CODE_PREFIX)}. Name that file with --code; it must define 'model'.",
            Fault.PRECONDITION,
        )
    labels = samples.labels
    if classes < 0:
        if labels is None:
            raise RequestError(
                f"How many classes the model in {trained.origin} has cannot be told without labels. Give the "
                "run folder instead, which says it."
            )
        classes = 0 if labels.dtype.kind == "f" else int(labels.max()) + 1
    if labels is None:
        labels = np.zeros(len(samples.inputs), np.int64 if classes else np.float32)
    task = "classification" if classes else "regression"
    data = Dataset(samples.inputs, labels, samples.name, classes, task)
    return load_model(CODE, data, code)


def _summary_of(run: Path, weights_sha256: str) -> dict[str, Any]:
    """Return what a run's summary says; nothing where it is not that of these weights."""
    try:
        summary = json.loads((run / "summary.json").read_text())
    except (OSError, ValueError):
        return {}
    if not isinstance(summary, Mapping) or summary.get("weights_sha256") != weights_sha256:
        return {}
    return dict(summary)


def _job_of(run: Path) -> Job | None:
    try:
        return job_from_toml((run / "job.toml").read_text(encoding="utf-8"), str(run / "job.toml"))
    except (OSError, UnicodeDecodeError, RequestError):
        return None


def _difference(found: Shapes, expected: Shapes) -> str:
    for key in sorted({*found, *expected}):
        if found.get(key) != expected.get(key):
            there, wanted = found.get(key, "missing"), expected.get(key, "unknown to the model")
            return f"'{key}' is {there} there, and {wanted} in the model"
    return ""
