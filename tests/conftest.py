from collections.abc import Iterator

import pytest
from hosts import Hosts, NoHostsError, two_hosts


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--kills", type=int, default=20, help="in how many runs -m chaos kills processes (default: 20)"
    )
    parser.addoption("--kill-seed", type=int, default=20, help="draws these kills (default: 20)")
    parser.addoption("--keep", metavar="DIR", help="where runs go that a kill has spoilt")
    parser.addoption(
        "--rewrite",
        action="store_true",
        help="write golden transcripts anew; a test whose text has changed still fails, so read the diff",
    )


@pytest.fixture
def hosts() -> Iterator[Hosts]:
    """Two hosts with a cable between them, where this machine allows it."""
    try:
        with two_hosts() as pair:
            yield pair
    except NoHostsError as error:
        pytest.skip(str(error))
