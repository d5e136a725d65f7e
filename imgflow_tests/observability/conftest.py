"""One `imgflow up` for the tests of logs and of traces."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from imgflow_tests.observability.followed import Followed, followed_uploads
from imgflow_tests.observability.receiver import Receiver
from imgflow_tests.orchestration.conftest import moto

__all__ = ["moto"]


@pytest.fixture(scope="session")
def followed(moto: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Followed]:
    """A bucket with a queue; one upload that becomes ready and one that is rejected."""
    with followed_uploads(moto, tmp_path_factory.mktemp("up")) as found:
        yield found


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    receiver = Receiver()
    yield receiver
    receiver.close()
