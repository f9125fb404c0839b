"""One Python file of the user's in every engine, and what becomes of its mistakes."""

import hashlib

import pytest

OWN = '''"""Softmax regression by hand."""

import numpy as np

JOB = {"epochs": 2, "optimizer": "sgd", "lr": 0.5}


class Softmax:
    def initial(self, seed):
        return {"weight": np.zeros((64, 10)), "bias": np.zeros(10)}

    def logits(self, values, inputs):
        return inputs @ values["weight"] + values["bias"]

    def gradient(self, values, inputs, labels):
        logits = self.logits(values, inputs)
        chances = np.exp(logits - logits.max(axis=1, keepdims=True))
        chances /= chances.sum(axis=1, keepdims=True)
        loss = -np.log(chances[np.arange(len(labels)), labels]).mean()
        chances[np.arange(len(labels)), labels] -= 1
        chances /= len(labels)
        return loss, {"weight": inputs.T @ chances, "bias": chances.sum(axis=0)}


def model():
    return Softmax()
'''


@pytest.fixture
def own(tmp_path):
    path = tmp_path / "my_job.py"
    path.write_text(OWN)
    for name in ("worker", "server", "json", "numpy"):  # beside it, and never in the way of ours
        (tmp_path / f"{name}.py").write_text("raise RuntimeError('the wrong module')\n")
    return path


def test_the_same_file_gives_the_same_bytes_in_every_engine_and_can_be_run_again(launcher, own):
    code, out, err = launcher.run(own.name)
    assert (code, err) == (0, "")
    assert out.startswith("Training code:my_job.py on digits, sync")
    first, job_file = launcher.summary(), launcher.out / "job.toml"
    assert first["model"] == "code:my_job.py"
    assert first["accuracy"] > 0.7
    assert first["job"]["code"] == str(own)
    assert first["job"]["code_sha256"] == hashlib.sha256(own.read_bytes()).hexdigest()
    launcher.out = launcher.folder / "sequential"
    assert launcher.run(own.name, "--engine", "sequential", "--quiet")[0] == 0
    assert launcher.summary()["weights_sha256"] == first["weights_sha256"]
    launcher.out = launcher.folder / "virtual"
    world = ("--engine", "sim", "--compute", "exponential:20ms", "--network", "ideal")
    code, _, err = launcher.run(own.name, *world, "--quiet")
    assert (code, err) == (0, "")
    assert launcher.summary()["weights_sha256"] == first["weights_sha256"]
    assert f"--code {own}" in launcher.summary()["replay"]

    launcher.out = launcher.folder / "again"
    code, _, err = launcher.run(str(job_file))
    assert code == 2
    assert "a job file never runs code. If you trust that file, name it: --code" in err
    assert launcher.run(str(job_file), "--code", own.name, "--engine", "sequential", "--quiet")[0] == 0
    assert launcher.summary()["weights_sha256"] == first["weights_sha256"]
    launcher.out = launcher.folder / "other"
    own.write_text(OWN + "# another one\n")
    code, _, err = launcher.run(str(job_file), "--code", own.name)
    assert code == 2
    assert "my_job.py is not the file that this job was made with" in err
    assert not launcher.out.exists()


def test_a_file_that_raises_shows_the_users_line_and_nothing_is_started(launcher, own):
    own.write_text(OWN.replace("return Softmax()", "return Softmx()"))
    code, out, err = launcher.run(own.name)
    assert (code, out) == (2, "")
    assert err == (
        "paramserver: my_job.py, line 26, in model: NameError: name 'Softmx' is not defined. "
        "The line: return Softmx()\n"
    )
    assert not launcher.out.exists()


@pytest.mark.parametrize("engine", ["local", "sequential"])
def test_a_step_that_raises_ends_the_job_with_the_users_line(launcher, own, engine):
    broken = OWN.replace(
        "        chances /= len", "        assert loss > 2.25, 'too good'\n        chances /= len"
    )
    own.write_text(broken)
    code, _, err = launcher.run(own.name, "--quiet", "--engine", engine)
    assert code == 1
    assert err.count("\n") == 1
    assert "my_job.py, line 21, in gradient: AssertionError: too good. The line: assert loss > 2.25" in err
    assert "my_job.py, line 21" in launcher.summary()["reason"]


def test_what_the_users_code_prints_is_not_in_the_json(launcher, own):
    own.write_text("print('hello')\n" + OWN)
    code, out, err = launcher.run(own.name, "--json", "--engine", "sequential")
    assert code == 0
    assert out.startswith("{")
    assert "hello" in err
