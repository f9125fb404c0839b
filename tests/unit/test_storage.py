"""Run folders are held by one run, and files are whole or absent."""

import json
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from paramserver.errors import JobError, RequestError
from paramserver.storage import (
    MetricsWriter,
    create_run_folder,
    json_text,
    read_metrics,
    replacing,
    write_text,
)
from paramserver.storage.run_folder import LOCK

NOW = 1_750_000_000.0  # 2025-06-15, 15:06:40 UTC


def test_a_folder_without_a_name_gets_the_time_and_a_number(tmp_path):
    runs = tmp_path / "runs"
    with create_run_folder(None, NOW, runs) as first, create_run_folder(None, NOW, runs) as second:
        assert first.path == runs / "2025-06-15T150640Z-1"
        assert second.path == runs / "2025-06-15T150640Z-2"
        assert first.logs.is_dir()


def test_a_named_folder_may_exist_if_it_is_empty(tmp_path):
    out = tmp_path / "deep" / "run"
    create_run_folder(out, NOW).close()
    (out / "logs").rmdir()
    with create_run_folder(out, NOW) as folder:
        assert folder.path == out
        assert (out / LOCK).exists()
    assert not (out / LOCK).exists()
    folder.close()  # twice does nothing


def test_a_folder_in_use_is_refused(tmp_path):
    with create_run_folder(tmp_path / "run", NOW) as folder:
        folder.write_text("job.toml", "")
        with pytest.raises(RequestError, match="is in use by another run"):
            create_run_folder(tmp_path / "run", NOW)
    with pytest.raises(RequestError, match=r"should be new or empty, but it holds job\.toml, logs"):
        create_run_folder(tmp_path / "run", NOW)


def test_a_refused_folder_is_left_as_it_was(tmp_path):
    for name in "abcd":
        (tmp_path / name).write_text("mine")
    with pytest.raises(RequestError, match="holds a, b, c and more"):
        create_run_folder(tmp_path, NOW)
    assert sorted(path.name for path in tmp_path.iterdir()) == list("abcd")


def test_the_lock_ends_with_its_process(tmp_path):
    claim = (
        "import os, signal, sys; from pathlib import Path; from paramserver.storage import create_run_folder;"
        "folder = create_run_folder(Path(sys.argv[1]), 0.0); folder.logs.rmdir();"
        "os.kill(os.getpid(), signal.SIGKILL)"
    )
    killed = subprocess.run([sys.executable, "-c", claim, str(tmp_path / "run")], check=False)
    assert killed.returncode == -9
    assert (tmp_path / "run" / LOCK).exists()
    create_run_folder(tmp_path / "run", NOW).close()


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs a file system that refuses new folders")
def test_a_place_that_takes_no_folders_gets_its_own_sentence():
    with pytest.raises(RequestError, match="cannot be created: No such file or directory"):
        create_run_folder(Path("/proc/run"), now=0.0)


def test_what_cannot_be_a_folder_gets_a_sentence(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(RequestError, match="cannot be created: File exists"):
        create_run_folder(tmp_path / "file", NOW)
    with pytest.raises(RequestError, match="cannot be created: Not a directory"):
        create_run_folder(tmp_path / "file" / "run", NOW)
    with pytest.raises(RequestError, match="cannot be created: Not a directory"):
        create_run_folder(None, NOW, tmp_path / "file")


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path):
    path = tmp_path / "summary.json"
    write_text(path, "old")

    def fail_midway():
        with replacing(path) as file:
            file.write(b"half of the n")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail_midway()
    assert path.read_text() == "old"
    write_text(path, "new ö")
    assert path.read_text(encoding="utf-8") == "new ö"
    assert [entry.name for entry in tmp_path.iterdir()] == ["summary.json"]


def test_a_disk_that_refuses_gets_a_sentence(tmp_path):
    with pytest.raises(JobError, match=r"x\.json cannot be written: No such file or directory"):
        write_text(tmp_path / "missing" / "x.json", "")


def test_json_is_strict():
    record = {
        "loss": math.nan,
        "worst": [math.inf, 1.5],
        "versions": (1, np.int64(2)),
        "mean": np.float32(0.5),
        "histogram": np.arange(3),
        "out": Path("runs"),
        "none": None,
        "yes": True,
        3: "ö",
    }
    assert json.loads(json_text(record)) == {
        "loss": None,
        "worst": [None, 1.5],
        "versions": [1, 2],
        "mean": 0.5,
        "histogram": [0, 1, 2],
        "out": "runs",
        "none": None,
        "yes": True,
        "3": "ö",
    }


def test_metrics_are_appended_line_by_line_and_readable_at_once(tmp_path):
    path = tmp_path / "metrics.jsonl"
    with MetricsWriter(path) as first, MetricsWriter(path) as second:
        first.append({"step": 1, "loss": np.float32(0.25)})
        assert read_metrics(path) == [{"step": 1, "loss": 0.25}]
        second.append({"step": 2})
        first.append({"text": "a\nb"})
    assert read_metrics(path) == [{"step": 1, "loss": 0.25}, {"step": 2}, {"text": "a\nb"}]
    with pytest.raises(JobError, match="was closed"):
        first.append({})


def test_a_torn_last_line_is_left_out_but_a_torn_middle_is_an_error(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1}\n{"step"')
    assert read_metrics(path) == [{"step": 1}]
    path.write_text('{"step": 1}\n{"step"\n{"step": 3}\n')
    with pytest.raises(RequestError, match="line 2, should be a JSON object"):
        read_metrics(path)
    with pytest.raises(RequestError, match="cannot be read"):
        read_metrics(tmp_path / "none.jsonl")
    with pytest.raises(JobError, match="cannot be opened"):
        MetricsWriter(tmp_path / "missing" / "metrics.jsonl")
