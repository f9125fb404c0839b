"""Logs of processes that write without end."""

import sys

from paramserver.launch.children import Children
from paramserver.launch.log_cap import LOG_BYTES_MIN, LogCap


def test_the_newest_half_is_kept(tmp_path):
    log = tmp_path / "a.log"
    cap = LogCap(1000)
    cap.watch(log)
    cap.look()  # there is none yet
    with log.open("ab", buffering=0) as writer:
        for number in range(200):
            writer.write(b"line %05d\n" % number)
        cap.look()
        writer.write(b"more\n")
    lines = log.read_text().splitlines()
    assert lines[0] == "--- 1,705 bytes are left out here: see --log-bytes-max ---"
    assert lines[1:] == [*(f"line {number:05d}" for number in range(155, 200)), "more"]


def test_a_log_within_its_limit_is_left_alone(tmp_path):
    log = tmp_path / "a.log"
    log.write_text("x" * 1000)
    cap = LogCap(1000)
    cap.watch(log)
    cap.look()
    assert log.read_text() == "x" * 1000


def test_a_process_that_writes_wildly_does_not_fill_the_disk(tmp_path):
    program = "import sys\nfor _ in range(3000): sys.stdout.write('wild ' * 200 + '\\n')\nprint('the end')"
    with Children(tmp_path, lambda: False, LOG_BYTES_MIN) as children:
        child = children.start("wild", [sys.executable, "-c", program], {})
        assert child.wait(60) == 0
    assert child.log.stat().st_size <= LOG_BYTES_MIN
    assert child.last_line() == "the end"
