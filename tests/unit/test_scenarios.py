"""The golden transcripts in tests/scenarios, read and run again."""

from pathlib import Path

import pytest
import transcripts

FILES = sorted((Path(__file__).parent.parent / "scenarios").glob("*.txt"))


def check(path, rewrite):
    before = path.read_text(encoding="utf-8")
    after = transcripts.run(before)
    if rewrite and after != before:
        path.write_text(after, encoding="utf-8")
    # A run that rewrites fails, too: nobody has read the new text yet, and CI must not accept it unread.
    assert after.splitlines() == before.splitlines(), "pytest --rewrite writes it anew; read the diff then"


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_transcript(path, request):
    check(path, request.config.getoption("rewrite"))


def test_every_rule_and_story_has_its_transcript():
    stories = {"sync", "async", "ssp", "sync_versus_ssp0", "duplicates", "refused", "leases"}
    stories |= {"join_and_initialise", "late_joiner", "elastic", "two_shards_death"}
    assert stories <= {path.stem for path in FILES}


def test_a_changed_transcript_fails_even_in_the_run_that_rewrites_it(tmp_path):
    right = transcripts.run("# A comment.\njob async replicas=1\njoin a\n")
    assert "  a is replica 0 and begins at clock 0\n" in right
    wrong = right.replace("replica 0", "replica 7")
    path = tmp_path / "story.txt"
    path.write_text(wrong, encoding="utf-8")
    with pytest.raises(AssertionError, match="--rewrite"):
        check(path, rewrite=False)
    assert path.read_text(encoding="utf-8") == wrong
    with pytest.raises(AssertionError, match="--rewrite"):
        check(path, rewrite=True)
    assert path.read_text(encoding="utf-8") == right
    check(path, rewrite=False)


def test_an_unknown_command_is_an_error():
    with pytest.raises(AttributeError):
        transcripts.run("job async\njump 0\n")
