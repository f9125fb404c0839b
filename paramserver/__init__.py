"""A parameter server you can trust, measure and read.

What is listed in ``__all__`` is the public API, described in docs/api.md; all else may change. Each name is
loaded when it is first asked for, so that ``import paramserver`` costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from paramserver.client import ConnectedReplica, FencedError, Observer, connect, observe
    from paramserver.data import Dataset, DistributedSampler
    from paramserver.datasets import Splits, load
    from paramserver.errors import JobError, RequestError
    from paramserver.events import Outcome, Verdict
    from paramserver.models import Model, Network, Score, build_model, score
    from paramserver.own_server import serve
    from paramserver.rows import RowGradient, RowValues
    from paramserver.storage import Checkpoint, read_checkpoint

__version__ = "0.1.0"

__all__ = [
    "Checkpoint",
    "ConnectedReplica",
    "Dataset",
    "DistributedSampler",
    "FencedError",
    "JobError",
    "Model",
    "Network",
    "Observer",
    "Outcome",
    "RequestError",
    "RowGradient",
    "RowValues",
    "Score",
    "Splits",
    "Verdict",
    "build_model",
    "connect",
    "load",
    "observe",
    "read_checkpoint",
    "score",
    "serve",
]

_MODULES = {
    "paramserver.client": ("ConnectedReplica", "FencedError", "Observer", "connect", "observe"),
    "paramserver.data": ("Dataset", "DistributedSampler"),
    "paramserver.datasets": ("Splits", "load"),
    "paramserver.errors": ("JobError", "RequestError"),
    "paramserver.events": ("Outcome", "Verdict"),
    "paramserver.models": ("Model", "Network", "Score", "build_model", "score"),
    "paramserver.own_server": ("serve",),
    "paramserver.rows": ("RowGradient", "RowValues"),
    "paramserver.storage": ("Checkpoint", "read_checkpoint"),
}
_HOMES = {name: module for module, names in _MODULES.items() for name in names}


def __getattr__(name: str) -> Any:
    """Load a public name when it is first asked for (PEP 562)."""
    if name not in _HOMES:
        raise AttributeError(f"module 'paramserver' has no attribute '{name}'")
    value = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """List what the module has and what it would load."""
    return sorted({*globals(), *__all__})
