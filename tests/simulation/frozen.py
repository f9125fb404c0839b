"""One value for all that an object holds, so that two states which behave alike are seen to be one."""

from __future__ import annotations

from collections import deque
from enum import Enum
from types import BuiltinFunctionType, FunctionType, GeneratorType, MethodType
from typing import Any

import numpy as np

from paramserver import events as ev

WRITE_ONLY = {
    ("ShardState", "pushes"),
    ("Parked", "since"),
    ("Tally", "_staleness"),
    ("Tally", "_clock_gap"),
    ("Tally", "_latest_staleness"),
    ("Tally", "_losses"),
}
"""Counts for people: nothing that they hold decides what happens next."""


_PLAIN = (int, str, bytes, ev.JobSpec, ev.Slice, ev.Replica, ev.Member, ev.Verdict)
"""What is its own frozen value."""


def freeze(value: Any, ordered: bool = True) -> Any:
    """Return a hashable value that is equal for equal contents.

    A generator is its local variables and where it stands.

    Args:
        value: anything that the core or its auditors hold.
        ordered: the order of a dictionary is part of it: a core that took things in the order in which they
            came would behave differently. Of an auditor it is not.
    """
    if value is None or isinstance(value, _PLAIN):
        return value
    if isinstance(value, float):
        return repr(value)
    if isinstance(value, dict):
        pairs = [(freeze(key, ordered), freeze(each, ordered)) for key, each in value.items()]
        return ("dict", *(pairs if ordered else sorted(pairs, key=repr)))
    if isinstance(value, list | tuple | deque):
        return ("list", *(freeze(each, ordered) for each in value))
    if isinstance(value, set | frozenset):
        return ("set", *sorted(map(freeze, value), key=repr))
    if isinstance(value, np.ndarray):
        return (value.dtype.str, value.shape, value.tobytes())
    if isinstance(value, Enum):
        return value.name
    if isinstance(value, GeneratorType):
        frame = value.gi_frame
        return None if frame is None else (frame.f_lasti, freeze(dict(frame.f_locals)))
    if isinstance(value, FunctionType | BuiltinFunctionType | MethodType | type):
        return value.__qualname__
    return _freeze_object(value, ordered and not type(value).__name__.endswith("Audit"))


def _freeze_object(value: Any, ordered: bool) -> Any:
    name = type(value).__name__
    fields = list(getattr(value, "__dict__", ()))
    for kind in type(value).__mro__:
        slots = kind.__dict__.get("__slots__", ())
        fields += [slots] if isinstance(slots, str) else slots
    skipped = getattr(type(value), "NOT_FROZEN", ())
    return (
        name,
        *(
            freeze(getattr(value, field), ordered)
            for field in fields
            if hasattr(value, field) and (name, field) not in WRITE_ONLY and field not in skipped
        ),
    )
