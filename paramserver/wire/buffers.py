"""Large arrays that are used again once nobody holds them.

A fresh array of 100 MB costs as much time as its bytes need to travel, because the system has to find and
clear every page of it. Gradients and weights come in the same few sizes all the time, so their memory is
kept.
"""

from __future__ import annotations

import sys
import threading
from math import prod

import numpy as np

from paramserver.types import Array

SMALL_ELEMENTS = 1 << 15
"""Arrays below 128 KiB come from memory that the allocator keeps anyway."""


class Buffers:
    """Hands out arrays, and hands their memory out again when all views of it are gone.

    Nobody has to give anything back: each array is a view of memory that this object owns, and Python counts
    the references to that owner, so memory that a reader, a snapshot or a waiting gradient still holds is
    never reused. It keeps as much as was ever in use at once. Any thread may call.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._owners: dict[int, list[Array]] = {}  # by elements; guarded by _lock

    def empty(self, shape: tuple[int, ...]) -> Array:
        """Return a float32 array in C order with any content."""
        elements = prod(shape)
        if elements < SMALL_ELEMENTS:
            return np.empty(shape, np.float32)
        with self._lock:
            owners = self._owners.setdefault(elements, [])
            for index in range(len(owners)):
                if _references(owners, index) == _IDLE_REFERENCES:
                    return owners[index].reshape(shape)
            owners.append(np.empty(elements, np.float32))
            return owners[-1].reshape(shape)

    def statistics(self) -> dict[str, int]:
        """Return how many bytes are kept, and how many of them nobody uses now."""
        with self._lock:
            kept = idle = 0
            for owners in self._owners.values():
                for index in range(len(owners)):
                    kept += owners[index].nbytes
                    if _references(owners, index) == _IDLE_REFERENCES:
                        idle += owners[index].nbytes
        return {"bytes": kept, "idle_bytes": idle}


def _references(owners: list[Array], index: int) -> int:
    return sys.getrefcount(owners[index])


_IDLE_REFERENCES = _references([np.empty(1, np.float32)], 0)
"""What the list itself and the question count; measured, because Python versions differ."""
