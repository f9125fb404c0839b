"""A PyTorch module, unchanged, trained by two replicas through a parameter server.

    python examples/pytorch_digits.py

The server runs as a process of its own; the replicas are two threads here, and might as well be two machines.
Gradients go out, weights come in, and the optimizer runs on the server. The running statistics of batch
normalisation are no weights, so each replica keeps its own. Needs PyTorch: pip install 'paramserver[torch]'.
"""

import threading

import torch
from torch import nn
from torch.nn.functional import cross_entropy

from paramserver import Dataset, DistributedSampler, load, serve
from paramserver.torch import connect

REPLICAS, BATCH, EPOCHS = 2, 32, 20


def make_module() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(64, 64), nn.BatchNorm1d(64), nn.ReLU(), nn.Linear(64, 10))


def train(address: str, module: nn.Module, data: Dataset) -> None:
    steps = EPOCHS * (len(data) // (REPLICAS * BATCH))
    options = {"optimizer": "adam", "lr": 0.003, "schedule": "cosine", "steps": steps}
    with connect(address, module, replicas=REPLICAS, **options) as replica:
        sampler = DistributedSampler(data, REPLICAS, replica.rank)
        for epoch in range(EPOCHS):
            sampler.set_epoch(epoch)
            order = torch.tensor(list(sampler))
            for batch in order.split(BATCH)[: steps // EPOCHS]:
                inputs, labels = (torch.tensor(array) for array in data[batch.numpy()])
                replica.pull()
                loss = cross_entropy(module(inputs), labels)
                loss.backward()
                replica.push(samples=len(batch), loss=loss.item())
        replica.pull()  # the weights after the last step


def accuracy(module: nn.Module, data: Dataset) -> float:
    module.eval()
    with torch.no_grad():
        predicted = module(torch.tensor(data.inputs)).argmax(1)
    return (predicted == torch.tensor(data.labels)).float().mean().item()


def main() -> None:
    torch.set_num_threads(1)  # two small replicas share this machine
    data = load("digits")
    modules = [make_module() for _ in range(REPLICAS)]
    with serve(shards=2) as address:
        threads = [threading.Thread(target=train, args=(address, each, data.train)) for each in modules]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    print(f"test accuracy {accuracy(modules[0], data.test):.4f} on {len(data.test)} samples")


if __name__ == "__main__":
    main()
