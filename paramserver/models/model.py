"""A model: a graph from inputs and labels to logits and loss, with the tensors that it learns."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Final, Literal

import numpy as np

from paramserver.autodiff import Evaluator, Graph, Node
from paramserver.data import Dataset, generator
from paramserver.errors import RequestError
from paramserver.models.layers import Initial
from paramserver.rows import RowIndices, Values
from paramserver.types import AnyArray, Array, Shapes

Task = Literal["classification", "binary", "regression"]

_TASKS: Final[dict[str, Task]] = {
    "softmax_cross_entropy": "classification",
    "binary_cross_entropy": "binary",
    "squared_error": "regression",
}


@dataclass(frozen=True, eq=False)
class Model:
    """A model over flat features; it never changes, and any number of threads may use it.

    Built by ``build_model``. What it predicts is its task, which is that of its loss:

    * ``classification``: one of ``classes``; logits ``(batch, classes)``, labels int64;
    * ``binary``: 1 or 0; logits ``(batch,)`` whose sigmoid is the probability of 1, labels int64;
    * ``regression``: a number; logits ``(batch,)`` are the predictions, labels float32.

    Attributes:
        spec: the canonical text, such as ``mlp:256,128``.
        features: the width of an input row.
        classes: the number of classes; labels are ``0 .. classes - 1``. 0 in a regression.
        graph: from the leaves ``inputs`` ``(batch, features)``, float32 or row indices int64, ``labels``
            ``(batch,)``, chance for dropout, and parameters named by their keys, to ``logits`` and ``loss``,
            which is ``()``.
        initials: for each key what its values begin with.
        shapes: the shape of each tensor, in key order.
        tables: the keys of tensors that are only read row by row, by the row indices in ``inputs``; their
            gradients are ``RowGradient``.
    """

    spec: str
    features: int
    classes: int
    graph: Graph = field(repr=False)
    initials: Mapping[str, Initial] = field(repr=False)
    shapes: Shapes = field(init=False)
    tables: frozenset[str] = field(init=False)
    _logits: Evaluator = field(init=False, repr=False)
    _loss: Evaluator = field(init=False, repr=False)
    _chances: tuple[Node, ...] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        # The dimensions of a parameter are counts: the builder has seen to that.
        shapes = {node.name: tuple(map(int, node.shape)) for node in self.graph.parameters}
        object.__setattr__(self, "shapes", MappingProxyType({key: shapes[key] for key in sorted(shapes)}))
        # Dropout is noise for training, so there is none in a prediction.
        object.__setattr__(self, "_logits", Evaluator(self.graph.bypassing("dropout"), "logits"))
        object.__setattr__(self, "_loss", Evaluator(self.graph, "loss", self.shapes))
        chances = tuple(node for node in self.graph.inputs if node.name not in ("inputs", "labels"))
        object.__setattr__(self, "_chances", chances)
        object.__setattr__(self, "tables", frozenset(self.graph.tables))

    @property
    def task(self) -> Task:
        """What the model predicts."""
        return _TASKS[self.graph["loss"].op]

    @property
    def uses_chance(self) -> bool:
        """Whether ``gradient`` needs a random generator."""
        return bool(self._chances)

    def initial(self, seed: int) -> dict[str, Array]:
        """Draw the values that training begins with.

        Args:
            seed: of the job, 0 or more.

        Returns:
            New float32 arrays by key, in key order: the same bytes for the same seed. Each key has a stream
            of its own, so the values of one do not depend on how many are drawn for another.

        Raises:
            RequestError: the seed is negative.
        """
        if seed < 0:
            raise RequestError(f"A seed is a whole number from 0 up, found {seed}. Choose another.")
        values: dict[str, Array] = {}
        for index, (key, shape) in enumerate(self.shapes.items()):
            mean, deviation = self.initials[key]
            values[key] = np.full(shape, mean, np.float32)
            if deviation:
                rng = generator(seed, "initial values", index)
                values[key] += rng.standard_normal(shape, dtype=np.float32) * np.float32(deviation)
        return values

    def rows(self, inputs: AnyArray) -> dict[str, RowIndices]:
        """Name the rows of each table that a batch reads, so that only these need to be fetched.

        Args:
            inputs: ``(batch, features) int64``, each in ``[0, rows)``.

        Returns:
            By key, in key order, ``(n,) int64``, ascending, each once; empty for a model without tables.

        Raises:
            RequestError: the inputs do not fit the model.
        """
        if not self.tables:
            return {}
        self.check_inputs(inputs)
        touched = np.unique(inputs)
        return dict.fromkeys(sorted(self.tables), touched)

    def logits(self, values: Values, inputs: AnyArray) -> Array:
        """Compute the logits of some samples: of a regression, the predictions.

        Args:
            values: a float32 tensor for each key; of a table, ``RowValues`` with the rows of these inputs
                suffice.
            inputs: ``(batch, features)``, float32 or for a model of tables int64.

        Returns:
            ``(batch, classes) float32``, or ``(batch,)`` where the task is not classification. Nothing is
            dropped.

        Raises:
            RequestError: the inputs do not fit the model, or a tensor is missing, unknown or of a wrong shape
                or dtype.
        """
        try:
            return self._logits.value({**values, "inputs": inputs})
        except RequestError:
            # The graph has looked at every feed. If the data is to blame, say so in the data's own words.
            self.check_inputs(inputs)
            raise

    def gradient(
        self, values: Values, inputs: AnyArray, labels: AnyArray, rng: np.random.Generator | None = None
    ) -> tuple[float, dict[str, Any]]:
        """Compute the mean loss of a batch and its gradient.

        Args:
            values: a float32 tensor for each key, only read; of a table, ``RowValues`` with the rows of this
                batch suffice.
            inputs: ``(batch, features)``, float32 or for a model of tables int64.
            labels: ``(batch,)``, int64 in ``[0, classes)`` or in a regression float32.
            rng: where dropout takes its chance from; a model without dropout draws nothing. Make a new one
                for each step, as in ``generator(seed, "dropout", rank, step)``: then a step that is repeated
                drops the same values.

        Returns:
            The loss, averaged over the batch: cross-entropy in nats, or the squared error. And by key, in key
            order, its gradient: new C-contiguous float32 arrays, for tables ``RowGradient``. Weights that
            have grown too large give infinities or NaN, no error: whoever sends a gradient checks it.

        Raises:
            RequestError: as ``logits``, or the labels do not fit the model, or the generator is missing.
        """
        feeds = {**values, "inputs": inputs, "labels": labels}
        if self._chances:
            if rng is None:
                raise RequestError(
                    f"The model '{self.spec}' leaves out values by chance, but no generator was given. "
                    "Make one for each step from seed, rank and step."
                )
            self.check_inputs(inputs)
            for node in self._chances:
                shape = (len(inputs), *map(int, node.shape[1:]))
                feeds[node.name] = rng.random(shape, dtype=np.float32)
        try:
            loss, gradients = self._loss.value_and_gradients(feeds)
        except RequestError:
            self.check_inputs(inputs)
            self.check_labels(labels, samples=len(inputs))
            raise
        return float(loss), gradients

    def check_data(self, data: Dataset) -> None:
        """Refuse a data set that this model cannot be trained or scored on.

        Raises:
            RequestError: its features differ from the model's, or it has more classes.
        """
        if data.features != self.features or data.classes > self.classes:
            raise RequestError(
                f"The data set '{data.name}' has {data.features} features and {data.classes} classes, "
                f"but the model '{self.spec}' was built for {self.features} features and "
                f"{self.classes} classes. Build the model for this data set, or choose another data set."
            )
        self.check_inputs(data.inputs)
        self.check_labels(data.labels, samples=len(data))

    def check_inputs(self, inputs: AnyArray) -> None:
        """Refuse inputs that this model cannot take.

        Args:
            inputs: anything that should be ``(batch, features)``, float32 or row indices int64.

        Raises:
            RequestError: wrong dtype or shape, no sample, or a row that the model does not have; the message
                names the data and the model.
        """
        dtype = self.graph["inputs"].dtype
        if not isinstance(inputs, np.ndarray) or inputs.dtype != dtype:
            what = "categories as row indices, an array of int64" if self.tables else "an array of float32"
            raise RequestError(
                f"The inputs are {_kind(inputs)}, but the model '{self.spec}' takes {what}. "
                "Convert them first."
            )
        if inputs.ndim != 2 or inputs.shape[1] != self.features:
            found = f"{inputs.shape[1]} features" if inputs.ndim == 2 else f"inputs of shape {inputs.shape}"
            raise RequestError(
                f"The data has {found}, but the model '{self.spec}' takes (batch, {self.features}), "
                f"rows of {self.features} features. Build the model for this data, or reshape the data."
            )
        if len(inputs) == 0:
            raise RequestError(f"There are no samples to give to the model '{self.spec}'. Give at least one.")
        for key in self.tables:
            rows = self.shapes[key][0]
            if inputs.min() < 0 or inputs.max() >= rows:
                outside = inputs[(inputs < 0) | (inputs >= rows)][0]
                raise RequestError(
                    f"The data has the row index {outside}, but the model '{self.spec}' has the rows 0 to "
                    f"{rows - 1}. Give the model more rows, or hash the categories into fewer."
                )

    def check_labels(self, labels: AnyArray, samples: int) -> None:
        """Refuse labels that this model cannot take.

        Args:
            labels: anything that should be ``(samples,)``, int64 in ``[0, classes)`` or in a regression
                float32.
            samples: the number of input rows that the labels belong to.

        Raises:
            RequestError: wrong dtype or shape, or a label outside the classes.
        """
        dtype = self.graph["labels"].dtype
        what = "whole number" if self.classes else "number"
        if not isinstance(labels, np.ndarray) or labels.dtype != dtype or labels.shape != (samples,):
            raise RequestError(
                f"The labels are {_kind(labels)}, but for {samples} samples the model '{self.spec}' "
                f"takes ({samples},) {dtype}. Give one {what} for each sample."
            )
        if samples and self.classes and (labels.min() < 0 or labels.max() >= self.classes):
            outside = labels[(labels < 0) | (labels >= self.classes)][0]
            raise RequestError(
                f"The data has the label {outside}, but the model '{self.spec}' was built for "
                f"{self.classes} classes, 0 to {self.classes - 1}. Build it with more classes, "
                "or correct the labels."
            )


def _kind(data: object) -> str:
    return f"{data.shape} {data.dtype}" if isinstance(data, np.ndarray) else f"a {type(data).__name__}"
