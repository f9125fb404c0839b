"""Train an unchanged PyTorch module through the servers: gradients out, weights in.

Needs PyTorch, which the extra ``paramserver[torch]`` installs. Example, of a whole replica::

    import torch
    from paramserver.torch import connect

    module = torch.nn.Sequential(torch.nn.Linear(64, 32), torch.nn.ReLU(), torch.nn.Linear(32, 10))
    with connect("127.0.0.1:7070", module, optimizer="adam", lr=0.005, replicas=2) as replica:
        for inputs, labels in batches_of(replica.rank):
            replica.pull()
            loss = torch.nn.functional.cross_entropy(module(inputs), labels)
            loss.backward()
            verdict = replica.push(samples=len(inputs))

What travels are the module's parameters that require a gradient, by their names in its ``state_dict``. All
else stays where it is:

* **Buffers**, such as the running mean and variance of batch normalisation, are statistics of what one
  replica has seen, no weights: each replica keeps its own, nothing overwrites them, and no checkpoint has
  them. To use weights in another module, let it see the training data once
  (``torch.optim.swa_utils.update_bn``).
* **Frozen parameters** (``requires_grad=False``) are neither sent nor checkpointed: load the same ones in
  every process.

Of an ``Embedding(..., sparse=True)`` only the rows that a batch has touched travel out, and the optimizer
touches these alone. The optimizer runs on the servers, so there is none here.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import TypedDict, Unpack

import numpy as np
import torch

from paramserver.client import ConnectedReplica
from paramserver.client import connect as connect_tensors
from paramserver.errors import Fault, RequestError
from paramserver.events import Slice, TensorSpec, Verdict
from paramserver.placement import rows_of
from paramserver.rows import RowGradient
from paramserver.storage import (
    MANIFEST,
    SliceValues,
    read_checkpoint,
    write_manifest,
    write_shard,
)
from paramserver.types import Array

__all__ = ["ModuleReplica", "connect", "load_checkpoint", "save_checkpoint", "state_dict"]


class Options(TypedDict, total=False):
    """The options of `paramserver.connect`, but for the weights, which are the module's."""

    name: str
    replicas: int
    consistency: str
    optimizer: str
    lr: float
    schedule: str
    steps: int
    model: str
    seed: int
    on_death: str
    lease_seconds: float
    step_timeout: float
    start_timeout: float
    token: str | None
    tls_ca: str | Path | None
    tls_cert: str | Path | None
    tls_key: str | Path | None


def connect(address: str, module: torch.nn.Module, **options: Unpack[Options]) -> ModuleReplica:
    """Join a job as one replica that trains a module.

    Blocks until the servers have answered. The weights of the first replica to join count; every other module
    needs parameters of the same names and shapes, with any values.

    Args:
        address: of the first server, ``HOST:PORT``.
        module: any module; what it is and how it is called stays as it is.
        options: those of `paramserver.connect`: ``replicas``, ``consistency``, ``optimizer``, ``lr``,
            ``schedule``, ``steps``, ``name`` and so on, but for ``weights``, which are the module's.

    Returns:
        The replica, for a ``with`` block.

    Raises:
        RequestError: a parameter cannot be trained here, an option is wrong, or the servers train another
            job.
        JobError: no server answered in time, or the job is over.
    """
    parameters = trained_parameters(module)
    weights = {name: _to_array(parameter) for name, parameter in parameters.items()}
    tables = sparse_tables(module) & parameters.keys()
    options.setdefault("model", f"torch:{type(module).__name__}")
    return ModuleReplica(connect_tensors(address, weights=weights, tables=tables, **options), parameters)


class ModuleReplica:
    """A replica whose weights are a module's parameters; ``connect`` makes it.

    Its ``with`` block ends as that of `paramserver.ConnectedReplica`.
    """

    def __init__(self, replica: ConnectedReplica, parameters: Mapping[str, torch.nn.Parameter]) -> None:
        self._replica = replica
        self._parameters = parameters

    @property
    def rank(self) -> int:
        """Return the number of this replica, from 0."""
        return self._replica.rank

    @property
    def clock(self) -> int:
        """Return its finished steps; above 0 at the beginning if it is a restart."""
        return self._replica.clock

    @property
    def versions(self) -> tuple[int, ...]:
        """Return the updates applied on each shard to the weights that were pulled last."""
        return self._replica.versions

    @property
    def verdict(self) -> Verdict | None:
        """Return what is known last of a push; in a synchronous mode the next pull brings it."""
        return self._replica.verdict

    def __enter__(self) -> ModuleReplica:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._replica.__exit__(kind, error, trace)

    def pull(self) -> None:
        """Read the weights into the module, and forget its gradients.

        Blocks while the consistency model makes this replica wait.

        Raises:
            FencedError: this replica counts no more.
            JobError: a server did not answer, or the job is over.
        """
        values = self._replica.pull()
        with torch.no_grad():
            for name, parameter in self._parameters.items():
                parameter.copy_(torch.from_numpy(values[name]))
                parameter.grad = None

    def push(self, samples: int, loss: float = math.nan) -> Verdict:
        """Send the module's gradients, as ``backward`` has left them; blocks until all shards have answered.

        A parameter that took no part in the loss has a gradient of zeros. Several calls of ``backward``
        before one push add up, as ever in PyTorch.

        Args:
            samples: how many samples the loss is the mean over, >= 1.
            loss: the mean loss, for those who watch the job.

        Returns:
            What became of it.

        Raises:
            FencedError: this replica counts no more.
            RequestError: no parameter has a gradient, or nothing was pulled since the last push.
            JobError: a server did not answer, or the job is over.
        """
        if all(parameter.grad is None for parameter in self._parameters.values()):
            raise RequestError(
                "No parameter of the module has a gradient. Call backward() on its loss before each push.",
                Fault.PRECONDITION,
            )
        gradients: dict[str, Array | RowGradient] = {
            name: np.zeros(parameter.shape, np.float32)
            if parameter.grad is None
            else _to_gradient(parameter.grad)
            for name, parameter in self._parameters.items()
        }
        return self._replica.push(gradients, samples, loss)

    def leave(self, failure: str = "") -> None:
        """End this replica's part; see `paramserver.ConnectedReplica.leave`."""
        self._replica.leave(failure)


def trained_parameters(module: torch.nn.Module) -> dict[str, torch.nn.Parameter]:
    """Return the parameters of a module that are trained, by name; a shared one once.

    Raises:
        RequestError: one is not float32 or has no shape yet, or there is none.
    """
    found = {name: each for name, each in module.named_parameters() if each.requires_grad}
    if not found:
        raise RequestError(
            f"The module {type(module).__name__} has no parameter that requires a gradient, so there is "
            "nothing to train."
        )
    for name, parameter in found.items():
        if isinstance(parameter, torch.nn.parameter.UninitializedParameter):
            raise RequestError(
                f"The parameter '{name}' has no shape yet. Call the module once on a batch before connecting."
            )
        if parameter.dtype != torch.float32:
            raise RequestError(
                f"The parameter '{name}' is {str(parameter.dtype).removeprefix('torch.')}, but only float32 "
                "is served. Convert the module with float(), or freeze the parameter."
            )
    return found


def sparse_tables(module: torch.nn.Module) -> set[str]:
    """Return the names of the tables whose gradients are sparse: of ``Embedding(..., sparse=True)``."""
    names = {id(each): name for name, each in module.named_parameters()}
    kinds = (torch.nn.Embedding, torch.nn.EmbeddingBag)
    return {names[id(each.weight)] for each in module.modules() if isinstance(each, kinds) and each.sparse}


def state_dict(source: str | Path) -> dict[str, torch.Tensor]:
    """Read the weights of a checkpoint, without running anything that is in it.

    Args:
        source: a run folder, or the ``checkpoint`` folder in it.

    Returns:
        New float32 tensors by name: what `torch.save` and `load_state_dict` take. Buffers are not among them,
        so a module that has some takes it with ``strict=False``.

    Raises:
        RequestError: there is no finished checkpoint, or it is not sound.
    """
    weights = read_checkpoint(_checkpoint_folder(Path(source))).weights
    return {name: torch.from_numpy(array) for name, array in weights.items()}


def load_checkpoint(source: str | Path, module: torch.nn.Module) -> None:
    """Copy the weights of a checkpoint into a module; all that the checkpoint does not have stays as it is.

    Args:
        source: a run folder, or the ``checkpoint`` folder in it.
        module: has the checkpoint's parameters, by name and shape, and no other ones that are not frozen.

    Raises:
        RequestError: the checkpoint is of another model, not finished, or not sound; the module is as it was.
    """
    values = state_dict(source)
    parameters = dict(module.named_parameters())
    wanted = {name for name, parameter in parameters.items() if parameter.requires_grad}
    for name in sorted(values.keys() | wanted):
        there = str(tuple(values[name].shape)) if name in values else "missing"
        here = str(tuple(parameters[name].shape)) if name in parameters else "missing"
        if there != here:
            raise RequestError(
                f"The checkpoint {source} is of another model: its '{name}' is {there}, that of the module "
                f"{type(module).__name__} is {here}."
            )
    with torch.no_grad():
        for name, value in values.items():
            parameters[name].copy_(value)


def save_checkpoint(folder: str | Path, module: torch.nn.Module) -> None:
    """Write the trained parameters of a module as a checkpoint, in the form that servers write.

    Args:
        folder: of the checkpoint; it is created where it does not exist.
        module: any module.

    Raises:
        RequestError: a parameter is not float32.
        JobError: the disk refuses.
    """
    weights = {name: _to_array(parameter) for name, parameter in trained_parameters(module).items()}
    slices = [
        SliceValues(Slice(name, 0, rows_of(array.shape), 0), array, {}) for name, array in weights.items()
    ]
    file = write_shard(Path(folder), 0, 1, slices, version=0, generation=0)
    specs = [TensorSpec(name, array.shape) for name, array in weights.items()]
    details = {"model": f"torch:{type(module).__name__}"}
    write_manifest(Path(folder), specs, [file], generation=0, optimizer="none", details=details)


def _to_array(tensor: torch.Tensor) -> Array:
    """View a tensor as an array; copies what is not in C order and on the CPU."""
    array: Array = tensor.detach().cpu().contiguous().numpy()
    return array


def _to_gradient(tensor: torch.Tensor) -> Array | RowGradient:
    """Turn a gradient into an array; one of some rows of a table stays one of some rows."""
    if not tensor.is_sparse:
        return _to_array(tensor)
    sums = tensor.detach().coalesce()
    return RowGradient(sums.indices()[0].cpu().numpy(), _to_array(sums.values()), tuple(tensor.shape))


def _checkpoint_folder(source: Path) -> Path:
    inner = source / "checkpoint"
    return inner if not (source / MANIFEST).exists() and inner.is_dir() else source
