"""Models of tables, of which only the touched rows travel, as a user trains them."""

import numpy as np
import pytest

from paramserver.datasets import load
from paramserver.errors import RequestError
from paramserver.storage import read_checkpoint

pytestmark = pytest.mark.slow

CLICKS = ("--data", "synthetic:clicks,n=3000,fields=4,values=2000", "--batch", "64", "--epochs", "2")
JOBS = {
    "logistic": (*CLICKS, "--model", "logistic"),
    "embedding": (*CLICKS, "--model", "embedding:8000,4,16:dropout=0.2", "--optimizer", "momentum"),
    "no table, but chance": ("--model", "mlp:64:dropout=0.3", "--epochs", "2"),
}

SKLEARN_AUC = 0.6492
"""Of scikit-learn's LogisticRegression with its defaults, on the same rows one-hot and the same split; a test
below computes it again where scikit-learn is installed."""


@pytest.mark.parametrize("job", JOBS)
def test_sync_gives_the_bytes_of_one_loop_for_tables_and_for_chance(launcher, job):
    hashes = set()
    for name, spread in (
        ("loop", ("--engine", "sequential")),
        ("1 x 4 on 1", ("--workers", "1", "--threads", "4", "--shards", "1")),
        ("2 x 2 on 3", ("--workers", "2", "--threads", "2", "--shards", "3")),
    ):
        launcher.out = launcher.folder / name
        code, _, err = launcher.run("--quiet", *JOBS[job], *spread)
        assert code == 0, err
        summary = launcher.summary()
        hashes.add(summary["weights_sha256"])
        assert summary["gradients"]["computed"] == summary["gradients"]["applied"] > 0
    assert len(hashes) == 1


@pytest.fixture(scope="module")
def flights():
    try:
        return load("flights")
    except RequestError as error:
        pytest.skip(str(error))


@pytest.mark.long
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("consistency", ["sync", "async"])
def test_flights_are_ranked_as_well_as_by_scikit_learn(launcher, flights, consistency):
    options = ("--data", "flights", "--model", "logistic", "--batch", "256", "--epochs", "1", "--lr", "0.01")
    code, out, err = launcher.run("--consistency", consistency, *options, deadline_seconds=600)
    assert code == 0, err
    summary = launcher.summary()
    print(f"{consistency}: test AUC {summary['auc']:.4f}, scikit-learn {SKLEARN_AUC}")
    assert abs(summary["auc"] - SKLEARN_AUC) <= 0.01
    assert f"{summary['auc']:.4f}" in out
    assert summary["samples"]["applied"] == len(flights.train)
    table = read_checkpoint(launcher.out / "checkpoint").weights["linear/weight"]
    assert table.shape == (1 << 18, 1)
    never_read = np.setdiff1d(np.arange(len(table)), flights.train.inputs)
    assert not table[never_read].any()


@pytest.mark.long
@pytest.mark.timeout(1200)
def test_what_scikit_learn_reaches_on_the_flights(flights):
    linear_model = pytest.importorskip("sklearn.linear_model")
    metrics = pytest.importorskip("sklearn.metrics")
    sparse = pytest.importorskip("scipy.sparse")

    def one_hot(data):
        places = np.repeat(np.arange(len(data)), data.features)
        ones = np.ones(data.inputs.size)
        return sparse.csr_matrix((ones, (places, data.inputs.reshape(-1))), (len(data), 1 << 18))

    model = linear_model.LogisticRegression()
    model.fit(one_hot(flights.train), flights.train.labels)
    scores = model.decision_function(one_hot(flights.test))
    assert metrics.roc_auc_score(flights.test.labels, scores) == pytest.approx(SKLEARN_AUC, abs=0.002)
