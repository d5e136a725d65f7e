"""What the API processed by URL is told to Dagster by the next run, without any pixel work."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from imgflow.api.app import create_app
from imgflow_tests.api.library import local
from imgflow_tests.fetch.servers import ok, serving
from imgflow_tests.orchestration.project import Project
from imgflow_tests.pictures import jpeg

TOKEN = "the-token"  # noqa: S105 - of these tests
SECRET = "5ecre7" * 5
MakeProject = Callable[..., Project]


def process(project: Project, url: str) -> None:
    with local(create_app(project.settings)) as client:
        answer = client.post(
            "/process", json={"url": url}, headers={"Authorization": f"Bearer {TOKEN}"}
        )
    assert answer.status_code in (200, 422), answer.text


def test_its_partition_is_made_and_materialised(make_project: MakeProject) -> None:
    with serving(ok(jpeg())) as web:
        project = make_project(api_token=TOKEN, fetch_hosts=f"http://127.0.0.1:{web.port}")
        process(project, f"http://127.0.0.1:{web.port}/a?X-Amz-Signature={SECRET}")
    (image,) = project.catalog.page(limit=10)
    stored = project.stored()
    (result,) = project.run_requests(project.tick())
    assert result.success
    for asset in ("photo/grayscale", "photo/thumbnail", "photo/metadata"):
        assert project.statuses(asset) == {image.key: "green"}
        assert SECRET not in repr(project.newest(asset, image.key))
    assert project.newest("photo/grayscale", image.key).metadata["noop"].value is True
    assert project.stored() == stored
    assert not project.tick().run_requests
    with project.catalog.engine.connect() as connection:
        events = connection.exec_driver_sql("SELECT event FROM event_logs").all()
    assert events
    assert SECRET not in str(events)


@pytest.mark.parametrize("body", [b"no picture", jpeg()[:-200]], ids=["other", "cut short"])
def test_one_that_cannot_be_used_leaves_nothing_for_a_run(
    make_project: MakeProject, body: bytes
) -> None:
    with serving(ok(body)) as web:
        project = make_project(api_token=TOKEN, fetch_hosts=f"http://127.0.0.1:{web.port}")
        process(project, f"http://127.0.0.1:{web.port}/a")
    assert project.catalog.page(limit=10) == []
    assert list(project.source.location.folder.rglob("fetched/*")) == []
    assert not project.tick().run_requests
    assert project.statuses("photo/grayscale") == {}
