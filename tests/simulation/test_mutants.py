"""Planted mistakes: the checks find each within few schedules, and nothing in a core without one."""

from dataclasses import replace

import pytest
from mutants import MUTANTS
from schedules import Schedules

pytestmark = pytest.mark.slow

SCHEDULES_MAX = 10_000


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name.replace(" ", "-"))
def test_a_planted_mistake_is_found(mutant, record_property):
    with mutant.planted():
        schedules, what = Schedules().first_found(SCHEDULES_MAX)
    record_property("schedules", schedules)
    record_property("found", what)
    assert schedules, f"not found: {mutant.name}"


def test_nothing_is_found_where_there_is_no_mistake():
    # More schedules than any mutant needs; only then does a find above mean something.
    schedules = Schedules()
    number, what = schedules.first_found(150)
    assert not number, f"{what}\n{schedules.tell(number - 1)}"


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_nothing_is_found_in_many_schedules():
    schedules = Schedules()
    number, what = schedules.first_found(SCHEDULES_MAX)
    assert not number, f"{what}\n{schedules.tell(number - 1)}"


def test_a_mutant_whose_text_is_gone_fails_loudly():
    gone = replace(MUTANTS[0], old="this is nowhere")
    with pytest.raises(AssertionError, match="nowhere"), gone.planted():
        pass


def test_a_schedule_is_the_same_whatever_was_run_before():
    alone, after = Schedules(), Schedules()
    for number in range(3, 60, 28):
        after.run(number)
    assert alone.tell(87) == after.tell(87)
