"""What a job needs of a model, whoever wrote it."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, Protocol

import numpy as np

from paramserver.data import Dataset
from paramserver.models.model import Task
from paramserver.rows import RowIndices, Values
from paramserver.types import AnyArray, Array, Shapes


class Trainable(Protocol):
    """A model as jobs, scores and predictions use it; ``Model`` says what each part means."""

    @property
    def spec(self) -> str:
        """The text or name of the model."""

    @property
    def features(self) -> int:
        """The width of an input row."""

    @property
    def classes(self) -> int:
        """The number of classes; 0 where labels are numbers."""

    @property
    def task(self) -> Task:
        """What is predicted."""

    @property
    def shapes(self) -> Shapes:
        """The shape of each tensor, in key order."""

    @property
    def tables(self) -> Collection[str]:
        """The keys of tensors that are only read row by row."""

    @property
    def uses_chance(self) -> bool:
        """Whether ``gradient`` needs a random generator."""

    def initial(self, seed: int) -> dict[str, Array]:
        """Draw the values that training begins with."""

    def rows(self, inputs: AnyArray) -> dict[str, RowIndices]:
        """Name the rows of each table that a batch reads."""

    def logits(self, values: Values, inputs: AnyArray) -> Array:
        """Compute the logits of some samples, or where labels are numbers the predictions."""

    def gradient(
        self, values: Values, inputs: AnyArray, labels: AnyArray, rng: np.random.Generator | None = None
    ) -> tuple[float, dict[str, Any]]:
        """Compute the mean loss of a batch and its gradient."""

    def check_data(self, data: Dataset) -> None:
        """Refuse a data set that this model cannot be trained or scored on."""

    def check_inputs(self, inputs: AnyArray) -> None:
        """Refuse inputs that this model cannot take."""

    def check_labels(self, labels: AnyArray, samples: int) -> None:
        """Refuse labels that this model cannot take."""
