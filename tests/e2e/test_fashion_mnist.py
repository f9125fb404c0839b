"""Real images: one epoch in one mode for every day; every mode, and a cnn, in the long suite."""

import statistics

import pytest

from paramserver.datasets import load
from paramserver.errors import RequestError

JOB = ("--data", "fashion-mnist", "--model", "mlp:256,128", "--batch", "32", "--lr", "0.001")


@pytest.fixture(scope="module", autouse=True)
def fashion_mnist():
    try:
        load("fashion-mnist")
    except RequestError as error:
        pytest.skip(str(error))


@pytest.mark.slow
def test_one_epoch(launcher):
    code, _, err = launcher.run(*JOB, "--epochs", "1", "--consistency", "async")
    assert code == 0, err
    summary = launcher.summary()
    assert summary["accuracy"] >= 0.82
    assert summary["samples"]["computed"] == summary["samples"]["applied"] == 54_000


@pytest.mark.long
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("consistency", ["sync", "async", "ssp:2"])
def test_five_epochs_reach_86_percent(launcher, consistency):
    accuracies = []
    for seed in range(3):
        launcher.out = launcher.folder / f"seed-{seed}"
        options = (*JOB, "--epochs", "5", "--consistency", consistency, "--seed", str(seed))
        code, _, err = launcher.run(*options, deadline_seconds=600)
        assert code == 0, err
        summary = launcher.summary()
        assert summary["samples"]["computed"] == summary["samples"]["applied"] == 270_000
        accuracies.append(summary["accuracy"])
    print(f"{consistency}: test accuracy {accuracies}, median {statistics.median(accuracies):.4f}")
    assert statistics.median(accuracies) >= 0.86


@pytest.mark.long
@pytest.mark.timeout(900)
@pytest.mark.parametrize("consistency", ["sync", "async"])
def test_a_convolutional_network_reaches_88_percent(launcher, consistency):
    job = ("--data", "fashion-mnist", "--model", "cnn", "--epochs", "3", "--lr", "0.005")
    code, _, err = launcher.run(*job, "--consistency", consistency, deadline_seconds=800)
    assert code == 0, err
    print(f"cnn, {consistency}: test accuracy {launcher.summary()['accuracy']}")
    assert launcher.summary()["accuracy"] >= 0.88
