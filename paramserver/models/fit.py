"""Which model for which data: building one for a data set, and knowing one by its tensors."""

from __future__ import annotations

import re

from paramserver.data import Dataset
from paramserver.errors import RequestError
from paramserver.models.kinds import KINDS, build_model
from paramserver.models.model import Model
from paramserver.types import Shapes

_DENSE_BIAS = re.compile(r"dense([0-9]+)/bias")


def build_for(text: str, data: Dataset) -> Model:
    """Build the model that a text names for a data set.

    Args:
        text: such as ``mlp:128``, or ``logistic``, which on categories has as many rows as the data.
        data: what it is to be trained on.

    Raises:
        RequestError: the text names no model, or one that takes or predicts something else; the sentence
            names models that fit.

    Example:
        >>> import numpy as np
        >>> points = Dataset(np.float32([[0, 1], [1, 0]]), np.array([0, 1]), "points")
        >>> build_for("mlp:8", points).shapes["dense1/weight"]
        (2, 8)
    """
    model = build_model(text, data.features, data.classes, data.rows)
    if data.rows and not model.tables:
        raise RequestError(
            f"The model '{model.spec}' takes numbers, but a sample of '{data.name}' is {data.features} "
            f"categories, as rows of a table of {data.rows}. Choose "
            + ("" if data.task == "regression" else f"logistic:{data.rows} or ")
            + f"embedding:{data.rows},8,32."
        )
    if model.tables and not data.rows:
        raise RequestError(
            f"The model '{model.spec}' takes categories as rows of a table, but a sample of '{data.name}' is "
            f"{data.features} numbers. Choose mlp:128{'' if data.classes == 0 else ' or softmax'}."
        )
    model.check_data(data)
    return model


def predicts_a_number(text: str) -> bool:
    """Say whether a model's text names one that predicts a number and nothing else."""
    kind = KINDS.get("".join(text.split()).lower().partition(":")[0])
    return kind is not None and kind.predicts == "a number"


def classes_of(text: str, shapes: Shapes) -> int:
    """Find how many classes a trained model knows, from its text and its tensors.

    Args:
        text: of the model.
        shapes: of its tensors, by key.

    Returns:
        The number of classes; 0 where it predicts a number.

    Raises:
        RequestError: the text names no model, or its tensors are not such a model's.

    Example:
        >>> classes_of("softmax", {"dense1/bias": (10,), "dense1/weight": (64, 10)})
        10
    """
    name = text.partition(":")[0]
    if name not in KINDS:
        raise RequestError(f"The model '{text}' is not one of {', '.join(KINDS)}.")
    if KINDS[name].predicts in ("a number", "two classes"):
        return 0 if KINDS[name].predicts == "a number" else 2
    found = [(int(match[1]), key) for key in shapes if (match := _DENSE_BIAS.fullmatch(key))]
    if not found:
        raise RequestError(f"The tensors {', '.join(shapes)} are not those of a model '{text}'.")
    (width,) = shapes[max(found)[1]]
    return 0 if width == 1 else width
