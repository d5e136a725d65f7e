"""Objects of a bucket: listed, read, written and deleted by their exact keys."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from imgflow.errors import SourceChanged
from imgflow.store.config import StoreConfig
from imgflow.store.naming import is_exact
from imgflow.store.objects import SourceObject
from imgflow.store.s3.source_bucket import S3Source
from imgflow_tests.store.buckets import listed, source_of

KEYS = [
    "a.jpg", "/a.jpg", "a.jpg/", "a//b.jpg", "//", "x/../y.jpg",
    "./z.jpg", "dot/./z.jpg", "..", ".",
    "/lead.jpg", "trail/", "tab\there.jpg", "new\nline.jpg",
    "return\r.jpg", "bell\a.jpg", "a b.jpg",
    " lead", "trail ", "a+b.jpg", "a%b.jpg", "a%2Bb.jpg", "a%20b.jpg", "a%25.jpg", "a#b?c&d=e.jpg",
    "quo\"te's.jpg", "br[ack]{et}(s)<x>.jpg", "com,ma;co:lon.jpg",
    "dots...inside.jpg", ".../x", "a\\b",
    "ümläut/日本語/😀.jpg", "e\u0301.jpg", "é.jpg", "@~!$*|^`.jpg",
    "x" * 1_020, "ü" * 500 + "/y.jpg",
    "#1", "a#1", "\u2028.jpg", "\x7f.jpg", "\uffff.jpg",
]  # fmt: skip


@pytest.fixture(params=["", "in/", "odd//pre fix/../+%2B/"], ids=["root", "prefix", "odd-prefix"])
def source(request: pytest.FixtureRequest, bucket: str) -> S3Source:
    return source_of(f"s3://{bucket}/{request.param}")


def test_every_key_is_listed_described_read_streamed_and_deleted_exactly(
    source: S3Source, s3: Any, bucket: str
) -> None:
    begin = source.location.prefix
    keys = [key for key in KEYS if len((begin + key).encode()) <= 1_024]
    if begin == "":
        keys = [key for key in keys if key not in (".", "..")]  # URL libraries resolve those
    bodies = {key: f"body of {key!r}".encode() for key in keys}
    for key, body in bodies.items():
        s3.put_object(Bucket=bucket, Key=begin + key, Body=body)
    found = listed(source, 7)
    assert [o.key for o in found] == sorted(bodies, key=str.encode)
    for announced in found:
        assert source.stat(announced.key) == announced
        assert source.read(announced) == bodies[announced.key]
        assert b"".join(source.stream(announced)) == bodies[announced.key]
    for announced in found:
        source.delete(announced.key)
        source.delete(announced.key)
        assert source.stat(announced.key) is None
        with pytest.raises(SourceChanged, match="deleted since"):
            source.read(announced)
        with pytest.raises(SourceChanged, match="deleted since"):
            list(source.stream(announced))
    assert listed(source) == []


def test_every_key_can_be_uploaded(source: S3Source, tmp_path: Path) -> None:
    file = tmp_path / "file"
    keys = [k for k in KEYS if len((source.location.prefix + k).encode()) <= 1_024]
    keys = [key for key in keys if key not in (".", "..")]
    for key in keys:
        file.write_bytes(key.encode())
        source.upload(key, file)
    found = listed(source)
    assert [o.key for o in found] == sorted(keys, key=str.encode)
    assert [source.read(o) for o in found] == [o.key.encode() for o in found]


def test_any_key_is_listed_and_read_exactly(s3: Any, bucket: str) -> None:
    source = source_of(f"s3://{bucket}/in")
    pieces = st.one_of(
        st.sampled_from(["/", ".", "..", "//", "%", "+", " ", "\t", "\n", "%2F", "&amp;", "]]>"]),
        st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=5),
    )

    @given(st.lists(pieces, min_size=1, max_size=8).map("".join).filter(bool))
    @settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.too_slow])
    def check(key: str) -> None:
        s3.put_object(Bucket=bucket, Key="in/" + key, Body=b"body")
        try:
            (announced,) = listed(source)
            assert announced.key == key
            assert source.stat(key) == announced
            assert source.read(announced) == b"body"
        finally:
            s3.delete_object(Bucket=bucket, Key="in/" + key)

    check()


def test_three_similar_names_are_three_objects(s3: Any, bucket: str) -> None:
    for body in (b"a.jpg", b"/a.jpg", b"a.jpg/"):
        s3.put_object(Bucket=bucket, Key=f"in/{body.decode()}", Body=body)
    source = source_of(f"s3://{bucket}/in")
    found = {o.key: source.read(o) for o in listed(source)}
    assert found == {"a.jpg": b"a.jpg", "/a.jpg": b"/a.jpg", "a.jpg/": b"a.jpg/"}


def test_folder_markers_are_left_out_and_counted(s3: Any, bucket: str) -> None:
    for key in ("in/", "in/folder/", "in/folder/a.jpg", "in/folder//"):
        s3.put_object(Bucket=bucket, Key=key, Body=b"")
    s3.put_object(Bucket=bucket, Key="in/odd/", Body=b"with bytes")
    page = source_of(f"s3://{bucket}/in").list_page(None, 100)
    assert [o.key for o in page.objects] == ["folder/a.jpg", "odd/"]
    assert page.ignored == 3


def test_a_page_of_nothing_but_markers_still_leads_on(s3: Any, bucket: str) -> None:
    for number in range(4):
        s3.put_object(Bucket=bucket, Key=f"{number}/", Body=b"")
    s3.put_object(Bucket=bucket, Key="9.jpg", Body=b"x")
    source = source_of(f"s3://{bucket}")
    page = source.list_page(None, 3)
    assert (page.objects, page.ignored, page.resume_after) == ([], 3, "2/")
    assert [o.key for o in listed(source, 3)] == ["9.jpg"]


def test_a_page_may_end_at_any_key(source: S3Source, s3: Any, bucket: str) -> None:
    begin = source.location.prefix
    keys = [f"a{chr(point)}b" for point in [*range(1, 0x30), 0x7F, 0xFFFE, 0xFFFF, 0x10FFFF]]
    for key in keys:
        s3.put_object(Bucket=bucket, Key=begin + key, Body=b"x")
    assert [o.key for o in listed(source, 1)] == sorted(keys, key=str.encode)


def test_a_prefix_ends_at_its_slash(s3: Any, bucket: str) -> None:
    for key in ("in", "in/a", "in-side/b", "inside/c", "in.d", "out/in/e"):
        s3.put_object(Bucket=bucket, Key=key, Body=b"x")
    source = source_of(f"s3://{bucket}/in")
    assert [o.key for o in listed(source)] == ["a"]
    assert source.stat("../inside/c") is None


def test_outputs_in_the_same_bucket_are_not_listed(s3: Any, bucket: str) -> None:
    for key in ("in/a", "in/out/thumbnail/a", "in/outer", "out/b"):
        s3.put_object(Bucket=bucket, Key=key, Body=b"x")
    inside = StoreConfig(f"s3://{bucket}/in", f"s3://{bucket}/in/out").open_source()
    page = inside.list_page(None, 10)
    assert ([o.key for o in page.objects], page.ignored) == (["a", "outer"], 1)
    around = StoreConfig(f"s3://{bucket}/in", f"s3://{bucket}").open_source()
    assert [o.key for o in around.list_page(None, 10).objects] == ["a", "out/thumbnail/a", "outer"]


def test_pages_resume_after_any_key_also_one_that_is_gone(s3: Any, bucket: str) -> None:
    keys = [f"in/{number:03}+ü.jpg" for number in range(25)]
    for key in keys:
        s3.put_object(Bucket=bucket, Key=key, Body=b"x")
    source = source_of(f"s3://{bucket}/in")
    for limit in (1, 7, 24, 25, 26):
        assert [f"in/{o.key}" for o in listed(source, limit)] == keys
    assert source.list_page(None, 25).resume_after is None
    s3.delete_object(Bucket=bucket, Key=keys[9])
    assert [f"in/{o.key}" for o in listed(source, 5, keys[9][3:])] == keys[10:]


def test_a_listing_and_a_head_give_the_same_identity(s3: Any, bucket: str, tmp_path: Path) -> None:
    source = source_of(f"s3://{bucket}")
    big = tmp_path / "big"
    big.write_bytes(os.urandom(9 * 2**20))
    source.upload("multi.bin", big)
    part = s3.create_multipart_upload(Bucket=bucket, Key="late.bin")
    tag = s3.upload_part(
        Bucket=bucket, Key="late.bin", UploadId=part["UploadId"], PartNumber=1, Body=b"late"
    )["ETag"]
    s3.complete_multipart_upload(
        Bucket=bucket,
        Key="late.bin",
        UploadId=part["UploadId"],
        MultipartUpload={"Parts": [{"ETag": tag, "PartNumber": 1}]},
    )
    for number in range(5):
        s3.put_object(Bucket=bucket, Key=f"{number}.jpg", Body=b"x" * number)
    s3.copy_object(Bucket=bucket, Key="copy.bin", CopySource={"Bucket": bucket, "Key": "multi.bin"})
    found = listed(source)
    assert len(found) == 8
    assert {o.key: o.identity for o in found} == {
        o.key: _head(source, o.key).identity for o in found
    }
    (multi,) = (o for o in found if o.key == "multi.bin")
    assert multi.etag.endswith("-2")
    assert source.read(multi) == big.read_bytes()


def _head(source: S3Source, key: str) -> SourceObject:
    found = source.stat(key)
    assert found is not None
    return found


def test_identities_agree_in_a_versioned_bucket_too(s3: Any, bucket: str) -> None:
    s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    s3.put_object(Bucket=bucket, Key="a", Body=b"1")
    s3.put_object(Bucket=bucket, Key="a", Body=b"22")
    source = source_of(f"s3://{bucket}")
    (announced,) = listed(source)
    assert announced.identity == _head(source, "a").identity
    assert source.read(announced) == b"22"
    for version in s3.list_object_versions(Bucket=bucket)["Versions"]:
        s3.delete_object(Bucket=bucket, Key="a", VersionId=version["VersionId"])


@pytest.mark.parametrize("key", ["a.jpg", "a//b.jpg"], ids=["obstore", "boto3"])
def test_an_overwritten_object_is_not_read_in_place_of_the_announced_one(
    s3: Any, bucket: str, key: str
) -> None:
    source = source_of(f"s3://{bucket}")
    s3.put_object(Bucket=bucket, Key=key, Body=b"old")
    (announced,) = listed(source)
    s3.put_object(Bucket=bucket, Key=key, Body=b"new")
    assert is_exact(key) == (key == "a.jpg")
    with pytest.raises(SourceChanged, match="overwritten since"):
        source.read(announced)
    with pytest.raises(SourceChanged, match="overwritten since"):
        list(source.stream(announced))


@pytest.mark.parametrize("key", ["a.bin", "a//b.bin"], ids=["obstore", "boto3"])
def test_a_large_object_is_streamed_in_pieces(s3: Any, bucket: str, key: str) -> None:
    body = os.urandom(5 * 2**20 + 1)
    s3.put_object(Bucket=bucket, Key=key, Body=body)
    source = source_of(f"s3://{bucket}")
    (announced,) = listed(source)
    pieces = list(source.stream(announced))
    assert b"".join(pieces) == body
    assert len(pieces) >= 4
