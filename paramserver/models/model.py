"""A model: a graph from inputs and labels to logits and loss, with the tensors that it learns."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

import numpy as np

from paramserver.autodiff import Evaluator, Graph
from paramserver.data import Dataset, generator
from paramserver.errors import RequestError
from paramserver.types import AnyArray, Array, Shapes, Tensors


@dataclass(frozen=True, eq=False)
class Model:
    """A classifier over flat float32 features; it never changes, and any number of threads may use it.

    Built by ``build_model``.

    Attributes:
        spec: the canonical text, such as ``mlp:256,128``.
        features: the width of an input row.
        classes: the number of classes; labels are ``0 .. classes - 1``.
        graph: from the leaves ``inputs`` ``(batch, features) float32`` and ``labels`` ``(batch,) int64`` and
            parameters named by their keys to ``logits`` ``(batch, classes)`` and ``loss`` ``()``.
        scales: for each key the standard deviation of its initial values; 0 for zeros.
        shapes: the shape of each tensor, in key order.
    """

    spec: str
    features: int
    classes: int
    graph: Graph = field(repr=False)
    scales: Mapping[str, float] = field(repr=False)
    shapes: Shapes = field(init=False)
    _logits: Evaluator = field(init=False, repr=False)
    _loss: Evaluator = field(init=False, repr=False)

    def __post_init__(self) -> None:
        # The dimensions of a parameter are counts: the builder has seen to that.
        shapes = {node.name: tuple(map(int, node.shape)) for node in self.graph.parameters}
        object.__setattr__(self, "shapes", MappingProxyType({key: shapes[key] for key in sorted(shapes)}))
        object.__setattr__(self, "_logits", Evaluator(self.graph, "logits"))
        object.__setattr__(self, "_loss", Evaluator(self.graph, "loss", self.shapes))

    def initial(self, seed: int) -> dict[str, Array]:
        """Draw the values that training begins with.

        Weights before a relu are normal with variance 2 / inputs (He et al., Delving Deep into Rectifiers,
        2015, section 2.2), other weights with variance 2 / (inputs + outputs) (Glorot and Bengio,
        Understanding the difficulty of training deep feedforward neural networks, 2010, section 4.2.1);
        biases are zero.

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
            if self.scales[key] == 0:
                values[key] = np.zeros(shape, np.float32)
                continue
            rng = generator(seed, "initial values", index)
            values[key] = rng.standard_normal(shape, dtype=np.float32)
            values[key] *= np.float32(self.scales[key])
        return values

    def logits(self, values: Tensors, inputs: Array) -> Array:
        """Compute the logits of some samples.

        Args:
            values: a float32 tensor for each key.
            inputs: ``(batch, features) float32``.

        Returns:
            ``(batch, classes) float32``.

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

    def gradient(self, values: Tensors, inputs: Array, labels: AnyArray) -> tuple[float, dict[str, Array]]:
        """Compute the mean loss of a batch and its gradient.

        Args:
            values: a float32 tensor for each key; only read.
            inputs: ``(batch, features) float32``.
            labels: ``(batch,) int64``, each in ``[0, classes)``.

        Returns:
            The cross-entropy in nats, averaged over the batch, and by key, in key order, its gradient: new
            C-contiguous float32 arrays. Weights that have grown too large give infinities or NaN, no error:
            whoever sends a gradient checks it.

        Raises:
            RequestError: as ``logits``, or the labels do not fit the model.
        """
        try:
            loss, gradients = self._loss.value_and_gradients({**values, "inputs": inputs, "labels": labels})
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

    def check_inputs(self, inputs: AnyArray) -> None:
        """Refuse inputs that this model cannot take.

        Args:
            inputs: anything that should be ``(batch, features) float32``.

        Raises:
            RequestError: wrong dtype or shape, or no sample; the message names the data and the model.
        """
        if not isinstance(inputs, np.ndarray) or inputs.dtype != np.float32:
            raise RequestError(
                f"The inputs are {_kind(inputs)}, but the model '{self.spec}' takes an array of float32. "
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

    def check_labels(self, labels: AnyArray, samples: int) -> None:
        """Refuse labels that this model cannot take.

        Args:
            labels: anything that should be ``(samples,) int64`` in ``[0, classes)``.
            samples: the number of input rows that the labels belong to.

        Raises:
            RequestError: wrong dtype or shape, or a label outside the classes.
        """
        if not isinstance(labels, np.ndarray) or labels.dtype != np.int64 or labels.shape != (samples,):
            raise RequestError(
                f"The labels are {_kind(labels)}, but for {samples} samples the model '{self.spec}' "
                f"takes ({samples},) int64. Give one whole number for each sample."
            )
        if samples and (labels.min() < 0 or labels.max() >= self.classes):
            outside = labels[(labels < 0) | (labels >= self.classes)][0]
            raise RequestError(
                f"The data has the label {outside}, but the model '{self.spec}' was built for "
                f"{self.classes} classes, 0 to {self.classes - 1}. Build it with more classes, "
                "or correct the labels."
            )


def _kind(data: object) -> str:
    return f"{data.shape} {data.dtype}" if isinstance(data, np.ndarray) else f"a {type(data).__name__}"
