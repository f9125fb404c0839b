"""Build a model of your own from layers, on the same graph as the models that have a name."""

from __future__ import annotations

from collections import Counter
from types import MappingProxyType
from typing import Any

from paramserver.autodiff import GraphBuilder, Node
from paramserver.errors import RequestError
from paramserver.models.layers import TABLE_DEVIATION, Activation, Initial, Layers
from paramserver.models.model import Model


class Network:
    """Collect layers, then give the model. Every shape is checked on the way.

    Layers are named in order, ``dense1``, ``dense2``, ``conv1``; their weights ``dense1/weight`` and so on.

    Args:
        features: the width of an input row.
        classes: the number of classes, or 0 to predict a number.
        rows: rows of the table that inputs point into; 0 where inputs are numbers.

    Attributes:
        inputs: the node of the inputs, ``(batch, features)``.

    Example:
        >>> net = Network(features=2, classes=3)
        >>> hidden = net.dense(net.inputs, 16, "tanh")
        >>> model = net.model(net.dense(hidden, 3))
        >>> list(model.shapes)
        ['dense1/bias', 'dense1/weight', 'dense2/bias', 'dense2/weight']
    """

    def __init__(self, features: int, classes: int = 0, rows: int = 0) -> None:
        if features < 1 or classes < 0 or classes == 1 or rows < 0:
            raise RequestError(
                f"A network takes at least 1 feature, and 2 classes or 0 for a number; found {features} and "
                f"{classes}."
            )
        self._features, self._classes, self._rows = features, classes, rows
        self._layers = Layers(GraphBuilder())
        self._numbers: Counter[str] = Counter()
        self.inputs = self._layers.build.input("inputs", ("batch", features), "int64" if rows else "float32")

    def dense(self, values: Node, outputs: int, activation: Activation | None = None) -> Node:
        """Add ``values @ weight + bias``, and after it ``relu``, ``tanh`` or ``sigmoid`` if one is named.

        Args:
            values: a node ``(batch, width)``.
            outputs: the width of the result.
            activation: what follows.

        Raises:
            RequestError: the node has another form.
        """
        layer = self._name("dense")
        return self._activated(layer, self._layers.dense(layer, values, outputs, activation), activation)

    def conv(self, images: Node, filters: int, size: int = 3, activation: Activation = "relu") -> Node:
        """Add a convolution that keeps height and width (for an odd size), a bias, and an activation.

        Args:
            images: a node ``(batch, height, width, channels)``, as ``apply("reshape", ...)`` makes it.
            filters: channels of the result.
            size: height and width of a filter, in pixels.
            activation: what follows.
        """
        if len(images.shape) != 4:
            raise RequestError(
                f"A convolution takes (batch, height, width, channels), but '{images.name}' is "
                f"{images.type_text}. Reshape it first: net.apply('reshape', x, shape=(28, 28, 1))."
            )
        layer = self._name("conv")
        sums = self._layers.conv(layer, images, filters, size, (size - 1) // 2, activation)
        return self._activated(layer, sums, activation)

    def embedding(self, width: int) -> Node:
        """Add a table with a vector for each row, and look the inputs up in it.

        Args:
            width: numbers in a vector.

        Returns:
            A node ``(batch, features, width)``.

        Raises:
            RequestError: the network was not given the rows of its table.
        """
        if not self._rows:
            raise RequestError("An embedding looks rows up. Say how many there are: Network(..., rows=1000).")
        layer = self._name("embedding")
        table = self.parameter(f"{layer}/weight", (self._rows, width), deviation=TABLE_DEVIATION)
        return self._layers.build.apply("gather", table, self.inputs, name=f"{layer}/gather")

    def dropout(self, values: Node, rate: float) -> Node:
        """Leave a share of the values out in each training step, and none in a prediction."""
        return self._layers.dropout(self._name("dropout"), values, rate)

    def norm(self, values: Node) -> Node:
        """Add layer normalisation with a gain and an offset."""
        return self._layers.norm(self._name("norm"), values)

    def parameter(self, key: str, shape: tuple[int, ...], mean: float = 0, deviation: float = 0) -> Node:
        """Add a tensor that is learnt; it begins with normal values.

        Args:
            key: its name.
            shape: its shape.
            mean: of the first values.
            deviation: their standard deviation.
        """
        return self._layers.parameter(key, shape, Initial(mean, deviation))

    def apply(self, op: str, *inputs: Node, **attributes: Any) -> Node:
        """Apply any operation of the computation graph, such as ``max_pool`` with ``size=2``.

        Raises:
            RequestError: there is no such operation, or the shapes do not fit.
        """
        return self._layers.build.apply(op, *inputs, name=self._name(op), **attributes)

    def model(self, outputs: Node) -> Model:
        """Finish: add the loss that fits the outputs.

        Args:
            outputs: a node ``(batch, classes)``, for softmax cross-entropy; for two classes also
                ``(batch, 1)`` or ``(batch,)``, for binary cross-entropy; for numbers either of these two, for
                squared error.

        Raises:
            RequestError: the outputs have another form.
        """
        build, classes = self._layers.build, self._classes
        one = outputs.shape[1:] in ((), (1,))
        wide = classes and outputs.shape[1:] == (classes,)
        if not wide and not (one and classes in (0, 2)):
            expected = f"(batch, {classes})" if classes else "(batch, 1)"
            raise RequestError(
                f"The last layer should be {expected}, but '{outputs.name}' is {outputs.type_text}."
            )
        logits = build.apply("reshape", outputs, name="logits", shape=(classes,) if wide else ())
        labels = build.input("labels", ("batch",), "int64" if classes else "float32")
        one_value = "binary_cross_entropy" if classes else "squared_error"
        build.apply("softmax_cross_entropy" if wide else one_value, logits, labels, name="loss")
        initials = MappingProxyType(dict(self._layers.initials))
        return Model("network", self._features, classes, build.graph(), initials)

    def _activated(self, layer: str, values: Node, activation: Activation | None) -> Node:
        if activation is None:
            return values
        return self._layers.build.apply(activation, values, name=f"{layer}/{activation}")

    def _name(self, kind: str) -> str:
        self._numbers[kind] += 1
        return f"{kind}{self._numbers[kind]}"
