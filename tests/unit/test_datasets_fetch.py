"""Fetching from a real HTTP server on loopback: whole, broken off, wrong, slow, or not there at all."""

import fcntl
import hashlib
import http.server
import socket
import threading

import pytest

from paramserver.datasets import catalog
from paramserver.datasets.fetch import CHUNK_BYTES, fetch
from paramserver.datasets.sources import CACHE_VARIABLE, RemoteFile, Source
from paramserver.errors import Failure, JobError

CONTENT = bytes(range(256)) * (3 * CHUNK_BYTES // 256) + b"end"
SHA256 = hashlib.sha256(CONTENT).hexdigest()


class Handler(http.server.BaseHTTPRequestHandler):
    """Serves the server's content under ways to fail; the path says which."""

    def do_GET(self):
        wanted = self.headers.get("Range")
        self.server.seen.append((self.path, wanted))
        begin = int(wanted.removeprefix("bytes=").removesuffix("-")) if wanted else 0
        way = self.path.strip("/")
        if way == "missing":
            self.send_error(404, "Not Found")
            return
        if way == "silent":
            self.server.released.wait(20)
            return
        if way == "garbage":
            self.wfile.write(b"this is not HTTP\r\n\r\n")
            return
        content = self.server.content
        body, status = content, 200
        if wanted and way != "no-ranges":
            body, status = content[begin:], 206
        if way == "wrong":
            body = b"?" + body[1:]
        if way == "long":
            body = body + b"more"
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        if status == 206:
            first = begin + 1 if way == "other-range" else begin
            self.send_header("Content-Range", f"bytes {first}-{len(content) - 1}/{len(content)}")
        self.end_headers()
        self.wfile.write(body[: len(body) // 2] if way == "truncated" else body)

    def log_message(self, *arguments):
        pass


@pytest.fixture
def server(monkeypatch):
    for variable in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(variable, raising=False)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        running.seen, running.released = [], threading.Event()
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield running
        running.released.set()
        running.shutdown()
        thread.join()


@pytest.fixture
def source(server):
    def serving(*ways, content=CONTENT):
        server.content = content
        digest = hashlib.sha256(content).hexdigest()
        urls = tuple(f"http://127.0.0.1:{server.server_port}/{way}" for way in ways)
        return Source(
            "toy", "a toy", "CC0", "is fetched", (RemoteFile("toy.bin", urls, len(content), digest),)
        )

    return serving


def refusal(source, folder, **options):
    with pytest.raises(JobError) as caught:
        fetch(source, folder, **options)
    assert str(caught.value).startswith("toy.bin could not be fetched. http://127.0.0.1:")
    assert "Try again later" in str(caught.value)
    assert not (folder / "toy.bin").exists()
    assert caught.value.failure is Failure.UNAVAILABLE
    return str(caught.value)


def test_a_file_is_fetched_with_progress_and_only_once(source, server, tmp_path):
    steps = []
    folder = fetch(source("good"), tmp_path / "new" / "toy", lambda *step: steps.append(step))
    assert (folder / "toy.bin").read_bytes() == CONTENT
    assert [file.name for file in folder.iterdir()] == ["toy.bin"]
    assert steps[0] == ("toy.bin", 0, len(CONTENT))
    assert steps[-1] == ("toy.bin", len(CONTENT), len(CONTENT))
    assert [done for _, done, _ in steps] == sorted({done for _, done, _ in steps})
    assert len(steps) > 3
    steps.clear()
    fetch(source("good"), folder, lambda *step: steps.append(step))
    assert steps == [("toy.bin", len(CONTENT), len(CONTENT))]
    assert len(server.seen) == 1


def test_the_cache_folder_is_the_usual_place(source, monkeypatch, tmp_path):
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path))
    monkeypatch.setitem(catalog.SOURCES, "toy", source("good"))
    assert catalog.get_data("toy") == f"The data set 'toy' is in {tmp_path / 'toy'}."
    assert (tmp_path / "toy" / "toy.bin").read_bytes() == CONTENT


def test_a_damaged_file_is_fetched_again(source, tmp_path):
    (tmp_path / "toy.bin").write_bytes(b"?" * len(CONTENT))
    fetch(source("good"), tmp_path)
    assert (tmp_path / "toy.bin").read_bytes() == CONTENT


def test_what_broke_off_goes_on_where_it_ended(source, server, tmp_path):
    half = len(CONTENT) // 2
    assert f"/truncated ended after {half} of {len(CONTENT)} bytes." in refusal(source("truncated"), tmp_path)
    assert (tmp_path / "toy.bin.part").read_bytes() == CONTENT[:half]
    steps = []
    fetch(source("good"), tmp_path, lambda *step: steps.append(step))
    assert (tmp_path / "toy.bin").read_bytes() == CONTENT
    assert server.seen[-1] == ("/good", f"bytes={half}-")
    assert steps[0] == ("toy.bin", half, len(CONTENT))
    assert not (tmp_path / "toy.bin.part").exists()


def test_a_small_part_is_kept_too(source, tmp_path):
    refusal(source("truncated", content=b"small"), tmp_path)
    assert (tmp_path / "toy.bin.part").read_bytes() == b"sm"


def test_a_server_without_ranges_sends_the_whole_again(source, server, tmp_path):
    (tmp_path / "toy.bin.part").write_bytes(CONTENT[:1000])
    fetch(source("no-ranges"), tmp_path)
    assert (tmp_path / "toy.bin").read_bytes() == CONTENT
    assert server.seen == [("/no-ranges", "bytes=1000-")]


@pytest.mark.parametrize("part", [b"?" * 1000, b"?" * len(CONTENT), CONTENT + b"?"])
def test_a_part_that_does_not_belong_is_thrown_away(source, server, tmp_path, part):
    (tmp_path / "toy.bin.part").write_bytes(part)
    fetch(source("good"), tmp_path)
    assert (tmp_path / "toy.bin").read_bytes() == CONTENT
    assert server.seen[-1] == ("/good", None)


def test_a_part_that_is_whole_needs_no_server(source, server, tmp_path):
    (tmp_path / "toy.bin.part").write_bytes(CONTENT)
    fetch(source("missing"), tmp_path)
    assert (tmp_path / "toy.bin").read_bytes() == CONTENT
    assert server.seen == []


def test_the_next_address_is_tried_and_goes_on_with_the_part(source, server, tmp_path):
    fetch(source("missing", "truncated", "good"), tmp_path)
    assert (tmp_path / "toy.bin").read_bytes() == CONTENT
    assert server.seen[-1] == ("/good", f"bytes={len(CONTENT) // 2}-")


def test_a_wrong_checksum_is_refused_and_not_kept(source, tmp_path):
    sentence = refusal(source("wrong"), tmp_path)
    found = hashlib.sha256(b"?" + CONTENT[1:]).hexdigest()
    assert f"/wrong served a file with the SHA-256 {found}, but expected {SHA256}." in sentence
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("way", "sentence"),
    [
        ("missing", "/missing answered 404 Not Found."),
        ("long", f"/long served more than the expected {len(CONTENT)} bytes."),
        ("garbage", "/garbage gave no sound answer (BadStatusLine)."),
    ],
)
def test_a_server_that_does_not_serve_it_gets_a_sentence(source, tmp_path, way, sentence):
    assert sentence in refusal(source(way), tmp_path)


def test_another_range_than_asked_for_is_not_appended(source, tmp_path):
    (tmp_path / "toy.bin.part").write_bytes(CONTENT[:1000])
    assert "answered with another range than the one asked for" in refusal(source("other-range"), tmp_path)
    assert (tmp_path / "toy.bin.part").read_bytes() == CONTENT[:1000]


def test_each_address_has_its_say(source, tmp_path):
    sentence = refusal(source("missing", "wrong"), tmp_path)
    assert "/missing answered 404 Not Found. http://127.0.0.1:" in sentence
    assert "/wrong served a file" in sentence
    assert f"put the file into {tmp_path} yourself." in sentence


def test_a_silent_server_is_given_up(source, tmp_path):
    sentence = refusal(source("silent"), tmp_path, timeout_seconds=0.05)
    assert "/silent fell silent for 0.05 seconds after 0 of" in sentence


def test_without_a_server_or_a_network_it_says_so(server, tmp_path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound, but nobody listens
        nobody = f"http://127.0.0.1:{taken.getsockname()[1]}/x"
        source = Source("toy", "", "", "", (RemoteFile("toy.bin", (nobody,), 3, SHA256),))
        assert "could not be reached (Connection refused)." in refusal(source, tmp_path)


def test_a_name_that_nobody_knows_is_no_network(server, monkeypatch, tmp_path):
    def fail(*arguments, **options):
        raise socket.gaierror(-3, "Temporary failure in name resolution")

    monkeypatch.setattr(socket, "getaddrinfo", fail)
    source = Source("toy", "", "", "", (RemoteFile("toy.bin", ("http://toy.invalid/x",), 3, SHA256),))
    with pytest.raises(JobError, match=r"toy\.invalid/x could not be reached \(Temporary failure in name"):
        fetch(source, tmp_path)


def test_one_process_fetches_at_a_time(source, tmp_path):
    with (tmp_path / "toy.bin.part").open("ab") as part:
        fcntl.flock(part, fcntl.LOCK_EX)
        with pytest.raises(JobError, match=r"Another process is fetching toy\.bin into"):
            fetch(source("good"), tmp_path)


def test_a_folder_that_cannot_be_made_gets_a_sentence(source, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(
        JobError, match=r"'toy' cannot be kept in .*file/toy: Not a directory\. Free some space"
    ):
        fetch(source("good"), tmp_path / "file" / "toy")
