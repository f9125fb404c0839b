"""Options that change what is trained: splits, targets, clipping, other data, each with its model."""

import pytest


@pytest.mark.parametrize("engine", ["local", "sequential"])
def test_a_job_ends_well_when_it_reaches_its_target(launcher, engine):
    options = ("--epochs", "100000", "--schedule", "constant", "--target-accuracy", "0.8", "--engine", engine)
    code, out, err = launcher.run(*options, "--quiet")
    assert (code, err) == (0, "")
    summary = launcher.summary()
    assert summary["outcome"] == "finished"
    assert summary["validation"][-1]["accuracy"] >= 0.8
    assert summary["accuracy"] > 0.7
    samples = summary["samples"]
    ends = ("applied", "dropped", "fenced", "partial", "lost", "rolled_back")
    assert samples["computed"] == sum(samples[end] for end in ends)
    assert len(set(summary["versions"])) == 1, "every shard ends after the same round"
    [note] = summary["notes"]
    assert note.endswith("reached the target 0.8.")
    assert "reached the target 0.8." in " ".join(out.split())


@pytest.mark.parametrize(
    "options",
    [
        ("--split", "dirichlet:0.3", "--clip-norm", "0.1", "--optimizer", "nesterov+decay:0.001"),
        ("--model", "cnn:4:dropout=0.5", "--schedule", "warmup:10%+step:0.5,50%", "--batch", "100"),
        ("--data", "synthetic:linear,n=400", "--model", "linear", "--optimizer", "rmsprop"),
    ],
)
def test_every_engine_ends_with_the_same_bytes(launcher, options):
    hashes = []
    worlds = {"sim": ("--compute", "lognormal:20ms,0.5 w1=x3", "--network", "ideal", "--faults", "lose=2%")}
    for engine in ("local", "sequential", "sim"):
        launcher.out = launcher.folder / engine
        world = worlds.get(engine, ())
        code, _, err = launcher.run("--quiet", "--epochs", "1", "--engine", engine, *options, *world)
        assert code == 0, err
        hashes.append(launcher.summary()["weights_sha256"])
        assert launcher.summary()["dealing"].endswith("None is repeated or left out.")
    assert hashes[0] == hashes[1] == hashes[2]


def test_numbers_are_judged_by_r2(launcher):
    options = ("--data", "synthetic:linear,n=400", "--model", "linear", "--lr", "0.1", "--epochs", "20")
    code, out, err = launcher.run("--quiet", "--engine", "sequential", *options)
    assert (code, err) == (0, "")
    assert out.startswith("test R2 ")
    assert launcher.summary()["accuracy"] > 0.9
    assert launcher.summary()["task"] == "regression"


def test_a_users_csv_with_named_classes_is_trained_and_its_names_are_kept(launcher):
    lines = "".join(f"{n % 7},{n % 3 - 1.0},{('low', 'mid', 'high')[n % 3]}\n" for n in range(90))
    (launcher.folder / "mine.csv").write_text(f"a,b,kind\n{lines}")
    options = ("--data", "mine.csv", "--model", "softmax", "--epochs", "100", "--engine", "sequential")
    code, _, err = launcher.run("--quiet", *options)
    assert (code, err) == (0, "")
    assert launcher.summary()["accuracy"] > 0.6
    assert launcher.summary()["class_names"] == ["high", "low", "mid"]
