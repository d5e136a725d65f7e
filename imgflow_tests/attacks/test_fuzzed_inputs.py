"""Uploaders send damaged files of every format: each is ready or rejected, shown and stored."""

from __future__ import annotations

from pathlib import Path

import pytest

from imgflow_tests.attacks import fuzz
from imgflow_tests.attacks.mutations import mutated, seeds

SEED = 20_261
COUNTS = {"depth": 4_000, "photo": 3_000}
THROUGH_THE_POOL = 150


@pytest.mark.slow
@pytest.mark.parametrize("kind", COUNTS)
def test_damaged_files_are_ready_or_rejected_and_nothing_else(kind: str) -> None:
    found = fuzz.run(kind, COUNTS[kind], SEED)
    assert found.finds == {}
    assert found.outcomes.total() == COUNTS[kind]
    assert found.outcomes["ready"] > COUNTS[kind] / 20
    assert len(found.outcomes) > 5


@pytest.mark.slow
@pytest.mark.parametrize("kind", COUNTS)
def test_damaged_files_go_through_real_workers_into_the_database_as_one_batch(
    kind: str, tmp_path: Path, database_url: str
) -> None:
    found = fuzz.through_the_pool(kind, THROUGH_THE_POOL, SEED, tmp_path, database_url)
    assert found.finds == {}
    assert found.outcomes.total() == THROUGH_THE_POOL


def test_a_case_is_the_same_each_time() -> None:
    for kind in COUNTS:
        assert seeds(kind)
        cases = [[mutated(kind, SEED, number) for number in range(30)] for _ in range(2)]
        assert cases[0] == cases[1]
