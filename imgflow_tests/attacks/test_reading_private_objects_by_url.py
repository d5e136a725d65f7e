"""Whoever may post URLs, and may not read the source, wants pictures of the source.

The S3 server is Ceph's, under Amazon's names and by TLS, or as somebody's own service. The picture
was processed before, so that nothing but `POST /process` itself is between it and the attacker.
"""

from __future__ import annotations

import io
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import boto3
import httpx
import numpy as np
import pytest
from botocore.config import Config
from fastapi.testclient import TestClient
from PIL import Image

from imgflow_tests.api.library import Library
from imgflow_tests.attacks.internet import PUBLIC, behind_tls, lead
from imgflow_tests.conftest import S3Server
from imgflow_tests.fetch.servers import make_certificate
from imgflow_tests.pictures import jpeg

DOMAIN = "s3.eu-central-1.amazonaws.com"
TOKEN = "the-token"  # noqa: S105 - of these tests
SECRET = jpeg(80, 60, seed=1)


@pytest.fixture
def processed(home: Path, database_url: str, s3: Any, bucket: str) -> Iterator[Library]:
    """A library whose one picture is private, and done."""
    s3.put_object(Bucket=bucket, Key="inbox/secret.jpg", Body=SECRET)
    library = Library(home, database_url, api_token=TOKEN, source_url=f"s3://{bucket}/inbox")
    library.announce()
    library.process()
    yield library
    library.engine.dispose()


@pytest.fixture(scope="module")
def gateway(s3_server: S3Server) -> int:
    """A port of the same S3 server, which has Amazon's name."""
    if s3_server.ceph is None:
        pytest.skip("needs Ceph: moto checks no signature")
    return s3_server.ceph.start_gateway(DOMAIN)


@pytest.fixture
def amazon(
    processed: Library, gateway: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[TestClient]:
    """An API whose source is at Amazon."""
    certificate = make_certificate(tmp_path, DOMAIN, f"*.{DOMAIN}")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    with behind_tls(context, gateway) as port:
        lead(monkeypatch, "amazonaws.com", PUBLIC, port)
        monkeypatch.setenv("AWS_CA_BUNDLE", str(certificate))
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"https://{DOMAIN}")
        with processed.client() as client:
            yield client


@pytest.fixture
def evil(s3: Any) -> Iterator[str]:
    """A bucket of the attacker's, whose objects anyone may read."""
    name = "s3-evil"
    s3.create_bucket(Bucket=name)
    yield name
    for entry in s3.list_objects_v2(Bucket=name).get("Contents", []):
        s3.delete_object(Bucket=name, Key=entry["Key"])
    s3.delete_bucket(Bucket=name)


def process(client: TestClient, url: str) -> httpx.Response:
    return client.post("/process", json={"url": url}, headers={"Authorization": f"Bearer {TOKEN}"})


def shows_the_secret(answer: httpx.Response) -> bool:
    if not answer.headers["Content-Type"].startswith("image/"):
        return False
    shown = np.asarray(Image.open(io.BytesIO(answer.content)).convert("L"), dtype=int)
    secret = np.asarray(Image.open(io.BytesIO(SECRET)).convert("L"), dtype=int)
    return shown.shape == secret.shape and bool(np.abs(shown - secret).mean() < 2)


def signed(bucket: str, operation: str = "get_object", style: str = "virtual", **more: Any) -> str:
    """A URL as somebody with rights signs it, now that the endpoint is Amazon's."""
    config = Config(signature_version="s3v4", s3={"addressing_style": style})
    url: str = boto3.client("s3", config=config).generate_presigned_url(
        operation, Params={"Bucket": bucket, "Key": "inbox/secret.jpg", **more}
    )
    return url


def test_whoever_has_a_signed_url_gets_the_picture(amazon: TestClient, bucket: str) -> None:
    """So that what is refused below is not refused for another reason."""
    in_host, in_path = signed(bucket), signed(bucket, style="path")
    assert in_host.startswith(f"https://{bucket}.{DOMAIN}/inbox/")
    assert in_path.startswith(f"https://{DOMAIN}/{bucket}/inbox/")
    for url in (in_host, in_path, signed(bucket, ResponseContentType="text/plain")):
        assert shows_the_secret(process(amazon, url)), url


@pytest.mark.parametrize("body", [b"x", b"x" * len(SECRET), jpeg(80, 60, seed=2)])
def test_a_bucket_whose_name_looks_like_s3_gives_out_nothing_of_ours(
    amazon: TestClient, s3: Any, bucket: str, evil: str, body: bytes
) -> None:
    s3.put_object(Bucket=evil, Key=f"{bucket}/inbox/secret.jpg", Body=body, ACL="public-read")
    url = f"https://{evil}.{DOMAIN}/{bucket}/inbox/secret.jpg"
    assert httpx.get(url, verify=False).content == body  # noqa: S501 - our own certificate
    assert not shows_the_secret(process(amazon, url))


@pytest.mark.parametrize("operation", ["get_object_tagging", "get_object_acl"])
def test_a_url_signed_for_tags_or_rights_of_an_object_is_none_for_the_object(
    amazon: TestClient, bucket: str, operation: str
) -> None:
    url = signed(bucket, operation)
    assert httpx.get(url, verify=False).status_code == 200  # noqa: S501 - our own certificate
    answer = process(amazon, url)
    assert answer.status_code == 422, answer.text
    assert not shows_the_secret(answer)


def test_a_url_without_a_signature_or_with_a_wrong_one_gets_nothing(
    amazon: TestClient, bucket: str
) -> None:
    url = signed(bucket)
    for wrong in (url.partition("?")[0], url[:-1] + ("0" if url[-1] != "0" else "1")):
        answer = process(amazon, wrong)
        assert answer.json()["code"] == "url_refused", answer.text


def test_a_service_that_reads_the_host_otherwise_than_we_do_gives_out_nothing(
    processed: Library, s3: Any, s3_server: S3Server, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To us the bucket is in the host; to this server, which has no such name, it is in the path.

    So the attacker's bucket is called as the source's prefix.
    """
    port = urlsplit(s3_server.endpoint).port or 80
    lead(monkeypatch, "ceph.test", "127.0.0.1", port)
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://ceph.test:{port}")
    s3.create_bucket(Bucket="inbox")
    try:
        for body in (b"x", b"x" * len(SECRET)):
            s3.put_object(Bucket="inbox", Key="secret.jpg", Body=body, ACL="public-read")
            url = f"http://{bucket}.ceph.test:{port}/inbox/secret.jpg"
            assert httpx.get(url).content == body
            with processed.client() as client:
                answer = process(client, url)
                assert answer.json()["code"] == "url_refused", answer.text
    finally:
        s3.delete_object(Bucket="inbox", Key="secret.jpg")
        s3.delete_bucket(Bucket="inbox")
