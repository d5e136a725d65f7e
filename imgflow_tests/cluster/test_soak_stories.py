"""The stories of a soak have all that a soak is for, and are the same for the same seed."""

from __future__ import annotations

import pytest

from imgflow.depth.readers.registry import is_depth_key
from imgflow_tests.cluster.soak_measures import Life
from imgflow_tests.cluster.soak_stored import Judgement
from imgflow_tests.cluster.soak_stories import MAKERS, Step, contents_of, ends, tell

IMAGES = 2_000


@pytest.fixture(scope="module")
def steps() -> list[Step]:
    return tell(IMAGES, seed=7)


def test_a_seed_tells_the_same_story_again_and_another_one_another(steps: list[Step]) -> None:
    assert tell(IMAGES, seed=7) == steps
    assert tell(IMAGES, seed=8) != steps


def test_there_are_uploads_overwrites_deletions_and_returns(steps: list[Step]) -> None:
    assert len({step.key for step in steps}) == IMAGES
    assert 0.8 * IMAGES < len(ends(steps)) < IMAGES
    before: dict[str, Step] = {}
    happened = {"overwritten": 0, "alike": 0, "deleted": 0, "back": 0}
    for step in steps:
        last = before.get(step.key)
        if last is None:
            assert step.content is not None, "an object begins with an upload"
        elif step.content is None:
            assert last.content is not None, "nothing is deleted twice"
            happened["deleted"] += 1
        elif last.content is None:
            happened["back"] += 1
        else:
            happened["alike" if step.content == last.content else "overwritten"] += 1
        before[step.key] = step
    assert all(count > IMAGES * 0.01 for count in happened.values()), happened


def test_every_form_of_content_occurs_and_copies_under_other_keys(steps: list[Step]) -> None:
    contents = contents_of(steps)
    every = [content for found in contents.values() for content in found]
    assert {content.form for content in every} == set(MAKERS)
    assert IMAGES * 0.01 < len(every) - len(set(every)) < IMAGES * 0.1
    bodies = {content.body() for content in set(every) if content.form != "empty"}
    assert len(bodies) == len({content for content in every if content.form != "empty"})
    for key, found in contents.items():
        assert all(is_depth_key(key) == (one.form in ("csv", "words")) for one in found)


def test_what_is_missing_or_too_many_is_told_by_name() -> None:
    judgement = Judgement()
    judgement.compare("rows", ["a", "b"], ["b", "c"])
    assert judgement.wrong == ["rows: 1 too many: ['a']", "rows: 1 missing: ['c']"]


def test_the_growth_of_a_process_leaves_its_warm_up_out() -> None:
    minutes = [number / 10 for number in range(60)]
    flat = Life("api", [60 * m for m in minutes], [100 + min(m, 1) * 50 for m in minutes])
    grows = Life("api", [60 * m for m in minutes], [100 + m * 3 for m in minutes])
    assert flat.growth == pytest.approx(0)
    assert flat.slope == pytest.approx(0)
    assert grows.slope == pytest.approx(3)
    assert grows.growth == pytest.approx(6)
