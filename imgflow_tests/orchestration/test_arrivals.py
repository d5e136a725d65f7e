"""Which ranges are run: decisions over keys alone."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from imgflow.orchestration.runs.ranges import plan_ranges

KNOWN = list("abcdefgh")


def spans(wanted: str, **options: object) -> list[tuple[str, str]]:
    ranges = plan_ranges(list(wanted), KNOWN, **options)  # type: ignore[arg-type]
    return [(found.start, found.end) for found in ranges]


def test_new_keys_make_one_range_in_the_order_in_which_they_are_added() -> None:
    assert spans("zyx") == [("x", "z")]


def test_done_images_between_two_wanted_ones_are_cheaper_than_a_further_run() -> None:
    assert spans("bg") == [("b", "g")]
    assert spans("bg", most_between=3) == [("b", "b"), ("g", "g")]
    assert spans("bg", most_between=4) == [("b", "g")]


def test_an_image_that_must_stay_out_ends_a_range() -> None:
    assert spans("bdf", blocked=["e"]) == [("b", "d"), ("f", "f")]
    assert spans("bdf", blocked=["a", "h"]) == [("b", "f")]
    assert spans("bdf", blocked=["d"]) == [("b", "f")], "it is wanted, so it is not in the way"


def test_a_large_arrival_is_split() -> None:
    assert spans("abcde", most=2) == [("a", "b"), ("c", "d"), ("e", "e")]


def test_nothing_wanted_makes_no_range() -> None:
    assert spans("") == []


@given(
    st.lists(st.integers(0, 60), unique=True),
    st.sets(st.integers(0, 80)),
    st.sets(st.integers(0, 60)),
    st.integers(1, 9),
    st.integers(0, 9),
)
def test_every_wanted_key_is_covered_once_and_no_blocked_one_ever(
    known: list[int], wanted: set[int], blocked: set[int], most: int, most_between: int
) -> None:
    names = [f"{number:03d}" for number in known]
    asked = {f"{number:03d}" for number in wanted}
    out = {f"{number:03d}" for number in blocked} - asked
    ranges = plan_ranges(asked, names, blocked=out, most=most, most_between=most_between)
    order = [*names, *sorted(asked - set(names))]
    covered = [
        key
        for found in ranges
        for key in order[order.index(found.start) : order.index(found.end) + 1]
    ]
    assert len(covered) == len(set(covered))
    assert asked <= set(covered)
    assert not out & set(covered)
    assert sorted(key for found in ranges for key in found.wanted) == sorted(asked)
    assert all(len(found.wanted) <= most for found in ranges)


def test_a_range_ends_when_its_images_take_long_enough() -> None:
    seconds = {"a": 1, "b": 1, "c": 5, "d": 1, "e": 1, "f": 1}
    assert spans("abcdef", seconds=seconds, most_seconds=2) == [
        ("a", "b"),
        ("c", "c"),
        ("d", "e"),
        ("f", "f"),
    ]
