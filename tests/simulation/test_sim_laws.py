"""Known laws of distributed training, through the real shard; all of it is in `paramserver.repro`."""

import json
from pathlib import Path

import pytest

from paramserver.repro import (
    CLAIMS,
    Band,
    Case,
    Check,
    Claim,
    Figure,
    Quantity,
    as_mapping,
    examine,
    markdown,
)
from paramserver.repro.delay import is_stable, limit
from paramserver.repro.maximum import moments

DOCS = Path(__file__).parents[2] / "docs"
SEEDS = range(5)
A_FEW = {
    "async-staleness": [
        f"{law}, 4 replicas" for law in ("constant:10ms", "exponential:10ms", "lognormal:10ms,1")
    ],
    "delay-stability": ["tau = 0", "tau = 1", "tau = 3"],
    "sync-maximum": [
        "constant:10ms, 8 replicas",
        "exponential:10ms, 2 replicas",
        "exponential:10ms, 4 replicas",
    ],
    "ssp-stragglers": ["transient, ssp:0", "transient, ssp:8", "permanent, ssp:8"],
}
"""Cases that take seconds; all of them take a minute, which is for the long tests."""


@pytest.mark.parametrize("name", CLAIMS)
def test_a_few_cases_of_each_known_law_hold(name):
    findings = examine(CLAIMS[name], SEEDS, A_FEW[name])
    assert list(findings.figures) == A_FEW[name]
    assert findings.holds, as_mapping(findings)


@pytest.mark.long
def test_the_page_of_laws_is_what_is_found():
    everything = [examine(claim, SEEDS) for claim in CLAIMS.values()]
    assert all(findings.holds for findings in everything)
    assert markdown(everything) == (DOCS / "laws.md").read_text(encoding="utf-8")


def test_the_page_of_laws_names_every_claim():
    page = (DOCS / "laws.md").read_text(encoding="utf-8")
    for claim in CLAIMS.values():
        assert f"`{claim.name}` | holds" in page
        for text in (claim.says, claim.setting, claim.band):
            assert text in " ".join(page.split())


@pytest.mark.parametrize(("delay", "said"), [(0, 2.0), (1, 1.0), (3, 0.445), (7, 0.209), (15, 0.101)])
def test_the_limit_of_a_delayed_quadratic_is_what_the_formula_says(delay, said):
    assert limit(delay) == pytest.approx(said, rel=0.005)


def test_a_delayed_quadratic_is_told_stable_from_unstable():
    assert [is_stable(rate, 3, seed=1) for rate in (0.3, 0.42, 0.47, 0.6)] == [True, True, False, False]


def test_the_expected_maximum_of_exponential_times_is_the_harmonic_number():
    import numpy as np

    for replicas in (1, 2, 16):
        mean, deviation = moments(lambda x: 1 - np.exp(-x), replicas)
        assert mean == pytest.approx(sum(1 / k for k in range(1, replicas + 1)), abs=1e-4)
        assert deviation == pytest.approx(sum(1 / k**2 for k in range(1, replicas + 1)) ** 0.5, abs=1e-3)


def claim(values, band=None, checks=()):
    bands = {"q": band} if band else {}
    case = Case("case", lambda seed: {"q": values[seed]}, bands)
    return Claim("name", "Title", "Says.", "Source", "Setting.", "Band.", (Quantity("q"),), (case,), checks)


def test_a_claim_holds_where_the_mean_is_in_its_band():
    band = Band.around(2.0, 0.1)
    assert examine(claim([1.0, 3.0], band), (0, 1)).holds
    assert not examine(claim([1.0, 2.5], band), (0, 1)).holds
    assert Figure((2.2,), band).holds
    assert not Figure((2.21,), band).holds
    assert not Figure((float("nan"),), band).holds
    assert not Figure((float("inf"),), band).holds


def test_a_claim_needs_every_check():
    no = Check("It rises.", lambda figures: figures["case"]["q"].mean > 5)
    findings = examine(claim([1.0], checks=(no,)), (0,))
    assert not findings.holds
    assert "It rises. This does not hold." in markdown([findings])


def test_findings_are_json_and_say_everything():
    said = as_mapping(examine(claim([1.0, 3.0], Band.around(2.0, 0.1)), (0, 1)))
    assert json.loads(json.dumps(said)) == said
    figure = said["cases"]["case"]["q"]
    assert (figure["mean"], figure["least"], figure["most"], figure["expected"]) == (2.0, 1.0, 3.0, 2.0)
    assert figure["band"] == [pytest.approx(1.8), pytest.approx(2.2)]
