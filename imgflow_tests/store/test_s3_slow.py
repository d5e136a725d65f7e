"""Bodies that come slowly: those that come are waited for, those that do not are trouble."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from typing import Any

import pytest

from imgflow.errors import Trouble
from imgflow.store.location import parse_location
from imgflow.store.objects import SourceObject
from imgflow.store.s3.source_bucket import S3Source
from imgflow_tests.conftest import S3Server
from imgflow_tests.s3_proxy import Fault, Proxy, always, first

BODY = os.urandom(3 * 2**20)
SLOW = always(Fault(bytes_per_second=1.5 * 2**20), "GET")  # two seconds in all


@pytest.fixture
def proxy(s3_server: S3Server, s3: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[Proxy]:
    assert s3
    proxy = Proxy(s3_server.endpoint)
    monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.endpoint)
    monkeypatch.setattr("imgflow.store.s3.clients.REQUEST_SECONDS", 1)
    monkeypatch.setattr("imgflow.store.s3.clients.SILENT_SECONDS", 0.5)
    monkeypatch.setattr("imgflow.store.s3.clients.ATTEMPTS", 1)
    yield proxy
    proxy.stop()


@pytest.fixture
def source(proxy: Proxy, bucket: str) -> S3Source:
    assert proxy
    return S3Source(parse_location(f"s3://{bucket}/in", setting="TEST"))


def put(source: S3Source, s3: Any, key: str = "a.csv") -> SourceObject:
    s3.put_object(Bucket=source.location.bucket, Key=f"in/{key}", Body=BODY)
    found = source.stat(key)
    assert found is not None
    return found


def test_a_stream_may_take_longer_than_a_request(source: S3Source, proxy: Proxy, s3: Any) -> None:
    announced = put(source, s3)
    proxy.programme = SLOW
    assert b"".join(source.stream(announced)) == BODY
    assert proxy.count("GET") == 1


def test_a_stream_waits_for_the_work_on_its_pieces(source: S3Source, proxy: Proxy, s3: Any) -> None:
    announced = put(source, s3)
    pieces = []
    for piece in source.stream(announced):
        pieces.append(piece)
        if len(pieces) == 1:
            time.sleep(1.2)  # longer than a request may take, and than silence may last
    assert b"".join(pieces) == BODY
    assert proxy.count("GET") == 1


def test_a_stream_that_breaks_off_late_is_gone_on_with(
    source: S3Source, proxy: Proxy, s3: Any
) -> None:
    announced = put(source, s3)
    late = Fault(cut_at=2 * 2**20, bytes_per_second=1.5 * 2**20)
    proxy.programme = first(1, late, "GET")
    assert b"".join(source.stream(announced)) == BODY
    assert [request.is_resumed for request in proxy.requests[-2:]] == [False, True]


@pytest.mark.parametrize("key", ["a.csv", "odd//a.csv"])
def test_a_body_that_stops_coming_is_trouble(
    source: S3Source, proxy: Proxy, s3: Any, key: str
) -> None:
    announced = put(source, s3, key)
    proxy.programme = always(Fault(bytes_per_second=0.1), "GET")
    for read in (source.read, lambda upload: b"".join(source.stream(upload))):
        began = time.monotonic()
        with pytest.raises(Trouble, match="could not be asked for"):
            read(announced)
        assert time.monotonic() - began < 10


def test_a_body_that_drips_is_trouble(source: S3Source, proxy: Proxy, s3: Any) -> None:
    announced = put(source, s3)
    proxy.programme = always(Fault(bytes_per_second=10), "GET")
    began = time.monotonic()
    with pytest.raises(Trouble, match="could not be asked for"):
        source.read(announced)
    assert time.monotonic() - began < 10
