"""A short soak: workers are killed while objects come, change and go, and nothing is lost.

`make soak` is the long one.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from imgflow_tests.cluster.conftest import check_parts
from imgflow_tests.cluster.soak import Plan, Soaked, running, soak

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

PLAN = Plan(images=1_500, minutes=1.5, kill_seconds=30, seed=5, only_busy=True)


@pytest.fixture(scope="module")
def soaked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Soaked]:
    check_parts()
    with running(tmp_path_factory.mktemp("soak") / "cluster") as cluster:
        cluster.up()
        yield soak(cluster, PLAN)


def test_workers_died_with_images_in_their_hands(soaked: Soaked) -> None:
    assert len(soaked.kills) >= 2
    assert sum(in_hand for _, in_hand in soaked.kills) > 0


def test_nothing_is_lost_nothing_is_done_twice_and_all_parts_agree(soaked: Soaked) -> None:
    assert soaked.judgement.wrong == []
    counts = soaked.judgement.counts
    assert counts["rows"] == counts["ready"] + counts["rejected"] > 1_200
    assert counts["outputs that were looked at"] > 2_000


def test_memory_stays_flat_and_connections_are_bounded(soaked: Soaked) -> None:
    assert soaked.measures.excesses() == []
    assert {"daemon", "webserver", "api"} <= {life.service for life in soaked.measures.long_lives()}
