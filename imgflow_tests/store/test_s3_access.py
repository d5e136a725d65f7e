"""Reaching S3: credentials, endpoints, regions, and what is said when they are wrong."""

from __future__ import annotations

import os
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from datetime import UTC
from pathlib import Path
from typing import Any

import pytest
from botocore.config import Config

from imgflow.errors import SettingsError, Trouble
from imgflow.store.config import StoreConfig
from imgflow.store.objects import SourceObject
from imgflow.store.s3.clients import s3_client
from imgflow.store.s3.source_bucket import S3Source
from imgflow_tests import ceph
from imgflow_tests.store.buckets import listed, source_of


@pytest.mark.usefixtures("s3")
def test_a_missing_bucket_is_trouble_with_the_advice_for_every_call(tmp_path: Path) -> None:
    source = source_of("s3://imgflow-no-such-bucket/in")
    (tmp_path / "file").write_bytes(b"x")
    announced = SourceObject("a", "e", None, 1, _now())
    for ask in _calls(source, announced, tmp_path / "file"):
        with pytest.raises(Trouble, match=r"s3://imgflow-no-such-bucket/in/.*NoSuchBucket; create"):
            ask()


def _now() -> Any:
    from datetime import datetime

    return datetime.now(UTC)


def _calls(source: S3Source, announced: SourceObject, file: Path) -> Iterator[Callable[[], object]]:
    odd = SourceObject("a//b", "e", None, 1, announced.last_modified)
    yield source.check
    yield lambda: source.list_page(None, 10)
    yield lambda: source.read(announced)
    yield lambda: list(source.stream(announced))
    yield lambda: source.read(odd)
    yield lambda: list(source.stream(odd))
    yield lambda: source.upload("a", file)
    yield lambda: source.delete("a")


@pytest.mark.skipif(not ceph.is_installed(), reason="moto takes any secret")
@pytest.mark.parametrize(
    ("variable", "advice"),
    [
        ("AWS_SECRET_ACCESS_KEY", "SignatureDoesNotMatch; check AWS_SECRET_ACCESS_KEY"),
        ("AWS_ACCESS_KEY_ID", "InvalidAccessKeyId; check AWS_ACCESS_KEY_ID"),
    ],
)
def test_wrong_credentials_are_trouble_that_names_the_variable_and_repeats_no_secret(
    bucket: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, variable: str, advice: str
) -> None:
    monkeypatch.setenv(variable, "wrong-0123456789-wrong")
    source = source_of(f"s3://{bucket}")
    (tmp_path / "file").write_bytes(b"x")
    for ask in _calls(source, SourceObject("a", "e", None, 1, _now()), tmp_path / "file"):
        with pytest.raises(Trouble, match=advice) as caught:
            ask()
        text = str(caught.value)
        assert bucket in text
        assert "wrong-" not in text
        assert ceph.SECRET_KEY not in text
        assert "Signature=" not in text


@pytest.mark.skipif(not ceph.is_installed(), reason="moto takes any secret")
def test_a_head_without_rights_is_trouble_and_not_a_missing_object(
    bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    with pytest.raises(Trouble, match=r"\(403\); allow s3:GetObject on it"):
        source_of(f"s3://{bucket}").stat("a")


def test_no_credentials_at_all_are_trouble_with_the_fix(
    bucket: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    with pytest.raises(Trouble, match=f"s3://{bucket}/.*set AWS_ACCESS_KEY_ID and AWS_SECRET"):
        source_of(f"s3://{bucket}")


@pytest.mark.parametrize("endpoint", ["localhost:9000", "not a url"])
def test_an_endpoint_that_is_no_url_is_a_settings_error(
    monkeypatch: pytest.MonkeyPatch, endpoint: str
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
    with pytest.raises(SettingsError, match="AWS_ENDPOINT_URL is written http://host:port"):
        s3_client()


def test_the_service_s_own_endpoint_variable_goes_before_the_general_one(
    s3: Any, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    endpoint = os.environ["AWS_ENDPOINT_URL"]
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", endpoint)
    s3.put_object(Bucket=bucket, Key="a", Body=b"x")
    source = source_of(f"s3://{bucket}")
    (announced,) = listed(source)
    assert source.read(announced) == b"x"
    outputs = StoreConfig(f"s3://{bucket}/in", f"s3://{bucket}/out").open_outputs()
    outputs.put("thumbnail/a", b"y", "image/jpeg")
    assert s3.get_object(Bucket=bucket, Key="out/thumbnail/a")["Body"].read() == b"y"


def test_no_region_is_needed_with_an_endpoint(
    s3: Any, bucket: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("AWS_DEFAULT_REGION")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    s3.put_object(Bucket=bucket, Key="a", Body=b"x")
    source = source_of(f"s3://{bucket}")
    (announced,) = listed(source)
    assert source.read(announced) == b"x"


def test_a_client_is_read_with_its_own_endpoint_and_credentials(
    s3: Any, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    s3.put_object(Bucket=bucket, Key="a", Body=b"x")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "of somebody else")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_SESSION_TOKEN", "of somebody else")
    source = source_of(f"s3://{bucket}", client=s3)
    (announced,) = listed(source)
    assert source.read(announced) == b"x"


@pytest.mark.parametrize("key", ["a+b %2B ü#?.jpg", "in/dots...jpg"])
def test_a_presigned_url_is_read_over_plain_http(s3: Any, bucket: str, key: str) -> None:
    s3.put_object(Bucket=bucket, Key=f"in/{key}", Body=b"presigned")
    url = source_of(f"s3://{bucket}/in").presign(key, 60)
    assert url.startswith("http://")
    assert "X-Amz-Signature=" in url
    with urllib.request.urlopen(url) as answer:  # noqa: S310 - of our own server
        assert answer.read() == b"presigned"
    if ceph.is_installed():
        with pytest.raises(urllib.error.HTTPError, match="403"):
            urllib.request.urlopen(url.replace("X-Amz-Expires=60", "X-Amz-Expires=99"))  # noqa: S310


@pytest.mark.parametrize(
    ("variables", "bucket_name", "expected"),
    [
        ({}, "plain", "https://plain.s3.eu-west-1.amazonaws.com/a"),
        ({}, "dotted.name", "https://s3.eu-west-1.amazonaws.com/dotted.name/a"),
        (
            {"AWS_ENDPOINT_URL": "https://s3.eu-west-1.amazonaws.com"},
            "plain",
            "https://plain.s3.eu-west-1.amazonaws.com/a",
        ),
        (
            {"AWS_USE_FIPS_ENDPOINT": "true"},
            "plain",
            "https://plain.s3-fips.eu-west-1.amazonaws.com/a",
        ),
        ({"AWS_ENDPOINT_URL": "http://minio:9000"}, "plain", "http://minio:9000/plain/a"),
        (
            {"AWS_ENDPOINT_URL": "https://bucket.vpce-1.s3.eu-west-1.vpce.amazonaws.com"},
            "plain",
            "https://bucket.vpce-1.s3.eu-west-1.vpce.amazonaws.com/plain/a",
        ),
    ],
)
def test_obstore_asks_at_the_address_that_boto3_has(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], bucket_name: str, expected: str
) -> None:
    from datetime import timedelta

    import obstore

    from imgflow.store.s3.clients import obstore_bucket

    monkeypatch.delenv("AWS_ENDPOINT_URL", raising=False)
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-west-1")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("AWS_SESSION_TOKEN", "the-token")
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    store = obstore_bucket(s3_client(), bucket_name, "")
    url = obstore.sign(store, "GET", "a", timedelta(seconds=9))
    assert url.partition("?")[0] == expected
    assert "X-Amz-Security-Token=the-token" in url


def test_temporary_credentials_are_sent_with_their_token(
    s3: Any, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ceph refuses a token that it did not issue, which shows that both libraries send it."""
    monkeypatch.setenv("AWS_SESSION_TOKEN", "not-one-of-this-server")
    s3.put_object(Bucket=bucket, Key="a", Body=b"x")
    if not ceph.is_installed():
        pytest.skip("moto takes any token")
    source = source_of(f"s3://{bucket}")
    for key in ("a", "a//b"):
        with pytest.raises(Trouble) as caught:
            source.read(SourceObject(key, "e", None, 1, _now()))
        assert "not-one-of" not in str(caught.value)


@pytest.mark.usefixtures("s3")
def test_retries_and_waits_are_bounded() -> None:
    config: Config = s3_client().meta.config
    assert config.retries["total_max_attempts"] <= 4
    assert config.connect_timeout <= 5
