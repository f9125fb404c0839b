"""The command lines of the two programs, read without starting them."""

import pytest

from paramserver.errors import RequestError
from server.options import read_options as read_server_options
from worker.options import read_options as read_worker_options


@pytest.mark.parametrize("read", [read_server_options, read_worker_options])
def test_an_unknown_option_comes_before_all_that_is_missing(read):
    with pytest.raises(RequestError, match=r"There is no option '--log-levle'|There is no option '--shrads'"):
        read(["--shrads=2"] if read is read_server_options else ["--log-levle", "debug"])


def test_what_a_worker_must_be_told_is_named():
    with pytest.raises(
        RequestError, match=r"The following arguments are required: --connect, --job\. See --help"
    ):
        read_worker_options([])


@pytest.mark.parametrize(
    ("options", "found"),
    [
        (["--shards", "-1"], "--shards"),
        (["--connect-timeout", "soon"], "'soon'"),
        (["--listen", "here"], "'here'"),
    ],
)
def test_a_malformed_value_is_quoted(options, found):
    with pytest.raises(RequestError, match=found):
        read_server_options(options)
