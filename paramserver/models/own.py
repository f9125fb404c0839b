"""A model that a user wrote, held to what it promises.

It is any object with these parts, in plain NumPy or in whatever else:

    initial(seed)                       the first weights by key, float32 arrays
    gradient(values, inputs, labels)    (mean loss of the batch, its gradient by key)
    logits(values, inputs)              (batch, classes), or (batch,) for two classes or for numbers

What it gives is checked at every call, so that a wrong shape ends in a sentence and not in a wrong result.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, Final

import numpy as np

from paramserver.data import Dataset
from paramserver.errors import RequestError
from paramserver.models.model import Task
from paramserver.rows import RowIndices, Values
from paramserver.types import AnyArray, Array, Shapes

PARTS: Final = ("initial", "gradient", "logits")
"""The methods that a model of one's own has."""

TRIAL_SAMPLES: Final = 8
"""So many samples go through a new model once, before anything is started."""

Guard = Callable[[str, Callable[..., Any]], Callable[..., Any]]
"""Takes the name of a part and the part; returns a function whose errors name the user's own line."""


class OwnModel:
    """A user's model, as a job uses it.

    Args:
        subject: the user's object.
        spec: what it is called.
        data: the training set that it is to fit; some of its samples go through the model once.
        guard: put around each of the user's functions.

    Attributes:
        spec: what it is called.
        features: the width of an input row.
        classes: the number of classes; 0 where labels are numbers.
        task: what is predicted: for two classes, one logit for each sample makes it ``binary``.
        shapes: the shape of each tensor, in key order.

    Raises:
        RequestError: a part is missing, or what it gives does not fit; the sentence says which.
    """

    tables: frozenset[str] = frozenset()
    uses_chance = False

    def __init__(self, subject: object, spec: str, data: Dataset, guard: Guard) -> None:
        missing = [part for part in PARTS if not callable(getattr(subject, part, None))]
        if missing:
            raise RequestError(
                f"The model of '{spec}' is a {type(subject).__name__} without '{missing[0]}': a model has "
                f"the methods initial(seed), gradient(values, inputs, labels) and logits(values, inputs)."
            )
        self.spec, self.features, self.classes = spec, data.features, data.classes
        self._initial, self._gradient, self._logits = (guard(part, getattr(subject, part)) for part in PARTS)
        self.shapes: Shapes = _shapes(spec, self._initial(0))
        self.task: Task = "classification" if data.classes else "regression"
        self._try(data)

    def initial(self, seed: int) -> dict[str, Array]:
        """Return the values that training begins with, as the user's object gives them.

        Raises:
            RequestError: they differ in keys or shapes from those of another seed, or raise.
        """
        return self._checked("initial", self._initial(seed))

    def rows(self, inputs: AnyArray) -> dict[str, RowIndices]:
        """Return nothing: a model of one's own has no tables that are read row by row."""
        return {}

    def logits(self, values: Values, inputs: AnyArray) -> Array:
        """Return the logits of some samples.

        Raises:
            RequestError: they have the wrong shape, or the user's function raises.
        """
        return self._checked_logits(self._logits(_read_only(values), inputs), len(inputs))

    def gradient(
        self, values: Values, inputs: AnyArray, labels: AnyArray, rng: np.random.Generator | None = None
    ) -> tuple[float, dict[str, Any]]:
        """Return the mean loss of a batch and its gradient by key, float32.

        Raises:
            RequestError: what the user's function gives has the wrong keys or shapes, or it raises.
        """
        found = self._gradient(_read_only(values), inputs, labels)
        if not isinstance(found, tuple) or len(found) != 2 or not isinstance(found[1], Mapping):
            raise RequestError(
                f"gradient of '{self.spec}' should give (loss, gradients by key), but it gives "
                f"{_kind(found)}."
            )
        try:
            loss = float(found[0])
        except (TypeError, ValueError):
            raise RequestError(
                f"gradient of '{self.spec}' should give the loss as a number, but it gives {_kind(found[0])}."
            ) from None
        return loss, self._checked("gradient", found[1])

    def check_data(self, data: Dataset) -> None:
        """Refuse a data set that is not like the one the model was made for.

        Raises:
            RequestError: it has other features or more classes.
        """
        if data.features != self.features or data.classes > self.classes:
            raise RequestError(
                f"The data set '{data.name}' has {data.features} features and {data.classes} classes, but "
                f"the model '{self.spec}' was made for {self.features} features and {self.classes} classes."
            )

    def check_inputs(self, inputs: AnyArray) -> None:
        """Refuse inputs of another width.

        Raises:
            RequestError: they are not (samples, features), or there are none.
        """
        if inputs.ndim != 2 or inputs.shape[1] != self.features or not len(inputs):
            raise RequestError(
                f"The model '{self.spec}' takes (samples, {self.features}), but the inputs are "
                f"{inputs.shape}."
            )

    def check_labels(self, labels: AnyArray, samples: int) -> None:
        """Refuse labels that do not belong to the samples, or are no class.

        Raises:
            RequestError: there are more or fewer than samples, or one is outside the classes.
        """
        if labels.shape != (samples,):
            raise RequestError(f"{samples} samples have labels of shape {labels.shape}. Give one for each.")
        if self.classes and samples and (labels.min() < 0 or labels.max() >= self.classes):
            outside = labels[(labels < 0) | (labels >= self.classes)][0]
            raise RequestError(
                f"The data has the label {outside}, but the model '{self.spec}' was made for {self.classes} "
                f"classes, 0 to {self.classes - 1}."
            )

    def _try(self, data: Dataset) -> None:
        """Send some samples through every part once."""
        inputs, labels = data[:TRIAL_SAMPLES]
        values = self.initial(0)
        logits = np.asarray(self._logits(_read_only(values), inputs))
        if self.classes == 2 and logits.ndim == 1:
            self.task = "binary"
        self._checked_logits(logits, len(inputs))
        self.gradient(values, inputs, labels)

    def _checked_logits(self, found: Any, samples: int) -> Array:
        expected = (samples, self.classes) if self.task == "classification" else (samples,)
        logits = np.asarray(found)
        if logits.shape != expected or logits.dtype.kind not in "fiu":
            raise RequestError(
                f"logits of '{self.spec}' should give {expected} for {samples} samples, but they are "
                f"{_kind(logits)}."
            )
        return logits.astype(np.float32, copy=False)

    def _checked(self, part: str, found: Any) -> dict[str, Array]:
        """Return arrays by key in key order, float32, of the model's shapes."""
        if not isinstance(found, Mapping) or found.keys() != self.shapes.keys():
            keys = ", ".join(map(str, found)) if isinstance(found, Mapping) else _kind(found)
            raise RequestError(
                f"{part} of '{self.spec}' should give arrays by the keys {', '.join(self.shapes)}, but it "
                f"gives {keys or 'none'}."
            )
        arrays = {}
        for key, shape in self.shapes.items():
            array = np.asarray(found[key])
            if array.shape != shape or array.dtype.kind not in "fiu":
                raise RequestError(
                    f"{part} of '{self.spec}' should give '{key}' as {shape}, but it gives {_kind(array)}."
                )
            # A value too large for float32 becomes infinite, which whoever sends it refuses by name.
            with np.errstate(over="ignore"):
                arrays[key] = np.ascontiguousarray(array, np.float32).reshape(shape)
        return arrays


def _shapes(spec: str, initial: Any) -> Shapes:
    """Take the shapes of the tensors from their first values."""
    if not isinstance(initial, Mapping) or not initial:
        raise RequestError(
            f"initial of '{spec}' should give arrays by key, such as {{'weight': ...}}, but it gives "
            f"{_kind(initial)}."
        )
    shapes = {}
    for key in initial:
        if not isinstance(key, str) or not key:
            raise RequestError(f"initial of '{spec}' has the key {key!r}, but keys are texts.")
    for key in sorted(initial):
        array = np.asarray(initial[key])
        if array.size == 0 or array.dtype.kind not in "fiu":
            raise RequestError(f"initial of '{spec}' should give numbers for '{key}', not {_kind(array)}.")
        shapes[key] = array.shape
    return MappingProxyType(shapes)


def _read_only(values: Values) -> dict[str, Any]:
    """Give views that cannot be written to: the weights belong to the server, and others may read them."""
    views = {}
    for key, value in values.items():
        if isinstance(value, np.ndarray):
            value = value.view()
            value.flags.writeable = False
        views[key] = value
    return views


def _kind(found: object) -> str:
    return f"{found.shape} {found.dtype}" if isinstance(found, np.ndarray) else f"a {type(found).__name__}"
