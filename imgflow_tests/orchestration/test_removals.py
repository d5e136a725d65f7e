"""Objects that are gone: an event of their removal and a listing without them have one effect."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict

import pytest

from imgflow.orchestration.sensing.notifications import scope_of, take_in
from imgflow_tests.orchestration.messages import s3_event
from imgflow_tests.orchestration.queues import Inbox, QueueProject, Uploads, WaitlessQueue, said
from imgflow_tests.pictures import depth_csv

MakeProject = Callable[..., QueueProject]

READY = ("a.jpg", "hole.csv")
NEVER_READ = "late.jpg"
REJECTED = "broken.jpg"
GONE = (*READY, NEVER_READ, REJECTED)

# What is left of each: its state, whether its object is known to be gone, and number of outputs.
EXPECTED = {
    "keep": {
        "a.jpg": ("ready", True, 2),
        "hole.csv": ("ready", True, 2),
        NEVER_READ: ("deleted", True, 0),
        REJECTED: ("rejected", True, 0),
    },
    "tombstone": dict.fromkeys(GONE, ("deleted", True, 0)),
    "delete": {},
}


def prepare(project: QueueProject, uploads: Uploads) -> None:
    """Images that are ready, one that is rejected, and one that no run has come to."""
    uploads.put("in/a.jpg")
    uploads.put("in/stays.jpg", seed=1)
    uploads.client.put_object(Bucket=uploads.bucket, Key="in/hole.csv", Body=depth_csv(rows=5))
    uploads.client.put_object(Bucket=uploads.bucket, Key="in/broken.jpg", Body=b"no picture")
    project.run_requests(project.tick())
    uploads.put("in/late.jpg", seed=2)
    project.catalog.announce(project.source.list_page(None, 10).objects)


def remove(uploads: Uploads, inbox: Inbox, *, is_told: bool) -> None:
    for key in GONE:
        uploads.delete(f"in/{key}")
    if is_told:
        inbox.send(s3_event(*(uploads.removed(f"in/{key}") for key in GONE)))


def left(project: QueueProject) -> dict[str, tuple[str, bool, int]]:
    return {
        image.key: (image.state, image.gone_at is not None, len(image.outputs))
        for image in project.catalog.by_keys(GONE).values()
    }


@pytest.mark.parametrize("is_told", [True, False], ids=["event", "listing"])
@pytest.mark.parametrize("policy", EXPECTED)
def test_images_whose_objects_are_gone_follow_the_setting(
    make_queue_project: MakeProject, inbox: Inbox, uploads: Uploads, policy: str, is_told: bool
) -> None:
    project = make_queue_project(on_delete=policy)
    prepare(project, uploads)
    before = project.stored()
    remove(uploads, inbox, is_told=is_told)

    if is_told:
        assert "0 images new or changed, 4 gone." in said(project.take())
        assert inbox.counts() == (0, 0)
        assert left(project) == (EXPECTED[policy] or EXPECTED["tombstone"])
    project.tick()  # partitions, and rows where they go too, are the listing's to remove

    assert left(project) == EXPECTED[policy]
    kept = before if policy == "keep" else {n: o for n, o in before.items() if "/stays.jpg/" in n}
    assert project.stored() == kept
    partitions = set(project.instance.get_dynamic_partitions("photos"))
    assert partitions == ({"a.jpg", REJECTED, "stays.jpg"} if policy == "keep" else {"stays.jpg"})
    rows = project.rows()
    inbox.send(s3_event(*(uploads.removed(f"in/{key}") for key in GONE)))
    project.take()
    project.tick()
    assert project.rows() == rows, "told again, it changes nothing"


@pytest.mark.parametrize("policy", ["tombstone", "delete"])
def test_an_upload_after_its_removal_is_a_new_image(
    make_queue_project: MakeProject, inbox: Inbox, uploads: Uploads, policy: str
) -> None:
    project = make_queue_project(on_delete=policy)
    prepare(project, uploads)
    remove(uploads, inbox, is_told=True)
    project.take()
    project.tick()
    uploads.put("in/a.jpg")
    inbox.send(s3_event(uploads.created("in/a.jpg")))
    (run,) = project.run_requests(project.take())
    assert run.success
    assert left(project)["a.jpg"] == ("ready", False, 2)
    assert project.statuses("photo/thumbnail")["a.jpg"] == "green"


def test_more_than_could_be_on_purpose_are_left_and_the_tick_says_so(
    make_queue_project: MakeProject,
    inbox: Inbox,
    uploads: Uploads,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("imgflow.catalog.lifecycle.MOST_AT_ONCE", 3)
    project = make_queue_project(on_delete="delete")
    prepare(project, uploads)
    project.tick()  # asks for the one that no run has come to
    before = left(project), project.stored()
    remove(uploads, inbox, is_told=True)
    assert "4 images are gone from s3://" in said(project.take())
    assert (left(project), project.stored()) == before


def test_what_follows_is_told_the_keys_that_are_gone_before_the_message_is_deleted(
    queue_project: QueueProject, inbox: Inbox, uploads: Uploads
) -> None:
    uploads.put("in/still-there.jpg")
    told: list[tuple[list[str], tuple[int, int]]] = []

    def follow(keys: Sequence[str]) -> str | None:
        told.append((list(keys), inbox.counts()))
        return None

    inbox.send(
        s3_event(
            uploads.removed("in/b.jpg"),
            uploads.removed("in/still-there.jpg"),
            uploads.removed("in/a.jpg"),
        ),
    )
    scope = scope_of(queue_project.stores)
    assert scope is not None
    taken = take_in(
        WaitlessQueue(url=inbox.url).open(),
        scope,
        queue_project.source,
        queue_project.catalog,
        follow,
    )
    assert told == [(["a.jpg", "b.jpg"], (0, 1))]
    assert inbox.counts() == (0, 0)
    assert asdict(taken)["gone"] == 2
