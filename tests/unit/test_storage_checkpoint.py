"""A checkpoint comes back whole to the byte, or is refused with a sentence."""

import json
import os
import shutil

import numpy as np
import pytest
from safetensors.numpy import load_file

from paramserver.errors import RequestError
from paramserver.events import Slice, TensorSpec
from paramserver.placement import place, rows
from paramserver.storage import MANIFEST, SliceValues, read_checkpoint, write_manifest, write_shard
from paramserver.types import tensors_sha256

SPECS = [TensorSpec("dense1/weight", (7, 3)), TensorSpec("dense1/bias", (5,)), TensorSpec("scale", ())]


def tensors(seed):
    rng = np.random.default_rng(seed)
    return {spec.key: np.asarray(rng.normal(size=spec.shape), np.float32) for spec in SPECS}


WEIGHTS = tensors(0)
STATE = {"0.adam/m": tensors(1), "0.adam/v": tensors(2)}


def write(folder, shards=2, state=STATE, versions=(12, 12), generation=0, weights=WEIGHTS):
    parts = place(SPECS, shards)
    return [
        write_shard(
            folder,
            shard,
            shards,
            [
                SliceValues(
                    part,
                    rows(weights[part.key], part),
                    {n: rows(t[part.key], part) for n, t in state.items()},
                )
                for part in parts
                if part.shard == shard
            ],
            version=versions[shard % len(versions)],
            generation=generation,
        )
        for shard in range(shards)
    ]


def finish(folder, files, generation=0):
    return write_manifest(folder, SPECS, files, generation, "adam", {"model": "mlp:5", "seed": 3})


@pytest.fixture
def checkpoint(tmp_path):
    finish(tmp_path, write(tmp_path))
    return tmp_path


def edit(folder, change):
    path = folder / MANIFEST
    record = json.loads(path.read_text())
    change(record)
    path.write_text(json.dumps(record))


def refusal(folder):
    with pytest.raises(RequestError) as caught:
        read_checkpoint(folder)
    return str(caught.value)


@pytest.mark.parametrize("shards", [1, 2, 5, 30])
@pytest.mark.parametrize("state", [{}, STATE], ids=["sgd", "adam"])
def test_a_checkpoint_comes_back_to_the_byte(tmp_path, shards, state):
    manifest = finish(tmp_path / "checkpoint", write(tmp_path / "checkpoint", shards, state, versions=(3, 4)))
    back = read_checkpoint(tmp_path / "checkpoint")
    assert manifest.weights_sha256 == tensors_sha256(WEIGHTS) == tensors_sha256(back.weights)
    assert back.manifest == manifest
    assert back.versions == tuple((3, 4)[shard % 2] for shard in range(shards))
    assert back.manifest.details == {"model": "mlp:5", "seed": 3}
    for key, weights in WEIGHTS.items():
        assert back.weights[key].shape == weights.shape
        assert back.weights[key].flags.writeable
        assert sorted(back.state[key]) == sorted(state)
        for name, whole in state.items():
            assert back.state[key][name].tobytes() == whole[key].tobytes()


def test_the_files_are_plain_safetensors_and_nothing_is_left_beside_them(checkpoint):
    assert sorted(path.name for path in checkpoint.iterdir()) == [
        MANIFEST,
        "shard-0000-of-0002.safetensors",
        "shard-0001-of-0002.safetensors",
    ]
    first = load_file(checkpoint / "shard-0000-of-0002.safetensors")
    np.testing.assert_array_equal(first["weights/dense1/bias[0:5]"], WEIGHTS["dense1/bias"])
    np.testing.assert_array_equal(first["state/0.adam/m/dense1/bias[0:5]"], STATE["0.adam/m"]["dense1/bias"])


def test_without_its_manifest_it_was_never_finished(tmp_path):
    write(tmp_path)
    assert "no finished checkpoint: it has no manifest.json" in refusal(tmp_path)


def test_a_changed_byte_is_noticed(checkpoint):
    path = checkpoint / "shard-0001-of-0002.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    assert "shard-0001-of-0002.safetensors is not the file that the manifest means" in refusal(checkpoint)


def test_a_torn_or_missing_file_is_noticed(checkpoint):
    path = checkpoint / "shard-0000-of-0002.safetensors"
    os.truncate(path, path.stat().st_size - 4)
    assert "torn" in refusal(checkpoint)
    path.unlink()
    assert "cannot be read: No such file" in refusal(checkpoint)


def test_shards_of_different_moments_are_not_mixed(checkpoint, tmp_path_factory):
    other = tmp_path_factory.mktemp("later")
    files = write(other, versions=(13, 13), weights=tensors(9))
    shutil.copy(other / files[1].name, checkpoint / files[1].name)
    assert "belongs to another checkpoint" in refusal(checkpoint)
    # Even with a matching hash in the manifest, the file itself says of which version it is.
    edit(checkpoint, lambda record: record["files"][1].update(sha256=files[1].sha256))
    assert "should be of version 12, but it is of version 13" in refusal(checkpoint)
    edit(checkpoint, lambda record: record["files"][1].update(version=13))
    assert "files and its manifest do not belong together" in refusal(checkpoint)


def test_a_manifest_is_not_written_for_files_that_do_not_fit(tmp_path):
    files = write(tmp_path)
    with pytest.raises(RequestError, match=r"one file for each shard .* the shards \[1\]"):
        finish(tmp_path, files[1:])
    with pytest.raises(
        RequestError, match="should hold 7 rows of 'dense1/weight', but its slices end at row 3"
    ):
        finish(tmp_path, files[:1])
    with pytest.raises(RequestError, match="The checkpoint is of generation 1, but shard-0000"):
        finish(tmp_path, files, generation=1)
    (tmp_path / files[1].name).unlink()
    with pytest.raises(RequestError, match="No such file"):
        finish(tmp_path, files)
    assert not (tmp_path / MANIFEST).exists()


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda r: r.update(format_version=2), "should have format_version 1, but it has 2"),
        (lambda r: r.update(generation=-1), "'generation' should be 0 or more, but it is -1"),
        (lambda r: r.update(generation=True), "'generation' should be of type int, but it is true"),
        (lambda r: r.update(generation=7), "of generation 7, but shard-0000-of-0002.safetensors"),
        (lambda r: r.pop("files"), "'files' should be of type list, but it is null"),
        (lambda r: r.update(files=[]), "one file for each shard"),
        (lambda r: r.update(files=["x"]), "'files' should be a list of objects"),
        (lambda r: r["files"].reverse(), "the shards [1, 0]"),
        (lambda r: r["files"][0].update(name="../secret"), "its manifest names '../secret'"),
        (lambda r: r["files"][0].update(name="/etc/passwd"), "its manifest names '/etc/passwd'"),
        (lambda r: r["files"][0].update(name=".."), "its manifest names '..'"),
        (lambda r: r["files"][0].update(name="a\n"), "its manifest names 'a"),
        (lambda r: r["files"][0]["state_names"].pop(), "Every shard needs the same optimizer state"),
        (lambda r: [f["state_names"].pop() for f in r["files"]], "of which the manifest knows nothing"),
        (lambda r: [f["state_names"].append("z") for f in r["files"]], "should hold the tensor 'state/z/"),
        (lambda r: r["files"][0]["slices"].pop(), "should go on at row 0, but the next one has the rows 3"),
        (lambda r: r["files"][0]["slices"].append(r["files"][0]["slices"][0]), "should go on at row"),
        (lambda r: r["tensors"].pop(), "which is none of its tensors"),
        (lambda r: r["tensors"].append(r["tensors"][0]), "names one key twice"),
        (lambda r: r["tensors"][0].update(dtype="float64"), "is float64, but only float32"),
        (lambda r: r["tensors"][0].update(shape=[10**12]), "should hold 1000000000000 rows"),
        (
            lambda r: r["tensors"][0].update(shape=[5, 10**12]),
            "should be (5, 1000000000000) F32, but it is (5,)",
        ),
        (lambda r: r["tensors"][0].update(shape=[-5]), "'shape' should be a list of numbers above 0"),
        (lambda r: r.update(weights_sha256="0" * 64), "should have the SHA-256 000000000000"),
    ],
)
def test_a_manifest_that_contradicts_itself_or_its_files_is_refused(checkpoint, change, sentence):
    edit(checkpoint, change)
    assert sentence in refusal(checkpoint)


@pytest.mark.parametrize("content", [b"", b"{", b"[1]", b"\xff\xfe", b"[" * 100_000])
def test_a_manifest_that_is_no_manifest_is_refused(checkpoint, content):
    (checkpoint / MANIFEST).write_bytes(content)
    assert str(checkpoint / MANIFEST) in refusal(checkpoint)


def test_a_shard_refuses_arrays_that_do_not_fit_their_slice(tmp_path):
    def write_one(values, state, begin=0, end=2):
        item = SliceValues(Slice("w", begin, end, 0), values, state)
        write_shard(tmp_path, 0, 1, [item], version=1, generation=0)

    good = np.zeros((2, 3), np.float32)
    write_one(good, {"m": good})
    with pytest.raises(RequestError, match="'w' from row 0 to 4 has values of 2 rows"):
        write_one(good, {}, end=4)
    with pytest.raises(RequestError, match=r"'w', m: expected \(2, 3\) float32, found \(3,\) float32"):
        write_one(good, {"m": np.zeros(3, np.float32)})
    with pytest.raises(RequestError, match=r"'w', values: expected .* found \(2, 3\) float64"):
        write_one(good.astype(np.float64), {})
    items = [SliceValues(Slice(key, 0, 2, 0), good, state) for key, state in [("a", {}), ("b", {"m": good})]]
    with pytest.raises(RequestError, match="need the same optimizer state, but 'b' has"):
        write_shard(tmp_path, 0, 1, items, version=1, generation=0)


def test_slices_that_are_views_of_larger_or_strided_arrays_are_written_right(tmp_path):
    whole = np.arange(24, dtype=np.float32).reshape(4, 6)
    item = SliceValues(Slice("w", 0, 4, 0), whole[:, ::2], {})
    file = write_shard(tmp_path, 0, 1, [item], version=1, generation=0)
    write_manifest(tmp_path, [TensorSpec("w", (4, 3))], [file], 0, "sgd")
    np.testing.assert_array_equal(read_checkpoint(tmp_path).weights["w"], whole[:, ::2])
