"""A job as a person states it, and back again."""

import math
import re
import tomllib
from dataclasses import fields, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paramserver.errors import RequestError
from paramserver.job import Job
from paramserver.job_toml import job_from_toml, job_values

TEXTS = st.text(st.characters(exclude_categories=["Cs"]))  # what a file in UTF-8 can hold
VALUES = {
    bool: st.booleans(),
    str: TEXTS,
    int: st.integers(-(2**63), 2**63 - 1),
    float: st.floats(allow_nan=False, allow_infinity=False),
}


@given(st.fixed_dictionaries({}, optional={f.name: VALUES[type(f.default)] for f in fields(Job)}))
def test_a_job_file_reads_back_as_it_was_written(values):
    job = Job(**values)
    assert job_from_toml(job.to_toml(), "job.toml") == job


def test_a_resolved_job_resolves_to_itself():
    for rule in ("sync", "async", "ssp:2"):
        job = Job(consistency=rule).resolved()
        assert job.resolved() == job
        assert job_from_toml(job.to_toml(), "job.toml").resolved() == job


def test_what_is_not_said_is_chosen():
    assert Job(consistency="sync").resolved().on_death == "restart"
    assert Job(consistency="ssp:1").resolved().on_death == "drop"
    assert Job(consistency="sync", on_death="drop").resolved().on_death == "drop"
    assert Job(optimizer="momentum:0.5").resolved().lr == 0.1
    assert Job(optimizer="sgd+decay:0.1").resolved().lr == 0.7
    assert Job(lr=0.5).resolved().lr == 0.5


def test_what_is_not_in_a_file_keeps_its_default():
    assert job_from_toml("", "job.toml") == Job()
    assert job_from_toml("lr = 1", "job.toml").lr == 1.0
    assert type(job_from_toml("lr = 1", "job.toml").lr) is float


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("epoch = 3", "no key 'epoch' in a job, but the job file job.toml has it. Did you mean 'epochs'?"),
        ("learning = 3", "no key 'learning'"),
        ("epochs = '3'", "'epochs' in the job file job.toml must be a whole number, but it is the str '3'"),
        ("epochs = 3.0", "must be a whole number, but it is the float 3.0"),
        ("epochs = true", "must be a whole number, but it is the bool True"),
        ("lr = true", "must be a number, but it is the bool True"),
        ("data = 3", "must be a text in quotes, but it is the int 3"),
        ("trace = 1", "'trace' in the job file job.toml must be true or false, but it is the int 1"),
        ("model = ['mlp']", "must be a text in quotes"),
        ("[data]\nname = 'digits'", "must be a text in quotes"),
        ("epochs =", "job file job.toml is not valid TOML"),
        ("epochs = 3\nepochs = 4", "not valid TOML"),
    ],
)
def test_a_wrong_key_or_type_is_refused_by_name(text, sentence):
    with pytest.raises(RequestError) as refused:
        job_from_toml(text, "job.toml")
    assert sentence in str(refused.value)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"epochs": 0}, "'epochs' must be 1 or more, but it is 0"),
        ({"workers": -1}, "'workers' must be 1 or more"),
        ({"seed": -1}, "'seed' must be 0 or more"),
        ({"blas_threads": -1}, "'blas_threads' must be 0 or more"),
        ({"lease_seconds": 0.0}, "'lease_seconds' must be a number of seconds above 0"),
        ({"step_timeout": math.inf}, "'step_timeout' must be"),
        ({"start_timeout": math.nan}, "'start_timeout' must be"),
        ({"lr": -0.1}, "'lr' must be"),
        ({"lr": math.nan}, "'lr' must be"),
        ({"engine": "locl"}, "Did you mean 'local'?"),
        ({"on_death": "restrat"}, "Did you mean 'restart'?"),
        ({"optimizer": "adm"}, "Did you mean 'adam'?"),
        ({"optimizer": "adam:0.9,2"}, "'2'"),
        ({"schedule": "cosin"}, "Did you mean 'cosine'?"),
        ({"split": "by-lable"}, "Did you mean 'by-label'?"),
        ({"split": "dirichlet"}, "such as dirichlet:0.5"),
        ({"target_accuracy": 95.0}, "'target_accuracy' must be from 0 to 1, such as 0.95, but it is 95.0."),
        ({"clip_norm": -1.0}, "'clip_norm' must be a number above 0"),
        ({"clip_norm": math.nan}, "'clip_norm' must be"),
        ({"model": "code"}, "The model of this job is that of a Python file, but no file is named."),
        ({"data": "code"}, "Name it with --code."),
        ({"consistency": "asinc"}, "Did you mean 'async'?"),
        ({"consistency": "ssp"}, "Give the bound"),
    ],
)
def test_what_is_out_of_range_is_refused_by_name(changes, sentence):
    with pytest.raises(RequestError) as refused:
        replace(Job(), **changes).resolved()
    assert sentence in str(refused.value)


def test_a_wrong_value_is_named_with_its_source():
    with pytest.raises(RequestError, match="but the command line has it"):
        job_values({"epoc": 3}, "the command line")


def test_what_replicas_and_servers_agree_on():
    job = Job(workers=2, threads=3, consistency="ssp:4", lr=0.5).resolved()
    spec = job.spec({"b": (2,), "a": (3, 2)}, steps=[5, 4, 4, 4, 4, 4])
    assert [(tensor.key, tensor.shape) for tensor in spec.tensors] == [("a", (3, 2)), ("b", (2,))]
    assert (spec.replicas, spec.replicas_max) == (6, 70)
    assert spec.versions_total == 25
    assert replace(job, consistency="sync").spec({"a": (1,)}, [5, 4, 4, 4, 4, 4]).versions_total == 5
    assert spec.fingerprint() == job.spec({"a": (3, 2), "b": (2,)}, [5, 4, 4, 4, 4, 4]).fingerprint()
    assert spec.fingerprint() != replace(spec, seed=1).fingerprint()


def test_the_differences_of_two_jobs_name_fields_and_tensors():
    spec = Job().resolved().spec({"a": (3, 2), "b": (2,)}, [5] * 4)
    other = replace(Job(seed=3).resolved().spec({"a": (2, 3), "c": (2,)}, [5] * 4))
    assert spec.differences(spec) == []
    assert spec.differences(other) == [
        "tensor 'a': (3, 2) float32 != (2, 3) float32",
        "tensor 'b': (2,) float32 != none",
        "seed: 0 != 3",
        "tensor 'c': none != (2,) float32",
    ]


def test_a_job_file_is_toml_that_others_can_read():
    values = tomllib.loads(Job(data='a "b" \\ \n\x7f ü 😀').to_toml())
    assert values["data"] == 'a "b" \\ \n\x7f ü 😀'
    assert values.keys() == {field.name for field in fields(Job)}


@pytest.mark.parametrize(
    ("text", "updates", "seconds"),
    [
        ("100", 100, 0),
        ("30s", 0, 30),
        ("2m", 0, 120),
        ("2min", 0, 120),
        ("0.5s", 0, 0.5),
        ("250ms", 0, 0.25),
        ("never", 0, 0),
        ("0", 0, 0),
    ],
)
def test_checkpoints_go_by_updates_or_by_time(text, updates, seconds):
    spec = Job(checkpoint_every=text).resolved().spec({"w": (2,)}, (3,))
    assert (spec.checkpoint_updates, spec.checkpoint_seconds) == (updates, pytest.approx(seconds))


@pytest.mark.parametrize("text", ["", "-1", "0s", "1.5", "often", "s", "3 parsecs", "1e400s", "nans"])
def test_anything_else_is_no_rhythm(text):
    with pytest.raises(RequestError, match="such as 100, a time such as 30s or 2m, or never, but it is"):
        Job(checkpoint_every=text).resolved()


@pytest.mark.parametrize(
    ("field", "value", "sentence"),
    [
        ("durability", "journals", "'durability' is one of checkpoint, journal, none, not 'journals'"),
        ("restart_timeout", 0.0, "'restart_timeout' must be a number of seconds above 0"),
        ("max_restarts", -1, "'max_restarts' must be 0 or more, but it is -1"),
        ("checkpoint_keep", 0, "'checkpoint_keep' must be 1 or more, but it is 0"),
    ],
)
def test_what_is_said_of_surviving_is_checked(field, value, sentence):
    with pytest.raises(RequestError, match=re.escape(sentence)):
        Job(**{field: value}).resolved()
