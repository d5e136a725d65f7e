"""The OpenAPI document against the API that runs: whatever is sent, answers are as declared."""

from __future__ import annotations

import threading
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
import schemathesis
import uvicorn
from fastapi import FastAPI
from fastapi.testclient import TestClient
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from schemathesis import GenerationMode
from schemathesis.specs.openapi.checks import positive_data_acceptance

from imgflow.api.app import create_app
from imgflow.settings.variables import load_settings
from imgflow_tests.api.library import Library
from imgflow_tests.pictures import depth_csv, jpeg

TOKEN = "the-token"  # noqa: S105 - of these tests
EXAMPLES = 25
# Uvicorn answers longer request lines with a 400 of its own, before imgflow is asked.
LONGEST_URL = 60_000

# What is refused is refused by its meaning too: an id that nobody has is a 404, a cursor or an
# interval that is well formed and means nothing a 422.
LEFT_OUT = [positive_data_acceptance]

# No watermark is set, and no server to fetch from.
NEVER_WELL = {"/images/{image}/proof", "/process"}

NAMES = {
    "image": st.sampled_from(["key:b.csv", "key:a.jpg", "key:c%2Fd.jpg", "key:page.jpg", "1"]),
    "name": st.sampled_from(["gray", "viridis_r"]),
    "code": st.sampled_from(["not_found", "unexpected"]),
}


@pytest.fixture(scope="module")
def api(library: Library) -> Iterator[str]:
    """The address of an API with a few images, whose tests may do what they like."""
    own = Library(
        library.settings.home / "schema",
        library.settings.database_url,
        api_token=TOKEN,
        upload_bytes=100_000,
    )
    for key, body in (
        ("a.jpg", jpeg()),
        ("b.csv", depth_csv(rows=30)),
        ("c/d.jpg", jpeg(seed=2)),
        ("page.jpg", b"<html>"),
    ):
        own.put(key, body)
    own.announce()
    own.process()
    config = uvicorn.Config(create_app(own.settings), port=0, log_level="error", access_log=False)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        assert thread.is_alive()
        time.sleep(0.02)
    yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    server.should_exit = True
    thread.join()
    own.engine.dispose()


SCHEMA = schemathesis.openapi.from_dict(
    create_app(load_settings(_env_file=None, home=Path("/nonexistent"))).openapi()
)
# Deleting comes last, or else the other routes would have nothing to show.
OPERATIONS = sorted(
    (found.ok() for found in SCHEMA.get_all_operations()),
    key=lambda operation: operation.method == "delete",
)


def takes_something(operation: Any) -> bool:
    """Whether a request for it can be wrong in another way than by its path."""
    parameters = operation.definition.raw.get("parameters", [])
    return "requestBody" in operation.definition.raw or any(p["in"] == "query" for p in parameters)


WAYS = [
    pytest.param(operation, mode, id=f"{operation.label} {mode.value}")
    for operation in OPERATIONS
    for mode in GenerationMode
    if mode is GenerationMode.POSITIVE or takes_something(operation)
]


# Not by the plugin of schemathesis, which does not know this pytest.
@pytest.mark.parametrize(("operation", "mode"), WAYS)
def test_every_answer_is_as_declared(api: str, operation: Any, mode: GenerationMode) -> None:
    succeeded = 0

    @given(
        case=operation.as_strategy(generation_mode=mode),
        path=st.fixed_dictionaries(NAMES) | st.none() | st.fixed_dictionaries(NAMES),
        is_plain=st.sampled_from([True, False]),
    )
    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    def check(case: schemathesis.Case, path: dict[str, str] | None, is_plain: bool) -> None:
        nonlocal succeeded
        if path is not None:
            case.path_parameters.update(
                {name: value for name, value in path.items() if name in case.path_parameters}
            )
            if is_plain and mode is GenerationMode.POSITIVE:
                case.query = {}
        sent = requests.Request(**case.as_transport_kwargs(base_url=api)).prepare()
        assume(len(sent.url or "") <= LONGEST_URL)
        answer = case.call_and_validate(
            base_url=api,
            headers={"Authorization": f"Bearer {TOKEN}"},
            excluded_checks=LEFT_OUT,
        )
        assert answer.status_code < 500
        succeeded += answer.status_code < 300

    check()
    assert succeeded or mode is GenerationMode.NEGATIVE or operation.path in NEVER_WELL


def test_no_route_is_there_twice(client: TestClient) -> None:
    app = client.app
    assert isinstance(app, FastAPI)
    app.openapi_schema = None
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # FastAPI warns of operations with the same name
        assert app.openapi()["paths"]
