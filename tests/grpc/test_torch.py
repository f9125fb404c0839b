"""An unchanged PyTorch module against a real server."""

from __future__ import annotations

import importlib
import inspect
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from raw import SECONDS, ServerProcess
from threads import in_threads

import paramserver
from paramserver.errors import Fault, RequestError
from paramserver.events import Outcome

torch: Any = pytest.importorskip(
    "torch", reason="PyTorch is not installed; pip install 'paramserver[torch]' brings it."
)

adapter: Any = importlib.import_module("paramserver.torch")

CLASSES, FEATURES = 3, 6


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ServerProcess]:
    with ServerProcess("--shards", "3", "--out", str(tmp_path / "run")) as process:
        yield process


def make_module(seed: int = 0) -> Any:
    torch.manual_seed(seed)
    return torch.nn.Sequential(
        torch.nn.Linear(FEATURES, 8), torch.nn.Tanh(), torch.nn.Linear(8, 5), torch.nn.Linear(5, CLASSES)
    )


def make_batch(step: int, size: int = 12) -> tuple[Any, Any]:
    rng = np.random.default_rng([step, 7])
    inputs = torch.tensor(rng.standard_normal((size, FEATURES)), dtype=torch.float32)
    return inputs, torch.tensor(rng.integers(CLASSES, size=size))


def backward(module: Any, inputs: Any, labels: Any) -> None:
    torch.nn.functional.cross_entropy(module(inputs), labels).backward()


def test_the_options_are_those_of_connect() -> None:
    expected = set(inspect.signature(paramserver.connect).parameters) - {"address", "weights", "tables"}
    assert set(adapter.Options.__annotations__) == expected


@pytest.mark.parametrize(
    ("optimizer", "theirs"),
    [
        ("sgd", {}),
        ("momentum:0.8", {"momentum": 0.8}),
        ("nesterov:0.8", {"momentum": 0.8, "nesterov": True}),
    ],
)
def test_50_synchronous_steps_equal_those_of_torchs_own_sgd(
    server: ServerProcess, optimizer: str, theirs: dict[str, Any]
) -> None:
    """Two replicas with unequal halves of each batch against one loop with all of it."""
    steps, lr, cut = 50, 0.2, 5
    modules = [make_module(), make_module(seed=1)]  # the first one's weights count

    def loop(module: Any, half: slice, name: str) -> None:
        with adapter.connect(
            server.address, module, name=name, replicas=2, optimizer=optimizer, lr=lr
        ) as replica:
            if name == "first":
                joined.set()
            for step in range(steps):
                replica.pull()
                inputs, labels = make_batch(step)
                backward(module, inputs[half], labels[half])
                assert replica.push(samples=len(labels[half])).outcome is Outcome.BUFFERED
            replica.pull()
            assert replica.verdict is not None
            assert (replica.verdict.outcome, replica.versions) == (Outcome.APPLIED, (steps,) * 3)

    joined = threading.Event()
    in_threads(
        lambda: loop(modules[0], slice(0, cut), "first"),
        lambda: joined.wait(SECONDS) and loop(modules[1], slice(cut, None), "second"),
    )
    reference = make_module()
    sgd = torch.optim.SGD(reference.parameters(), lr=lr, **theirs)
    for step in range(steps):
        sgd.zero_grad()
        backward(reference, *make_batch(step))
        sgd.step()
    before = dict(make_module().named_parameters())
    for name, expected in reference.named_parameters():
        assert (expected - before[name]).abs().max() > 0.01, "it has learnt something"
        for module in modules:
            found = dict(module.named_parameters())[name]
            assert (found - expected).abs().max() <= 1e-5
    assert server.wait() == 0


class WithBuffers(torch.nn.Module):
    """Batch normalisation, a frozen and a shared layer, a scalar, and a layer without a part in the loss."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first = torch.nn.Linear(FEATURES, FEATURES)
        self.norm = torch.nn.BatchNorm1d(FEATURES)
        self.frozen = torch.nn.Linear(FEATURES, FEATURES).requires_grad_(False)
        self.shared = self.first
        self.scale = torch.nn.Parameter(torch.tensor(2.0))
        self.unused = torch.nn.Linear(2, 2)
        self.last = torch.nn.Linear(FEATURES, CLASSES)

    def forward(self, inputs: Any) -> Any:
        return self.last(self.scale * self.frozen(self.shared(self.norm(self.first(inputs)))))


TRAINED = {
    "first.weight", "first.bias", "norm.weight", "norm.bias", "scale", "unused.weight", "unused.bias",
    "last.weight", "last.bias",
}  # fmt: skip


def test_buffers_and_frozen_parameters_stay_where_they_are(server: ServerProcess, tmp_path: Path) -> None:
    modules = [WithBuffers(), WithBuffers()]
    with torch.no_grad():
        modules[1].frozen.weight.fill_(0.5)
    frozen = [module.frozen.weight.clone() for module in modules]
    seen: list[list[Any]] = [[], []]

    def loop(index: int) -> None:
        module = modules[index]
        with adapter.connect(server.address, module, replicas=2, lr=0.1) as replica:
            for step in range(4):
                replica.pull()
                inputs, labels = make_batch(10 * index + step)
                seen[index].append(module.first(inputs).detach())
                backward(module, inputs, labels)
                replica.push(samples=len(labels))
            replica.pull()

    in_threads(lambda: loop(0), lambda: loop(1))
    assert server.wait() == 0
    for index, module in enumerate(modules):
        expected = torch.zeros(FEATURES)
        for batch in seen[index]:
            expected = 0.9 * expected + 0.1 * batch.mean(0)
        torch.testing.assert_close(module.norm.running_mean, expected)
        assert module.norm.num_batches_tracked == 4
        assert torch.equal(module.frozen.weight, frozen[index])
    assert not torch.equal(modules[0].norm.running_mean, modules[1].norm.running_mean)
    for name in TRAINED:
        ours, others = (dict(module.named_parameters())[name] for module in modules)
        assert torch.equal(ours, others)
    assert torch.equal(modules[0].unused.weight, WithBuffers().unused.weight), "its gradient was zero"
    assert not torch.equal(modules[0].scale, WithBuffers().scale)
    assert adapter.state_dict(tmp_path / "run").keys() == TRAINED


def test_a_state_dict_goes_through_a_run_and_back(server: ServerProcess, tmp_path: Path) -> None:
    before = make_module(seed=3)
    torch.save(before.state_dict(), tmp_path / "before.pt")
    module = make_module(seed=4)
    module.load_state_dict(torch.load(tmp_path / "before.pt", weights_only=True))
    with adapter.connect(server.address, module, lr=0.1, consistency="async") as replica:
        replica.pull()
        for name, parameter in before.named_parameters():
            assert torch.equal(dict(module.named_parameters())[name], parameter)
        backward(module, *make_batch(0))
        replica.push(samples=12)
        replica.pull()
    assert server.wait() == 0
    for source in (tmp_path / "run", tmp_path / "run" / "checkpoint"):
        after = make_module(seed=5)
        after.load_state_dict(adapter.state_dict(source))
        torch.save(after.state_dict(), tmp_path / "after.pt")
        again = torch.load(tmp_path / "after.pt", weights_only=True)
        assert again.keys() == module.state_dict().keys()
        for name, tensor in module.state_dict().items():
            assert torch.equal(again[name], tensor)


def test_a_checkpoint_of_a_module_round_trips_and_leaves_the_rest_alone(tmp_path: Path) -> None:
    module, other = WithBuffers(), WithBuffers()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(1)
    module.norm.running_mean.fill_(3)
    adapter.save_checkpoint(tmp_path / "kept", module)
    adapter.load_checkpoint(tmp_path / "kept", other.requires_grad_(False))
    for name, parameter in other.named_parameters():
        mine = dict(module.named_parameters())[name]
        assert torch.equal(parameter, mine) == (name in TRAINED)
    assert (other.norm.running_mean == 0).all()
    weights = paramserver.read_checkpoint(tmp_path / "kept").weights
    np.testing.assert_array_equal(weights["scale"], np.float32(3))


@pytest.mark.parametrize(
    ("other", "sentence"),
    [
        (lambda: torch.nn.Linear(FEATURES, 2), r"its 'bias' is \(3,\), that of the module Linear is \(2,\)"),
        (lambda: torch.nn.Linear(FEATURES, 3, bias=False), "its 'bias' is .*, that .* is missing"),
        (lambda: torch.nn.Bilinear(FEATURES, 1, 3), r"its 'weight' is \(3, 6\), .* is \(3, 6, 1\)"),
        (lambda: torch.nn.Sequential(torch.nn.Linear(FEATURES, 3)), r"its '0.bias' is missing"),
    ],
)
def test_a_checkpoint_of_another_model_is_refused_and_changes_nothing(
    tmp_path: Path, other: Callable[[], Any], sentence: str
) -> None:
    adapter.save_checkpoint(tmp_path, torch.nn.Linear(FEATURES, 3))
    module = other()
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    with pytest.raises(RequestError, match=f"is of another model: {sentence}"):
        adapter.load_checkpoint(tmp_path, module)
    for name, tensor in module.state_dict().items():
        assert torch.equal(tensor, before[name])


def test_what_is_no_checkpoint_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="is no finished checkpoint"):
        adapter.state_dict(tmp_path)


def test_a_table_may_have_sparse_gradients_and_memory_any_order(server: ServerProcess) -> None:
    module = torch.nn.Sequential(torch.nn.Embedding(5, 2, sparse=True), torch.nn.Linear(2, 3))
    module[1].weight = torch.nn.Parameter(torch.arange(6.0).reshape(2, 3).T)
    assert not module[1].weight.is_contiguous()
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    with adapter.connect(server.address, module, lr=1.0) as replica:
        replica.pull()
        table = module[0](torch.tensor([3, 1, 3]))
        (table.sum() + module[1].weight.sum()).backward()
        assert module[0].weight.grad.is_sparse
        assert [spec.key for spec in replica._replica._client.job.tensors if spec.table] == ["0.weight"]
        replica.push(samples=1)
        replica.pull()
    after = module.state_dict()
    expected = before["0.weight"].clone()
    expected[1] -= 1
    expected[3] -= 2
    assert torch.equal(after["0.weight"], expected)
    assert torch.equal(after["1.weight"], before["1.weight"] - 1)
    assert torch.equal(after["1.bias"], before["1.bias"])


def test_gradients_of_several_calls_of_backward_add_up_and_a_pull_forgets_them(server: ServerProcess) -> None:
    module = torch.nn.Linear(1, 1, bias=False)
    with adapter.connect(server.address, module, lr=1.0, consistency="async") as replica:
        replica.pull()
        start = module.weight.item()
        for _ in range(2):
            module(torch.ones(1, 1)).sum().backward()
        replica.push(samples=2)
        replica.pull()
        assert module.weight.item() == pytest.approx(start - 2)
        assert module.weight.grad is None
        with pytest.raises(RequestError, match=r"Call backward\(\) on its loss") as refused:
            replica.push(samples=1)
        assert refused.value.fault is Fault.PRECONDITION


@pytest.mark.parametrize(
    ("module", "sentence"),
    [
        (lambda: torch.nn.Linear(2, 2).double(), "The parameter 'weight' is float64, but only float32"),
        (lambda: torch.nn.Linear(2, 2).to(torch.bfloat16), "The parameter 'weight' is bfloat16"),
        (lambda: torch.nn.LazyLinear(2), "The parameter 'weight' has no shape yet"),
        (lambda: torch.nn.Linear(2, 2).requires_grad_(False), "has no parameter that requires a gradient"),
        (lambda: torch.nn.ReLU(), "The module ReLU has no parameter"),
    ],
)
def test_what_cannot_be_trained_is_refused_by_name(module: Callable[[], Any], sentence: str) -> None:
    with pytest.raises(RequestError, match=sentence):
        adapter.connect("127.0.0.1:1", module(), start_timeout=0.1)
