"""The same bytes in a bucket under new ETags and keys: told by their hash, without pixel work."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import dagster as dg
import pytest

from imgflow.settings.variables import Settings
from imgflow_tests.orchestration.project import Project
from imgflow_tests.pictures import jpeg

PART = 5 * 2**20  # S3 takes no smaller one, but for the last


@pytest.fixture
def body() -> bytes:
    """A photograph of two parts: what follows the end of a JPEG is ignored by decoders."""
    return jpeg(seed=1) + b"\0" * PART


@pytest.fixture
def uploaded(
    s3: Any,
    bucket: str,
    body: bytes,
    make_settings: Callable[..., Settings],
    instance: dg.DagsterInstance,
) -> Project:
    project = Project(
        make_settings(source_url=f"s3://{bucket}/in", output_url=f"s3://{bucket}/out"), instance
    )
    s3.put_object(Bucket=bucket, Key="in/a.jpg", Body=body)
    processed(project)
    return project


def processed(project: Project) -> None:
    (run,) = project.run_requests(project.tick())
    assert run.success


def multipart(s3: Any, bucket: str, key: str, body: bytes) -> None:
    upload = s3.create_multipart_upload(Bucket=bucket, Key=key)["UploadId"]
    parts = []
    for number, start in enumerate(range(0, len(body), PART), 1):
        answer = s3.upload_part(
            Bucket=bucket,
            Key=key,
            UploadId=upload,
            PartNumber=number,
            Body=body[start : start + PART],
        )
        parts.append({"ETag": answer["ETag"], "PartNumber": number})
    s3.complete_multipart_upload(
        Bucket=bucket, Key=key, UploadId=upload, MultipartUpload={"Parts": parts}
    )


def test_uploaded_again_in_parts(uploaded: Project, s3: Any, bucket: str, body: bytes) -> None:
    before = uploaded.catalog.by_keys(["a.jpg"])["a.jpg"]
    stored = uploaded.stored()
    multipart(s3, bucket, "in/a.jpg", body)
    processed(uploaded)
    after = uploaded.catalog.by_keys(["a.jpg"])["a.jpg"]
    assert after.etag != before.etag
    assert str(after.etag).endswith("-2")
    assert (after.sha256, after.outputs) == (before.sha256, before.outputs)
    assert uploaded.stored() == stored
    metadata = uploaded.newest("photo/thumbnail", "a.jpg").metadata
    assert metadata["noop"].value is True
    assert "process ms" not in metadata


def test_copied_to_another_key(uploaded: Project, s3: Any, bucket: str) -> None:
    s3.copy_object(Bucket=bucket, Key="in/b.jpg", CopySource=f"{bucket}/in/a.jpg")
    processed(uploaded)
    images = uploaded.catalog.by_keys(["a.jpg", "b.jpg"])
    assert images["a.jpg"].sha256 == images["b.jpg"].sha256
    metadata = uploaded.newest("photo/thumbnail", "b.jpg").metadata
    assert "copy ms" in metadata
    assert "process ms" not in metadata


def test_deleted_and_uploaded_again(uploaded: Project, s3: Any, bucket: str, body: bytes) -> None:
    stored = uploaded.stored()
    s3.delete_object(Bucket=bucket, Key="in/a.jpg")
    uploaded.tick()
    multipart(s3, bucket, "in/a.jpg", body)
    processed(uploaded)
    assert uploaded.stored() == stored
    assert "process ms" not in uploaded.newest("photo/thumbnail", "a.jpg").metadata
