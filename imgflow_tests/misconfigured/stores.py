"""Source and outputs in which something is wrong: buckets, their rights and server, folders."""

# ruff: noqa: ARG001 - all arrangements take the same arguments

from __future__ import annotations

import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import boto3
import botocore.auth
import pytest

from imgflow.catalog.database.engine import make_engine
from imgflow.catalog.postgres.ownership import claim
from imgflow.catalog.postgres.postgres_catalog import PostgresCatalog
from imgflow.cli.iam import Extra, policy
from imgflow.doctor import machine_checks
from imgflow.store.config import StoreConfig
from imgflow.store.output_store import OutputStore
from imgflow_tests.ceph import free_port
from imgflow_tests.fetch.servers import make_certificate, ok, serving
from imgflow_tests.misconfigured.case import Case, Fixture, Misconfigurations
from imgflow_tests.pictures import jpeg
from imgflow_tests.policies import User
from imgflow_tests.s3_proxy import Fault, Proxy

STORES = Misconfigurations()
wrong = STORES.wrong


def in_bucket(case: Case, fixture: Fixture) -> tuple[Any, str]:
    """Source and outputs in a bucket that has an upload."""
    client, bucket = fixture("s3"), fixture("bucket")
    client.put_object(Bucket=bucket, Key="in/a.jpg", Body=jpeg())
    case.values |= {"source_url": f"s3://{bucket}/in", "output_url": f"s3://{bucket}/made"}
    return client, bucket


def without(case: Case, fixture: Fixture, *denied: tuple[str, str]) -> None:
    """As a user whose policy lacks actions of statements."""
    in_bucket(case, fixture)
    user: User = fixture("user")
    whole = policy(case.settings, Extra())
    for statement in whole["Statement"]:
        statement["Action"] = [
            action for action in statement["Action"] if (statement["Sid"], action) not in denied
        ]
    user.may({**whole, "Statement": [one for one in whole["Statement"] if one["Action"]]})
    for name, value in user.variables().items():
        case.environment.setenv(name, value)


@contextmanager
def proxied(case: Case, fixture: Fixture, fault: Fault, *kinds: str) -> Iterator[None]:
    """Answers of the S3 server have a fault: all, or those to some kinds of requests."""
    proxy = Proxy(fixture("s3").meta.endpoint_url)
    proxy.programme = lambda request: fault if request.kind in kinds or not kinds else None
    case.environment.setenv("AWS_ENDPOINT_URL", proxy.endpoint)
    try:
        yield
    finally:
        proxy.stop()


@wrong("no credentials", "AWS_ACCESS_KEY_ID")
def no_credentials(case: Case, fixture: Fixture) -> Iterator[None]:
    in_bucket(case, fixture)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        case.environment.delenv(name)
    case.environment.setenv("AWS_EC2_METADATA_DISABLED", "true")
    case.environment.setenv("AWS_SHARED_CREDENTIALS_FILE", "none")
    yield


@wrong("unknown access key", "AWS_ACCESS_KEY_ID")
def unknown_access_key(case: Case, fixture: Fixture) -> Iterator[None]:
    in_bucket(case, fixture)
    case.environment.setenv("AWS_ACCESS_KEY_ID", "nobody")
    yield


@wrong("wrong secret key", "AWS_SECRET_ACCESS_KEY")
def wrong_secret_key(case: Case, fixture: Fixture) -> Iterator[None]:
    in_bucket(case, fixture)
    case.environment.setenv("AWS_SECRET_ACCESS_KEY", "s3cr3t")
    yield


@wrong("expired session token", "renew AWS_SESSION_TOKEN")
def expired_session_token(case: Case, fixture: Fixture) -> Iterator[None]:
    in_bucket(case, fixture)
    with proxied(case, fixture, Fault(refused="ExpiredToken")):
        yield


@wrong("the bucket does not exist", "create it")
def no_bucket(case: Case, fixture: Fixture) -> Iterator[None]:
    in_bucket(case, fixture)
    case.values["source_url"] = "s3://no-such-bucket-here"
    yield


@wrong("the bucket is in another region", "AWS_DEFAULT_REGION=eu-central-1")
def other_region(case: Case, fixture: Fixture) -> Iterator[None]:
    arguments = fixture("moto")
    client = boto3.client("s3", **arguments)
    client.create_bucket(
        Bucket="in-frankfurt", CreateBucketConfiguration={"LocationConstraint": "eu-central-1"}
    )
    case.values |= {"source_url": "s3://in-frankfurt/in", "output_url": "s3://in-frankfurt/made"}
    case.use_moto(arguments)
    yield


@wrong("uploads may not be listed", "allow s3:ListBucket")
def no_listing(case: Case, fixture: Fixture) -> Iterator[None]:
    without(case, fixture, ("ListUploads", "s3:ListBucket"))
    yield


@wrong("uploads may not be read", "allow s3:GetObject")
def no_reading(case: Case, fixture: Fixture) -> Iterator[None]:
    without(case, fixture, ("Uploads", "s3:GetObject"))
    yield


@wrong("outputs may not be written", "allow s3:PutObject")
def no_writing(case: Case, fixture: Fixture) -> Iterator[None]:
    without(case, fixture, ("Pictures", "s3:PutObject"))
    yield


@wrong("outputs may not be deleted", "allow s3:DeleteObject")
def no_deleting(case: Case, fixture: Fixture) -> Iterator[None]:
    without(case, fixture, ("Pictures", "s3:DeleteObject"))
    yield


@wrong("outputs may not be listed", "allow s3:ListBucket")
def no_listing_of_outputs(case: Case, fixture: Fixture) -> Iterator[None]:
    without(case, fixture, ("ListPictures", "s3:ListBucket"))
    yield


@wrong("nothing answers at the endpoint", "AWS_ENDPOINT_URL")
def no_endpoint(case: Case, fixture: Fixture) -> Iterator[None]:
    in_bucket(case, fixture)
    case.environment.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{free_port()}")
    yield


@wrong("the endpoint's certificate is not trusted", "AWS_CA_BUNDLE")
def untrusted(case: Case, fixture: Fixture) -> Iterator[None]:
    in_bucket(case, fixture)
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(make_certificate(fixture("tmp_path"), "localhost"))
    with serving(ok(b""), tls) as server:
        case.environment.setenv("AWS_ENDPOINT_URL", f"https://localhost:{server.port}")
        yield


@wrong("the endpoint holds the bucket's name", "leave it out")
def bucket_twice(case: Case, fixture: Fixture) -> Iterator[None]:
    client, bucket = in_bucket(case, fixture)
    case.environment.setenv("AWS_ENDPOINT_URL", f"{client.meta.endpoint_url}/{bucket}")
    yield


@wrong("this clock and that of S3 differ", "time server")
def other_clock(case: Case, fixture: Fixture) -> Iterator[None]:
    in_bucket(case, fixture)
    with proxied(case, fixture, Fault(clock_seconds=600)):
        yield


@wrong("the clock is so wrong that S3 refuses signatures", "time server")
def refused_clock(case: Case, fixture: Fixture) -> Iterator[None]:
    in_bucket(case, fixture)
    if fixture("s3_server").ceph is None:
        pytest.skip("moto looks at no signature")
    now = botocore.auth.get_current_datetime
    late = timedelta(hours=1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(botocore.auth, "get_current_datetime", lambda: now() - late)
        yield


@wrong("the server refuses checksums of uploads", "IMGFLOW_S3_CHECKSUMS=when_required")
def refused_checksums(case: Case, fixture: Fixture) -> Iterator[None]:
    in_bucket(case, fixture)
    with proxied(case, fixture, Fault(refused="XAmzContentSHA256Mismatch"), "PUT"):
        yield


@wrong("outputs cannot be written to their folder", "IMGFLOW_OUTPUT_URL")
def unwritable(case: Case, fixture: Fixture) -> Iterator[None]:
    file = fixture("tmp_path") / "file"
    file.touch()
    case.values["output_url"] = (file / "outputs").as_uri()
    yield


@wrong("source and outputs are the same place", "prefix of their own")
def same_place(case: Case, fixture: Fixture) -> Iterator[None]:
    place = fixture("tmp_path").as_uri()
    case.values |= {"source_url": place, "output_url": place}
    yield


@wrong("the outputs belong to another database", "delete")
def others_outputs(case: Case, fixture: Fixture) -> Iterator[None]:
    case.values["output_url"] = fixture("tmp_path").as_uri()
    for number, url in enumerate((fixture("make_database")(), case.database_url)):
        catalog = PostgresCatalog(make_engine(url), "file:///photos")
        catalog.migrate()
        if not number:
            _, location = StoreConfig("file:///photos", case.values["output_url"]).locations()
            claim(catalog, OutputStore(location))
        catalog.engine.dispose()
    yield


@wrong("the source lies among the outputs", "another prefix")
def source_in_outputs(case: Case, fixture: Fixture) -> Iterator[None]:
    place = fixture("tmp_path")
    case.values |= {
        "source_url": (place / "thumbnail").as_uri(),
        "output_url": place.as_uri(),
    }
    yield


@wrong("the outputs lie inside the source", "beside the source")
def outputs_in_source(case: Case, fixture: Fixture) -> Iterator[None]:
    place = fixture("tmp_path")
    case.values |= {"source_url": place.as_uri(), "output_url": (place / "made").as_uri()}
    yield


@wrong("the source folder is not mounted", "IMGFLOW_SOURCE_URL")
def not_mounted(case: Case, fixture: Fixture) -> Iterator[None]:
    case.values["source_url"] = (fixture("tmp_path") / "unmounted").as_uri()
    yield


@wrong("the disk is full", "make room")
def full_disk(case: Case, fixture: Fixture) -> Iterator[None]:
    case.home.mkdir()
    case.environment.setattr(machine_checks, "LEAST_FREE_BYTES", 10**18)
    yield
