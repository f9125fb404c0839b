"""``paramserver repro`` as a user sees it; the claims themselves are examined in tests/simulation."""

import json

import pytest

from paramserver import repro
from paramserver.cli import main
from paramserver.repro import CLAIMS, Band, Case, Claim, Quantity


def run(capsys, *arguments):
    with pytest.raises(SystemExit) as ended:
        main(["repro", *arguments])
    out, err = capsys.readouterr()
    return ended.value.code, out, err


@pytest.fixture
def claims(monkeypatch):
    """Two claims that take no time: one holds, one does not."""

    def claim(name, expected):
        case = Case("a case", lambda seed: {"number": float(seed)}, {"number": Band.around(expected, 0.1)})
        return Claim(
            name, "A title", "It is so.", "Somebody, 1999", "Set.", "Fixed.", (Quantity("number"),), (case,)
        )

    made = {"true": claim("true", 2.0), "false": claim("false", 3.0)}
    monkeypatch.setattr(repro, "CLAIMS", made)
    return made


def test_without_a_name_the_claims_are_listed(capsys):
    code, out, err = run(capsys)
    assert (code, err) == (0, "")
    for name, claim in CLAIMS.items():
        assert f"  {name} " in out
        assert claim.title in out


def test_a_claim_that_holds_is_shown_with_all_it_needs(capsys, claims):
    code, out, _ = run(capsys, "true")
    assert code == 0
    for word in (
        "It is so.",
        "Somebody, 1999.",
        "Set. Seeds 0 to 4.",
        "Fixed.",
        "0.00 to 4.00",
        "1.80 to 2.20",
    ):
        assert word in out
    assert "true: the claim holds." in out
    assert all(line == line.rstrip() and len(line) <= 80 for line in out.splitlines())


def test_a_claim_that_does_not_hold_exits_with_1(capsys, claims):
    code, out, _ = run(capsys, "false")
    assert code == 1
    assert "false: the claim does not hold." in out
    assert run(capsys, "--all")[0] == 1


def test_more_seeds_are_more_seeds(capsys, claims):
    code, out, _ = run(capsys, "true", "--seeds", "7", "--json")
    said = json.loads(out)
    assert (code, said["seeds"], said["holds"]) == (1, list(range(7)), False)
    assert said["cases"]["a case"]["number"]["mean"] == 3.0


def test_all_claims_are_one_document(capsys, claims):
    assert [one["name"] for one in json.loads(run(capsys, "--all", "--json")[1])["claims"]] == [
        "true",
        "false",
    ]
    page = run(capsys, "--all", "--markdown")[1]
    assert page.startswith("# Known laws\n")
    assert "| a case | 2.00 | 0.00 to 4.00 | 3.00 | 2.70 to 3.30 | does not hold |" in page


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["async-stalenes"], "one of async-staleness, delay-stability, sync-maximum, ssp-stragglers. "
         "Did you mean 'async-staleness'?"),
        (["sync-maximum", "--seeds", "4"], "at least 5 seeds, but --seeds is 4"),
        (["sync-maximum", "--all"], "Give one of them"),
        (["sync-maximum", "--json", "--markdown"], "Give one of them"),
        (["--json"], "No claim is named"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused_before_anything_runs(capsys, arguments, sentence):
    code, out, err = run(capsys, *arguments)
    assert (code, out) == (2, "")
    assert sentence in err
