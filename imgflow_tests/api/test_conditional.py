from __future__ import annotations

import pytest

from imgflow.api.http.serving import Unsatisfiable, asked_bytes, entity_tag, is_known

ETAG = '"abc"'


@pytest.mark.parametrize(
    ("header", "known"),
    [
        (None, False),
        ("*", True),
        ('"abc"', True),
        ('W/"abc"', True),
        ('"x", W/"y" , "abc"', True),
        ('"ab"', False),
        ("abc", False),
        ("", False),
    ],
)
def test_if_none_match_is_a_list_that_is_compared_weakly(header: str | None, known: bool) -> None:
    assert is_known(header, ETAG) is known


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("bytes=0-3", (0, 4)),
        ("bytes=3-", (3, 10)),
        ("bytes=-4", (6, 10)),
        ("bytes=-99", (0, 10)),
        ("bytes=8-99", (8, 10)),
        ("Bytes = 1-1", (1, 2)),
        ("bytes=0-1,3-4", None),
        ("rows=0-3", None),
        ("bytes=4-3", None),
        ("bytes=-", None),
        ("bytes=x-3", None),
        (None, None),
    ],
)
def test_one_range_of_bytes_is_understood_and_others_are_ignored(
    header: str | None, expected: tuple[int, int] | None
) -> None:
    assert asked_bytes(header, None, ETAG, 10) == expected


@pytest.mark.parametrize("header", ["bytes=10-", "bytes=10-12", "bytes=-0"])
def test_a_range_behind_the_end_cannot_be_satisfied(header: str) -> None:
    with pytest.raises(Unsatisfiable):
        asked_bytes(header, None, ETAG, 10)


def test_no_range_of_an_empty_body_can_be_satisfied() -> None:
    with pytest.raises(Unsatisfiable):
        asked_bytes("bytes=0-", None, ETAG, 0)


@pytest.mark.parametrize("if_range", ['"old"', 'W/"abc"', "Sat, 29 Oct 1994 19:43:31 GMT"])
def test_a_range_of_another_body_gives_the_whole_one(if_range: str) -> None:
    assert asked_bytes("bytes=0-3", if_range, ETAG, 10) is None


def test_a_range_of_the_same_body_is_given() -> None:
    assert asked_bytes("bytes=0-3", ETAG, ETAG, 10) == (0, 4)


def test_entity_tags_differ_where_parts_do() -> None:
    tags = {entity_tag("a", 1), entity_tag("a", 1.0), entity_tag("a1"), entity_tag("a", None)}
    assert len(tags) == 4
    assert entity_tag("a", 1) == entity_tag("a", 1)
