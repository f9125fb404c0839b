"""Checks of single fields, each with a sentence that names the field."""

from __future__ import annotations

import math

from paramserver.errors import RequestError
from paramserver.wire import paramserver_pb2 as pb

DTYPE_SERVED = "float32"


def whole(value: int, field: str, least: int = 0) -> int:
    """Return a whole number that is at least ``least``.

    Raises:
        RequestError: it is smaller.

    Example:
        >>> whole(3, "clock")
        3
    """
    if value < least:
        raise RequestError(f"The field '{field}' has to be at least {least}, and it is {value}.")
    return value


def finite(value: float, field: str, *, above_zero: bool = False) -> float:
    """Return a finite number that is not negative.

    Args:
        value: the number.
        field: its name, for the sentence.
        above_zero: refuse zero, too.

    Raises:
        RequestError: it is negative, NaN or infinite.
    """
    if not math.isfinite(value) or value < 0 or (above_zero and value == 0):
        bound = "above 0" if above_zero else "at least 0"
        raise RequestError(f"The field '{field}' has to be finite and {bound}, and it is {value}.")
    return value


def named(value: str, field: str) -> str:
    """Return a text that is not empty.

    Raises:
        RequestError: it is empty.
    """
    if not value:
        raise RequestError(f"The field '{field}' must not be empty.")
    return value


def encode_dtype(dtype: str) -> pb.DType.ValueType:
    """Return the message's number for a dtype's NumPy name.

    Raises:
        RequestError: the contract has no number for it.
    """
    name = f"DTYPE_{dtype.upper()}"
    if name not in list(pb.DType.keys()):
        raise RequestError(f"Tensors of dtype {dtype} cannot travel. Convert them to {DTYPE_SERVED}.")
    return pb.DType.Value(name)


def decode_dtype(number: int, key: str) -> str:
    """Return a dtype's NumPy name.

    Args:
        number: the message's number for it; numbers that this version does not know arrive, too.
        key: of the tensor, for the sentence.

    Raises:
        RequestError: it is not the one dtype that is served.
    """
    if number == pb.DTYPE_UNSPECIFIED:
        raise RequestError(f"Tensor '{key}' comes without a dtype. Say DTYPE_FLOAT32.")
    known = number in pb.DType.values()
    dtype = pb.DType.Name(pb.DType.ValueType(number)).removeprefix("DTYPE_").lower() if known else f"{number}"
    if dtype != DTYPE_SERVED:
        raise RequestError(
            f"Tensor '{key}' has to be {DTYPE_SERVED}, and it comes as {dtype}. Convert it before sending."
        )
    return dtype
