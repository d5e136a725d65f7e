"""`imgflow iam`: its policy is enough for everything imgflow does, and nothing of it can go."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from typer.testing import CliRunner

from imgflow.catalog.lifecycle import delete_images
from imgflow.catalog.postgres.ownership import owner_of
from imgflow.cli.iam import Extra, policy
from imgflow.cli.main import app
from imgflow.errors import ImgflowError, SettingsError
from imgflow.settings.variables import Settings
from imgflow.store.config import StoreConfig
from imgflow.store.location import parse_location
from imgflow.store.naming import MARKER
from imgflow.store.s3.source_bucket import S3Source
from imgflow_tests.orchestration.project import Project
from imgflow_tests.orchestration.test_maintenance import reconcile
from imgflow_tests.pictures import depth_csv, jpeg
from imgflow_tests.policies import User
from imgflow_tests.s3_proxy import Fault, Proxy, always, healthy

DOCS = Path(__file__).resolve().parents[1] / "docs"
EVERYTHING = Extra(upload=True, delete_source=True)
NAME, COPY = "thumbnail/a.jpg/@0123.png", "thumbnail/a.jpg/@0124.png"
# Of the owner of the bucket: Ceph lets everyone read what they wrote themselves.
OTHERS = "thumbnail/b.jpg/@0125.png"


@pytest.fixture
def as_user(
    s3: Any,
    bucket: str,
    user: User,
    make_settings: Callable[..., Settings],
    monkeypatch: pytest.MonkeyPatch,
) -> Settings:
    """Settings of someone who may do what `imgflow iam` prints, all of it in one bucket."""
    s3.put_object(Bucket=bucket, Key="private/salaries.jpg", Body=jpeg())
    for name, value in user.variables().items():
        monkeypatch.setenv(name, value)
    return make_settings(source_url=f"s3://{bucket}/in", output_url=f"s3://{bucket}/made")


def test_the_policy_is_enough_for_the_whole_way(
    s3: Any, bucket: str, user: User, as_user: Settings, instance: dg.DagsterInstance
) -> None:
    user.may(policy(as_user, EVERYTHING))
    project = Project(as_user, instance)
    for key in ("a.jpg", "b.jpg"):
        s3.put_object(Bucket=bucket, Key=f"in/{key}", Body=jpeg(seed=ord(key[0])))
    s3.put_object(Bucket=bucket, Key="in/same.jpg", Body=jpeg(seed=ord("a")))
    s3.put_object(Bucket=bucket, Key="in/hole.csv", Body=depth_csv())

    assert project.ingest().as_json().items() >= {"processed": 4, "failed": 0}.items()
    assert project.ingest().as_json().items() >= {"processed": 0, "unchanged": 4}.items()
    (lost,) = (
        name for name in project.stored() if name.startswith("thumbnail/") and "/b.jpg/" in name
    )
    project.outputs.delete([lost])
    assert reconcile(project) == {"listed": 4, "missing outputs": 1}
    assert project.ingest().processed == 1
    s3.put_object(Bucket=bucket, Key="in/b.jpg", Body=jpeg(seed=9))
    assert project.ingest().processed == 1
    images = list(project.catalog.by_keys(["a.jpg", "hole.csv"]).values())
    done = delete_images(project.catalog, project.outputs, images, source=project.source)
    assert (done.images, done.objects) == (2, 2)
    assert project.source.stat("a.jpg") is None
    # 403 rather than 404, of someone who may list one prefix.
    assert not project.materialize(["hole.csv"]).success


def operations(settings: Settings, file: Path, proxy: Proxy) -> dict[str, Callable[[], object]]:
    """Every request that imgflow makes of S3; each succeeds under the whole policy."""
    stores = StoreConfig(settings.source_url, settings.output_url)
    source, outputs = stores.open_source(), stores.open_outputs()
    assert isinstance(source, S3Source)
    (upload,) = source.list_page(None, 10).objects

    def broken_upload() -> None:
        proxy.programme = always(Fault(refused="AccessDenied"), "PUT")
        try:
            with pytest.raises(ImgflowError):
                source.upload("large.jpg", file)
        finally:
            proxy.programme = healthy
        if proxy.deletions[-1] != 204:
            raise ImgflowError("parts stay behind")

    return {
        "list": lambda: source.list_page(None, 10),
        "read": lambda: source.read(upload),
        "head": lambda: source.stat(upload.key),
        "upload": lambda: source.upload("b.jpg", file.with_name("small.jpg")),
        "upload in parts": lambda: source.upload("large.jpg", file),
        "upload that breaks off": broken_upload,
        "delete": lambda: source.delete("b.jpg"),
        "put": lambda: outputs.put(NAME, b"picture", "image/png"),
        "get": lambda: outputs.get(OTHERS),
        "range": lambda: outputs.get_range(OTHERS, 0, 3),
        "copy": lambda: outputs.copy(OTHERS, COPY),
        "owner": lambda: owner_of(outputs),
        "mark": lambda: outputs.put_first(MARKER, b"{}"),
        "names": lambda: list(outputs.names()),
        "remove": lambda: outputs.delete([COPY]),
    }


@pytest.fixture
def proxy(s3: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[Proxy]:
    proxy = Proxy(s3.meta.endpoint_url)
    monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.endpoint)
    yield proxy
    proxy.stop()


def failing(operations: dict[str, Callable[[], object]]) -> set[str]:
    failed = set()
    for name, operation in operations.items():
        try:
            operation()
        except (ImgflowError, FileNotFoundError):
            failed.add(name)
    return failed


def test_whatever_is_taken_away_from_the_policy_makes_something_fail(
    s3: Any, user: User, as_user: Settings, proxy: Proxy, tmp_path: Path
) -> None:
    bucket = parse_location(as_user.source_url, setting="").bucket
    whole = policy(as_user, EVERYTHING)
    user.may(whole)
    s3.put_object(Bucket=bucket, Key="in/a.jpg", Body=jpeg())
    s3.put_object(Bucket=bucket, Key=f"made/{OTHERS}", Body=b"picture")
    said = dict.fromkeys(("catalogue", "database", "since", "host"), "other")
    s3.put_object(Bucket=bucket, Key=f"made/{MARKER}", Body=json.dumps(said).encode())
    file = tmp_path / "large.jpg"
    file.write_bytes(bytes(9 * 2**20))
    file.with_name("small.jpg").write_bytes(jpeg())
    tried = operations(as_user, file, proxy)
    assert failing(tried) == set()
    found = {}
    for statement in whole["Statement"]:
        for action in statement["Action"]:
            rest = [other for other in statement["Action"] if other != action]
            smaller = [
                {**other, "Action": rest} if other is statement else other
                for other in whole["Statement"]
            ]
            user.may({**whole, "Statement": [one for one in smaller if one["Action"]]})
            found[statement["Sid"], action] = failing(tried)
    assert all(found.values()), found
    assert found["Uploads", "s3:AbortMultipartUpload"] == {"upload that breaks off"}
    assert "list" in found["ListUploads", "s3:ListBucket"]
    assert found["Owner", "s3:GetObject"] == {"owner"}
    assert found["Owner", "s3:PutObject"] == {"mark"}
    assert len(found) == 11


def test_the_policy_reaches_nothing_else_in_the_bucket(
    bucket: str, user: User, as_user: Settings
) -> None:
    user.may(policy(as_user, EVERYTHING))

    def stores(source: str, output: str) -> StoreConfig:
        return StoreConfig(f"s3://{bucket}/{source}", f"s3://{bucket}/{output}")

    for closed in ("private", ""):
        with pytest.raises(ImgflowError, match="imgflow iam"):
            stores(closed, "x").open_source().list_page(None, 10)
    source = stores("", "x").open_source()
    with pytest.raises(ImgflowError, match="salaries"):
        source.stat("private/salaries.jpg")
    with pytest.raises(ImgflowError, match="s3:PutObject"):
        stores("in", "elsewhere").open_outputs().put(NAME, b"", "image/png")


def test_the_least_is_read_only_for_uploads_and_grows_by_what_is_asked_for(
    make_settings: Callable[..., Settings],
) -> None:
    settings = make_settings(
        source_url="s3://uploads/in",
        output_url="s3://pictures",
        sqs_queue_url="https://sqs.eu-central-1.amazonaws.com/123456789012/arrivals",
    )

    def actions(**values: Any) -> dict[str, list[str]]:
        statements = policy(settings, Extra(**values))["Statement"]
        return {statement["Sid"]: statement["Action"] for statement in statements}

    assert actions() == {
        "ListUploads": ["s3:ListBucket"],
        "Uploads": ["s3:GetObject"],
        "ListPictures": ["s3:ListBucket"],
        "Pictures": ["s3:GetObject", "s3:PutObject", "s3:DeleteObject"],
        "Owner": ["s3:GetObject", "s3:PutObject"],
        "Notifications": ["sqs:ReceiveMessage", "sqs:DeleteMessage"],
    }
    assert actions(delete_source=True)["Uploads"] == ["s3:GetObject", "s3:DeleteObject"]
    assert actions(diagnosis=True)["Diagnosis"] == ["s3:GetBucketNotification"]
    key = "arn:aws:kms:eu-central-1:123456789012:key/1"
    assert actions(kms_key=key)["Encryption"] == ["kms:Decrypt", "kms:GenerateDataKey"]
    with pytest.raises(SettingsError, match="ARN"):
        policy(settings, Extra(kms_key="alias/key"))
    statements = {one["Sid"]: one for one in policy(settings, region="cn-north-1")["Statement"]}
    assert statements["Notifications"]["Resource"] == [
        "arn:aws-cn:sqs:eu-central-1:123456789012:arrivals"
    ]
    assert statements["Pictures"]["Resource"][0] == "arn:aws-cn:s3:::pictures/grayscale/*"


def test_the_command_prints_the_document_and_nothing_else(
    make_settings: Callable[..., Settings],
) -> None:
    settings = make_settings(source_url="s3://uploads/in")
    done = CliRunner().invoke(app, ["iam", "--delete-source"], catch_exceptions=False)
    assert done.exit_code == 0
    assert json.loads(done.stdout) == policy(settings, Extra(delete_source=True))


def test_folders_need_no_policy_and_wildcards_in_prefixes_are_refused(
    make_settings: Callable[..., Settings],
) -> None:
    with pytest.raises(SettingsError, match="asks nothing of AWS"):
        policy(make_settings())
    with pytest.raises(SettingsError, match="stands for others"):
        policy(make_settings(source_url="s3://uploads/in*"))


def test_the_documentation_shows_the_policy_of_the_command(
    make_settings: Callable[..., Settings],
) -> None:
    text = (DOCS / "s3.md").read_text()
    shown = json.loads(text.partition("```json\n")[2].partition("```")[0])
    settings = make_settings(
        source_url="s3://my-uploads/incoming",
        output_url="s3://my-pictures",
        sqs_queue_url="https://sqs.eu-central-1.amazonaws.com/123456789012/arrivals",
    )
    assert shown == policy(settings)
