"""A run examines a sample of what it made: how large, how chosen, and what it may cost the run."""

from __future__ import annotations

from typing import Any

import pytest

from imgflow.orchestration.checks.asset_checks import FEWEST_IMAGES, SAMPLE_IMAGES, Sample
from imgflow_tests.orchestration.audits import evaluations, failing, summaries
from imgflow_tests.orchestration.project import Project
from imgflow_tests.orchestration.test_way import put
from imgflow_tests.pictures import jpeg


def test_a_sample_is_bounded_even_and_repeatable() -> None:
    def chosen(seed: str) -> list[str]:
        sample = Sample(seed, most=5)
        for start in range(0, 1_000, 100):
            sample.add(str(number) for number in range(start, start + 100))
        return sample.keys

    assert chosen("a") == chosen("a") != chosen("b")
    picked = [int(key) for seed in range(200) for key in chosen(str(seed))]
    assert len(picked) == 1_000
    assert 450 < sum(picked) / len(picked) < 550
    few = Sample("a")
    few.add(["x"])
    assert few.keys == ["x"]


def test_a_sample_is_a_hundredth_of_a_run_but_for_the_smallest_and_the_largest() -> None:
    def size(images: int) -> int:
        sample = Sample("a")
        sample.add(map(str, range(images)))
        return len(sample.keys)

    sizes = [size(images) for images in (0, 1, 2, 99, 500, 5_000)]
    assert sizes == [0, 1, FEWEST_IMAGES, FEWEST_IMAGES, 5, SAMPLE_IMAGES]
    seen = []
    for seed in range(300):
        sample = Sample(str(seed))
        sample.add(map(str, range(20)))
        seen += [int(key) for key in sample.keys]
    assert 8 < sum(seen) / len(seen) < 11, "those that come first are not preferred"


def test_a_run_judges_a_sample_of_what_it_made(project: Project) -> None:
    for number in range(FEWEST_IMAGES + 2):
        put(project, f"{number:02}.jpg", jpeg(seed=number))
    put(project, "broken.jpg", b"no image at all")
    (run,) = project.run_requests(project.tick())
    assert not run.success, "one is rejected"
    found = summaries(evaluations(project, run))
    assert failing(found) == {}
    assert len(found) == 5
    for one in found.values():
        assert one.metadata["examined"].value == FEWEST_IMAGES
        assert "sample" in str(one.metadata["scope"].value)


def test_an_examination_that_breaks_fails_no_batch(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any) -> None:
        raise ZeroDivisionError("of the examination")

    monkeypatch.setattr("imgflow.orchestration.checks.examine.judge_picture", broken)
    put(project, "a.jpg", jpeg())
    (run,) = project.run_requests(project.tick())
    assert run.success
    assert evaluations(project, run) == []
    messages = [entry.user_message for entry in project.instance.all_logs(run.run_id)]
    assert any("ZeroDivisionError: of the examination" in message for message in messages)
    assert project.statuses("photo/thumbnail") == {"a.jpg": "green"}
