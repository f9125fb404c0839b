"""The command line says what is wrong in one sentence, and loads little."""

import hashlib
import http.server
import os
import subprocess
import sys
import threading
from dataclasses import fields

import pytest
import typer

from paramserver.cli import main
from paramserver.cli.app import app
from paramserver.datasets.sources import SOURCES, RemoteFile, Source
from paramserver.job import Job
from paramserver.models import MODELS
from paramserver.optim import OPTIMIZERS, SCHEDULES

USAGE, FAILED = 2, 1


def run_main(capsys, *arguments):
    """Return exit code, standard output and standard error of a command line in this process."""
    with pytest.raises(SystemExit) as exit_:
        main(list(arguments))
    captured = capsys.readouterr()
    return exit_.value.code, captured.out, captured.err


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["train", "--help"],
        ["predict", "--help"],
        ["graph", "--help"],
        ["data"],
        ["data", "get", "--help"],
        ["predict"],
        ["--version"],
        ["trian"],
    ],
)
def test_asking_loads_neither_numpy_nor_grpc(arguments):
    program = (
        "import sys\n"
        "from paramserver.cli import main\n"
        "try:\n"
        f"    main({arguments!r})\n"
        "except SystemExit:\n"
        "    heavy = {'numpy', 'grpc', 'google.protobuf', 'safetensors'} & set(sys.modules)\n"
        "    sys.exit(f'loaded: {heavy}' if heavy else 0)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr


def test_every_key_of_a_job_is_an_option_with_its_default_in_the_help():
    defaults = {
        "data_dir": "the usual places",
        "lr": "the optimizer's usual one",
        "code": "none",
        "clip_norm": "none",
        "target_accuracy": "none",
        "trace": "",  # a flag
        "problem": "none",
        "steps": "100",
    }
    options = {option.name: option for option in typer.main.get_command(app).commands["train"].params}
    for field in fields(Job):
        if field.name == "code_sha256":
            continue  # written by a run, and compared by the next
        option = options[field.name]
        assert option.opts == [f"--{field.name.replace('_', '-')}"]
        expected = defaults.get(field.name, field.default)
        told = option.help.partition("(default: ")[2].removesuffix(")")
        assert told == (expected if isinstance(expected, str) else f"{expected:g}")


def test_version_and_help_go_to_standard_output(capsys):
    assert run_main(capsys, "--version") == (0, "paramserver 0.1.0\n", "")
    code, out, err = run_main(capsys)
    assert (code, err) == (0, "")
    assert "train" in out
    assert "server" in out


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["train", "--epoch", "3"], "There is no option --epoch. Did you mean '--epochs'?"),
        (["train", "--epochs=x"], "'--epochs'"),
        (["train", "--epochs"], "--epochs"),
        (["trian"], "Did you mean 'train'?"),
        (["train", "--model", "mpl:3"], "Did you mean 'mlp'?"),
        (["train", "--consistency", "synch"], "Did you mean 'sync'?"),
        (["train", "--optimizer", "adm"], "Did you mean 'adam'?"),
        (["train", "--schedule", "cosin"], "Did you mean 'cosine'?"),
        (["train", "--engine", "lokal"], "Did you mean 'local'?"),
        (["train", "--data", "digit"], "Did you mean 'digits'?"),
        (["train", "--data", "none.npz"], "There is no file none.npz."),
        (["train", "--servers", "0"], "'servers' must be 1 or more, but it is 0."),
        (["train", "--log-bytes-max", "0"], "--log-bytes-max is at least 65,536, not 0."),
        (["train", "--lr", "nan"], "'lr' must be a number above 0"),
        (["train", "--workers", "3000"], "One machine runs at most"),
        (["train", "--threads", "2000"], "samples are too few for 4000 replicas"),
        (["train", "--ssp"], "There is no option --ssp."),
        (["train", "--split", "by-lable"], "Did you mean 'by-label'?"),
        (["train", "--engine", "sequential", "--trace"], "The sequential engine has no threads or shards"),
        (["train", "--target-accuracy", "95"], "'target_accuracy' must be from 0 to 1"),
        (["train", "missing.py"], "missing.py cannot be read: No such file"),
        (["train", "a.py", "--code", "b.py"], "a.py and --code b.py are both Python files. Give one."),
        (["predict"], "but neither was given."),
        (["predict", "run", "--connect", "a:1"], "but both were given."),
        (["predict", "run"], "run does not exist. Name the folder of a run that has finished"),
        (["predict", "."], ". has no checkpoint: its run did not come to an end."),
        (["predict", "--connect", "7070"], "is HOST:PORT, such as 127.0.0.1:7070"),
        (["predict", "run", "--out", "a.txt"], "Name a file such as a.csv."),
        (["graph", "--model", "cnn", "--data", "synthetic:spirals"], "2 features are no square of pixels"),
        (["graph", "--out", "a.png"], "a.png ends in neither"),
        (["data", "get", "digit"], "Did you mean 'digits'?"),
        (["data", "lst"], "Did you mean 'list'?"),
        (["train", "missing.toml"], "The job file missing.toml cannot be read: No such file"),
    ],
)
def test_bad_usage_is_one_sentence_and_exit_code_2(capsys, monkeypatch, tmp_path, arguments, sentence):
    monkeypatch.chdir(tmp_path)
    code, out, err = run_main(capsys, *arguments)
    assert code == USAGE
    assert out == ""
    assert err.startswith("paramserver: ")
    assert err.count("\n") == 1
    assert sentence in err
    assert "Traceback" not in err
    assert list(tmp_path.iterdir()) == []  # nothing was begun


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("epoch = 3\n", "Did you mean 'epochs'?"),
        ("epochs = '3'\n", "'epochs' in the job file job.toml must be a whole number"),
        ("epochs = true\n", "'epochs' in the job file job.toml must be a whole number"),
        ("epochs = \n", "The job file job.toml is not valid TOML"),
        ("blas_threads = 'many'\n", "'blas_threads' in the job file job.toml must be a whole number"),
    ],
)
def test_a_bad_job_file_is_one_sentence(capsys, monkeypatch, tmp_path, text, sentence):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "job.toml").write_text(text)
    code, _, err = run_main(capsys, "train", "job.toml")
    assert code == USAGE
    assert sentence in err
    assert err.count("\n") == 1


def test_a_job_file_that_is_no_text_is_one_sentence(capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "job.toml").write_bytes(b"\xff\xfe\x00")
    code, _, err = run_main(capsys, "train", "job.toml")
    assert code == USAGE
    assert "is not UTF-8 text" in err


def test_a_bug_is_one_sentence_and_its_traceback_a_file(capsys, monkeypatch, tmp_path):
    def broken(*_):
        raise ZeroDivisionError("inside")

    monkeypatch.setattr("paramserver.cli.running.run", broken)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    code, out, err = run_main(capsys, "train")
    assert (code, out) == (FAILED, "")
    assert err.startswith("paramserver: This is a bug in paramserver (ZeroDivisionError).")
    [log] = tmp_path.iterdir()
    assert str(log) in err
    assert "inside" in log.read_text()


@pytest.mark.parametrize("program", ["server", "worker"])
def test_programs_get_all_arguments_and_become_the_process(monkeypatch, program):
    became = []

    class Became(BaseException):
        pass

    def execv(path, line):
        became.append((path, line))
        raise Became

    monkeypatch.setattr(os, "execv", execv)
    with pytest.raises(Became):
        main([program, "--help", "--", "-x", "--epoch"])
    line = [sys.executable, "-P", "-m", program, "--help", "--", "-x", "--epoch"]
    assert became == [(sys.executable, line)]


def test_models_optimizers_and_data_have_a_line_each(capsys):
    for command, known in (
        (["models"], MODELS),
        (["optimizers"], {**OPTIMIZERS, **SCHEDULES}),
        (["data", "list"], SOURCES),
    ):
        code, out, err = run_main(capsys, *command)
        assert (code, err) == (0, "")
        assert all(f"\n  {name} " in out for name in known)
        assert max(map(len, out.splitlines())) <= 80


def test_a_graph_is_listed_or_drawn(capsys, tmp_path):
    code, out, _ = run_main(capsys, "graph", "--model", "cnn")
    assert code == 0
    assert out.startswith("cnn on digits: 64 features, 10 classes\n")
    assert "conv2/weight   parameter                    (32, 3, 3, 16) float32       4,608" in out
    assert "6,090 weights in 6 tensors" in out
    for name, opening in (("g.svg", "<svg"), ("g.dot", "digraph {")):
        assert run_main(capsys, "graph", "--model", "cnn", "--out", str(tmp_path / name))[0] == 0
        assert (tmp_path / name).read_text().startswith(opening)


def test_a_graph_of_ones_own_model(capsys, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "path", list(sys.path))
    path = tmp_path / "mine.py"
    path.write_text(
        "from paramserver.models import Network\n"
        "def data(): return 'synthetic:spirals'\n"
        "def model(features, classes):\n"
        "    net = Network(features, classes)\n"
        "    return net.model(net.dense(net.inputs, classes))\n"
    )
    code, out, _ = run_main(capsys, "graph", "--code", str(path))
    assert code == 0
    assert out.startswith("code:mine.py on synthetic:spirals: 2 features, 3 classes")


@pytest.fixture
def remote(monkeypatch):
    """A data set whose one file is served here."""
    content = b"images" * 100_000

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_):
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        url = f"http://127.0.0.1:{server.server_port}/a.gz"
        file = RemoteFile("a.gz", (url,), len(content), hashlib.sha256(content).hexdigest())
        monkeypatch.setitem(SOURCES, "far", Source("far", "far away", "MIT", "is fetched", (file,)))
        yield content
        server.shutdown()
        thread.join()


def test_data_get_fetches_checks_and_says_where_it_is(capsys, tmp_path, remote):
    for quiet in ([], [], ["--quiet"]):  # what is there is checked, and kept
        code, out, err = run_main(capsys, "data", "get", "far", "--data-dir", str(tmp_path / "here"), *quiet)
        assert (code, err) == (0, "")
        told = [] if quiet else ["a.gz: 600,000 bytes"]
        assert out.splitlines() == [*told, f"The data set 'far' is in {tmp_path / 'here'}."]
    assert (tmp_path / "here" / "a.gz").read_bytes() == remote
