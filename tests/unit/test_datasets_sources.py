"""The list of data sets says what is there and how to get the rest."""

import gzip
import hashlib
import re
import struct

import pytest

from paramserver.data.synthetic_spec import LINES
from paramserver.datasets import NAMES, catalog, flights, load
from paramserver.datasets.fashion_mnist import DEBIAN_FOLDER, FOLDER_VARIABLE
from paramserver.datasets.sources import CACHE_VARIABLE, SOURCES, cache_folder, source_of
from paramserver.errors import RequestError


def test_every_source_says_what_it_is():
    assert tuple(SOURCES) == NAMES
    for name, source in SOURCES.items():
        assert name == source.name
        assert source.line
        assert source.licence
        assert source.origin
        for file in source.files:
            assert file.urls
            assert file.size > 0
            assert re.fullmatch("[0-9a-f]{64}", file.sha256)
    assert SOURCES["fashion-mnist"].size == 30_878_645
    assert {name for name in NAMES if ":" in name} == {f"synthetic:{kind}" for kind in LINES}


@pytest.mark.skipif(
    not DEBIAN_FOLDER.is_dir(), reason="the Debian package dataset-fashion-mnist is not installed"
)
@pytest.mark.parametrize(
    ("place", "changed_seconds"), [(1, 1_504_176_606), (3, 1_504_176_627)], ids=["train", "test"]
)
def test_the_registered_hash_is_that_of_the_published_file(place, changed_seconds):
    # Debian takes name and time out of the gzip header; with both put back, the labels are as published.
    file = SOURCES["fashion-mnist"].files[place]
    stripped = (DEBIAN_FOLDER / file.name).read_bytes()
    header = b"\x1f\x8b\x08\x08" + struct.pack("<I", changed_seconds) + b"\x00\x03"
    published = header + file.name.removesuffix(".gz").encode() + b"\0" + stripped[10:]
    assert len(published) == file.size
    assert hashlib.sha256(published).hexdigest() == file.sha256
    assert gzip.decompress(published) == gzip.decompress(stripped)


def test_options_of_a_name_are_passed_over():
    assert source_of("synthetic:clicks,n=100").name == "synthetic:clicks"
    with pytest.raises(RequestError, match="Did you mean 'flights'"):
        source_of("flight")


def test_the_cache_is_where_the_variables_say(monkeypatch, tmp_path):
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "data"))
    assert cache_folder() == tmp_path / "data"
    monkeypatch.delenv(CACHE_VARIABLE)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "paramserver"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_folder() == tmp_path / ".cache" / "paramserver"


def test_what_need_not_be_fetched_says_so():
    assert catalog.get_data("digits") == (
        "The data set 'digits' comes with paramserver; there is nothing to fetch."
    )
    assert "is made from a seed" in catalog.get_data("synthetic:linear,n=50")
    assert catalog.is_here(SOURCES["digits"])


def test_a_package_that_is_missing_is_named(monkeypatch):
    monkeypatch.setattr(flights, "PACKAGE", "no_such_package_of_flights")
    assert not catalog.is_here(SOURCES["flights"])
    with pytest.raises(RequestError, match="pip install"):
        catalog.get_data("flights")


def test_fetched_files_are_found_without_being_named(monkeypatch, tmp_path):
    monkeypatch.delenv(FOLDER_VARIABLE, raising=False)
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path))
    folder = tmp_path / "fashion-mnist"
    folder.mkdir()
    for file in SOURCES["fashion-mnist"].files:
        (folder / file.name).write_bytes(b"no gzip")
    assert catalog.is_here(SOURCES["fashion-mnist"])
    with pytest.raises(
        RequestError, match=r"fashion-mnist/train-images-idx3-ubyte\.gz is no sound gzip file"
    ):
        load("fashion-mnist")
    monkeypatch.setenv(FOLDER_VARIABLE, str(tmp_path / "elsewhere"))
    assert not catalog.is_here(SOURCES["fashion-mnist"])
    with pytest.raises(RequestError, match="Fetch it with: paramserver data get fashion-mnist"):
        load("fashion-mnist")
