"""How far a run is, in a few lines."""

from __future__ import annotations

from itertools import pairwise

import pytest

from imgflow.orchestration.runs.execute import LONGEST_SECONDS, Progress, progress_line


def said(total: int, seconds_each: float) -> list[tuple[float, str]]:
    """The lines of a run with their times."""
    now = 0.0
    lines: list[tuple[float, str]] = []
    progress = Progress(total, lambda line: lines.append((now, line)), lambda: now)
    for done, _ in enumerate(progress.counting(range(total)), 1):
        now = done * seconds_each
    return lines


def test_a_short_run_says_nothing() -> None:
    assert said(100, 0.009) == []


def test_lines_come_seldom_and_ever_more_seldom() -> None:
    lines = said(1_000_000, 0.005)
    waits = [after - before for (before, _), (after, _) in pairwise(lines)]
    assert lines[0][0] >= 1
    assert min(waits) >= 2
    assert max(waits) <= LONGEST_SECONDS + 1
    assert len([time for time, _ in lines if time <= 60]) <= 6
    assert len([time for time, _ in lines if time <= 900]) <= 20


def test_images_that_take_longer_than_a_second_are_told_one_by_one_at_most() -> None:
    assert len(said(3, 90)) == 2


def test_nothing_is_held_back_or_changed() -> None:
    progress = Progress(3, lambda _line: None)
    assert list(progress.counting("abc")) == ["a", "b", "c"]


@pytest.mark.parametrize(
    ("done", "total", "seconds", "line"),
    [
        (500, 2_000, 2.5, "500 of 2,000 images (25 %), 200 a second, 8 s to go."),
        (1, 100, 90, "1 of 100 images (1 %), 0.0111 a second, 2 h 28 min to go."),
        (999, 1_000, 1_000, "999 of 1,000 images (99 %), 0.999 a second, 1 s to go."),
        (10, 130, 10.0, "10 of 130 images (7 %), 1 a second, 2 min 0 s to go."),
        (0, 7, 4.0, "0 of 7 images (0 %) after 4 s."),
    ],
)
def test_the_line_has_done_of_total_rate_and_remaining_time(
    done: int, total: int, seconds: float, line: str
) -> None:
    assert progress_line(done, total, seconds) == line
