"""Objects of a bucket that cannot be read: each has its own outcome, and the others are done.

The server is a stub, since Ceph has no archive and its keys open every object.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from urllib.parse import parse_qs, quote, unquote, urlsplit
from xml.sax.saxutils import escape

import dagster as dg
import pytest

from imgflow.settings.variables import Settings
from imgflow.status import describe, read_status
from imgflow_tests.orchestration.project import Project
from imgflow_tests.orchestration.test_trouble import failure_text
from imgflow_tests.pictures import jpeg
from imgflow_tests.store.test_s3_trouble import Stub, send, stub

__all__ = ["stub"]  # a fixture

REFUSALS = {
    "archived": (
        403,
        "<Error><Code>InvalidObjectState</Code><Message>The operation is not valid for the "
        "object's storage class</Message><StorageClass>GLACIER</StorageClass></Error>",
    ),
    "tiered": (
        403,
        "<Error><Code>InvalidObjectState</Code><Message>No</Message>"
        "<StorageClass>INTELLIGENT_TIERING</StorageClass><AccessTier>ARCHIVE_ACCESS</AccessTier>"
        "</Error>",
    ),
    "denied": (403, "<Error><Code>AccessDenied</Code><Message>Access Denied</Message></Error>"),
    "encrypted": (
        400,
        "<Error><Code>InvalidRequest</Code><Message>The object was stored using a form of Server "
        "Side Encryption. The correct parameters must be provided to retrieve the object."
        "</Message></Error>",
    ),
    "keyless": (
        400,
        "<Error><Code>KMS.DisabledException</Code><Message>The key is disabled</Message></Error>",
    ),
}
# Archived objects show their head.
HEADLESS = ("denied", "encrypted", "keyless")


class Bucket:
    """What the stub serves: bodies by key, which of them it refuses, how, and which it hides."""

    def __init__(self, stub: Stub) -> None:
        self.bodies: dict[str, bytes] = {}
        self.refused: dict[str, str] = {}
        self.unlisted: set[str] = set()
        self.reads: list[str] = []
        stub.answer = self.answer

    def answer(self, request: object, _: int) -> None:
        assert hasattr(request, "path")
        assert hasattr(request, "command")
        path = urlsplit(request.path)
        key = unquote(path.path).removeprefix("/bucket").removeprefix("/")
        query = parse_qs(path.query)
        if "list-type" in query:
            listing = self.listing(query.get("prefix", [""])[0])
            send(request, 200, listing)  # type: ignore[arg-type]
            return
        refusal = self.refused.get(key)
        if request.command == "GET":
            self.reads.append(key)
        if key not in self.bodies:
            send(request, 404, b"<Error><Code>NoSuchKey</Code></Error>")  # type: ignore[arg-type]
        elif request.command == "HEAD":
            status = REFUSALS[refusal][0] if refusal in HEADLESS else 200
            length = {"Content-Length": str(len(self.bodies[key]))} if status == 200 else {}
            send(request, status, b"", ETag=self.etag(key), **length)  # type: ignore[arg-type]
        elif refusal:
            status, text = REFUSALS[refusal]
            send(request, status, text.encode())  # type: ignore[arg-type]
        else:
            send(request, 200, self.bodies[key], ETag=self.etag(key))  # type: ignore[arg-type]

    def etag(self, key: str) -> str:
        return f'"{hashlib.md5(self.bodies[key]).hexdigest()}"'  # noqa: S324 - as S3 does

    def listing(self, prefix: str) -> bytes:
        entries = "".join(
            f"<Contents><Key>{quote(key)}</Key><Size>{len(body)}</Size>"
            f"<ETag>{escape(self.etag(key))}</ETag>"
            "<LastModified>2026-08-01T12:00:00.000Z</LastModified></Contents>"
            for key, body in sorted(self.bodies.items())
            if key.startswith(prefix) and (key == prefix or key not in self.unlisted)
        )
        return (
            "<ListBucketResult><Name>bucket</Name><EncodingType>url</EncodingType>"
            f"<IsTruncated>false</IsTruncated>{entries}</ListBucketResult>"
        ).encode()


@pytest.fixture
def bucket(stub: Stub) -> Bucket:
    return Bucket(stub)


@pytest.fixture
def make(
    bucket: Bucket, make_settings: Callable[..., Settings], instance: dg.DagsterInstance
) -> Callable[..., Project]:
    assert bucket.bodies == {}
    return lambda **values: Project(make_settings(source_url="s3://bucket", **values), instance)


def states(project: Project) -> dict[str, tuple[str, str | None]]:
    return {
        image.key: (image.state, image.reason_code) for image in project.catalog.page(limit=100)
    }


# Both ways by which bytes are read: `obstore`, and boto3 for the keys it cannot represent.
ways = pytest.mark.parametrize("folder", ["", "a//"], ids=["obstore", "boto3"])


@ways
def test_each_refused_object_has_a_named_outcome_and_the_others_are_done(
    make: Callable[..., Project], bucket: Bucket, folder: str
) -> None:
    project = make()
    for number, name in enumerate(["fine", *REFUSALS, "fine too"]):
        bucket.bodies[f"{folder}{name}.jpg"] = jpeg(seed=number)
        if name in REFUSALS:
            bucket.refused[f"{folder}{name}.jpg"] = name

    (run,) = project.run_requests(project.tick())

    assert not run.success
    assert states(project) == {
        f"{folder}fine.jpg": ("ready", None),
        f"{folder}fine too.jpg": ("ready", None),
        f"{folder}archived.jpg": ("rejected", "archived"),
        f"{folder}tiered.jpg": ("rejected", "archived"),
        f"{folder}encrypted.jpg": ("rejected", "encrypted"),
        f"{folder}denied.jpg": ("pending", "unreadable"),
        f"{folder}keyless.jpg": ("pending", "unreadable"),
    }
    assert set(project.statuses("photo/thumbnail").values()) == {"green", "red"}
    text = failure_text(run)
    assert "GLACIER" in text
    assert f"restore-object --bucket bucket --key {folder}archived.jpg" in text
    assert "Days=7" in text
    assert "INTELLIGENT_TIERING ARCHIVE_ACCESS" in text
    assert "SSE-C" in text
    assert "allow s3:GetObject" in text
    assert "KMS.DisabledException" in text

    found = read_status(project.catalog)
    assert found.as_json()["reasons"] == {"archived": 2, "encrypted": 1, "unreadable": 2}
    image = project.catalog.by_keys([f"{folder}denied.jpg"])[f"{folder}denied.jpg"]
    assert describe(image)["reason_code"] == "unreadable"


def test_an_archived_object_is_read_once_and_again_only_when_someone_asks(
    make: Callable[..., Project], bucket: Bucket
) -> None:
    project = make()
    bucket.bodies = {"a.jpg": jpeg()}
    bucket.refused = {"a.jpg": "archived"}
    project.run_requests(project.tick())
    for _ in range(3):
        project.end_pauses()
        assert project.tick().run_requests == []
    assert bucket.reads == ["a.jpg"]

    project.materialize(["a.jpg"])
    assert bucket.reads == ["a.jpg"] * 2, "materialising reads again"
    assert states(project)["a.jpg"] == ("rejected", "archived")

    bucket.refused = {}  # restored: nothing else about the object changes
    assert project.tick().run_requests == []
    (image,) = project.catalog.page(limit=9, state="rejected")
    project.catalog.reopen([image.id])  # as `imgflow retry`
    (run,) = project.run_requests(project.tick())
    assert run.success
    assert states(project)["a.jpg"] == ("ready", None)
    assert project.statuses("photo/thumbnail") == {"a.jpg": "green"}


def test_what_was_made_before_an_object_was_archived_stays(
    make: Callable[..., Project], bucket: Bucket
) -> None:
    project = make()
    bucket.bodies = {"a.jpg": jpeg(600, 400)}
    project.run_requests(project.tick())
    (before,) = project.catalog.page(limit=9)
    bucket.refused = {"a.jpg": "archived"}
    assert project.tick().run_requests == []
    assert project.materialize(["a.jpg"]).success, "nothing is to be read"

    project = make(thumbnail_size=32)
    for family in project.families:
        project.catalog.reopen_stale(family.kind, family.outputs)
    for _ in range(2):
        project.run_requests(project.tick())
        (after,) = project.catalog.page(limit=9)
        assert (after.state, after.reason_code) == ("rejected", "archived")
        assert after.outputs == before.outputs
        assert all(project.outputs.exists(name) for name in project.stored())
        project.catalog.reopen([after.id])

    bucket.refused = {}
    project.run_requests(project.tick())
    (restored,) = project.catalog.page(limit=9)
    assert restored.state == "ready"
    assert restored.outputs["thumbnail"]["width"] == 32
    assert restored.outputs["grayscale"] == before.outputs["grayscale"]


def test_outputs_of_an_older_upload_do_not_stay_when_the_newer_one_is_archived(
    make: Callable[..., Project], bucket: Bucket
) -> None:
    project = make()
    bucket.bodies = {"a.jpg": jpeg()}
    project.run_requests(project.tick())
    bucket.bodies = {"a.jpg": jpeg(seed=1)}
    bucket.refused = {"a.jpg": "archived"}
    project.run_requests(project.tick())
    (image,) = project.catalog.page(limit=9)
    assert (image.state, dict(image.outputs)) == ("rejected", {})


def test_an_object_that_may_not_be_read_is_tried_again_until_the_policy_is_fixed(
    make: Callable[..., Project], bucket: Bucket
) -> None:
    project = make()
    bucket.bodies = {"a.jpg": jpeg(), "b.jpg": jpeg(seed=1)}
    bucket.refused = {"a.jpg": "denied"}
    project.run_requests(project.tick())
    assert states(project) == {"a.jpg": ("pending", "unreadable"), "b.jpg": ("ready", None)}
    assert project.tick().run_requests == [], "there is a pause before the next attempt"
    report = project.ingest()
    assert report.failed == 1, "nobody waits for it, and it is not forgotten"
    assert report.retry_seconds is not None

    run = project.materialize(["a.jpg", "b.jpg"])
    assert "'a.jpg' may not be read" in failure_text(run), "the head is refused as well"
    assert project.statuses("photo/thumbnail")["b.jpg"] == "green"

    bucket.refused = {}
    project.end_pauses()
    (run,) = project.run_requests(project.tick())
    assert run.success
    assert states(project)["a.jpg"] == ("ready", None)


def test_a_head_that_is_refused_does_not_make_an_image_gone_nor_stop_the_listing(
    make: Callable[..., Project], bucket: Bucket
) -> None:
    project = make(on_delete="delete")
    bucket.bodies = {"a.jpg": jpeg(), "b.jpg": jpeg(seed=1), "c.jpg": jpeg(seed=2)}
    project.run_requests(project.tick())
    del bucket.bodies["c.jpg"]
    bucket.unlisted = {"a.jpg"}
    bucket.refused = {"a.jpg": "denied"}
    tick = project.tick()
    assert tick.skip_reason is not None
    assert tick.skip_reason.skip_message == "1 objects listed; nothing new."
    assert states(project) == {"a.jpg": ("ready", None), "b.jpg": ("ready", None)}
