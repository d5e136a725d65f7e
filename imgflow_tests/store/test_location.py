from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imgflow.errors import SettingsError
from imgflow.store.config import StoreConfig
from imgflow.store.location import Location, parse_location


def parse(url: str) -> Location:
    return parse_location(url, setting="IMGFLOW_SOURCE_URL")


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("s3://bucket", Location("s3", "bucket", "")),
        ("s3://bucket/", Location("s3", "bucket", "")),
        ("S3://bucket/in", Location("s3", "bucket", "in/")),
        ("s3://bucket/in/", Location("s3", "bucket", "in/")),
        ("s3://my.bucket-1/a b/ü", Location("s3", "my.bucket-1", "a b/ü/")),
        ("s3://bucket/a?b#c%20+", Location("s3", "bucket", "a?b#c%20+/")),
        ("s3://bucket/a\tb", Location("s3", "bucket", "a\tb/")),
        ("s3://bucket/a//b", Location("s3", "bucket", "a//b/")),
        ("file:///data/in", Location("file", "", "data/in/")),
        ("file://localhost/data/in/", Location("file", "", "data/in/")),
        ("file:///data/a%20b%25c", Location("file", "", "data/a b%c/")),
        ("file:///data/a b", Location("file", "", "data/a b/")),
        ("file:///data/what?#1", Location("file", "", "data/what?#1/")),
        ("file:///data/../other", Location("file", "", "other/")),
        ("file:///", Location("file", "", "")),
    ],
)
def test_a_url_names_a_bucket_or_a_folder(url: str, expected: Location) -> None:
    assert parse(url) == expected


@given(st.lists(st.text(st.characters(exclude_characters="/\0"), min_size=1), min_size=1))
def test_a_folder_becomes_a_url_and_comes_back(parts: list[str]) -> None:
    try:
        folder = Path("/", *parts).resolve()
        url = folder.as_uri()
    except UnicodeEncodeError:  # a lone surrogate that stands for no byte
        return
    except OSError:  # a name longer than the file system takes
        return
    location = parse(url)
    assert location.folder == folder
    assert parse(location.url) == location


@pytest.mark.parametrize("url", ["s3://bucket/a//b", "s3://bucket/ü ?#", "s3://bucket", "file:///"])
def test_the_canonical_url_is_read_as_the_same_location(url: str) -> None:
    assert parse(parse(url).url) == parse(url)
    assert parse(parse(url).url).url == parse(url).url


def test_a_link_and_its_target_are_one_location(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    assert parse((tmp_path / "link").as_uri()) == parse((tmp_path / "real").as_uri())


@pytest.mark.parametrize(
    ("url", "advice"),
    [
        ("s3://", "write s3://bucket/prefix"),
        ("s3:///in", "write s3://bucket/prefix"),
        ("s3://My_Bucket/in", "write s3://bucket/prefix"),
        ("s3://localhost:9000/bucket", "write s3://bucket/prefix"),
        ("s3://[bucket/in", "write s3://bucket/prefix"),
        ("s3://bucket?x=1", "write s3://bucket/prefix"),
        ("s3://bucket/a\0b", "NUL"),
        ("file:///a%00b", "NUL"),
        ("file://data/in", "three slashes"),
        ("/data/in", "a bare path is not understood"),
        ("C:\\data", "a bare path is not understood"),
        ("gs://bucket", "gs is not understood"),
        ("", "a bare path is not understood"),
    ],
)
def test_a_wrong_url_is_refused_with_its_setting_and_the_fix(url: str, advice: str) -> None:
    with pytest.raises(SettingsError, match="IMGFLOW_SOURCE_URL") as caught:
        parse(url)
    assert advice in str(caught.value)
    assert repr(url) in str(caught.value)


@pytest.mark.parametrize("url", ["s3://AKIA:wJal/rXUt+secret@bucket/in", "s3://AKIA@x/wJal@b"])
def test_credentials_in_a_url_are_refused_and_not_repeated(url: str) -> None:
    with pytest.raises(SettingsError, match="AWS_SECRET_ACCESS_KEY") as caught:
        parse(url)
    assert "wJal" not in str(caught.value)
    assert "AKIA" not in str(caught.value)


@pytest.mark.parametrize(
    ("source", "output"),
    [
        ("s3://bucket/in", "s3://bucket/in/"),
        ("s3://bucket", "s3://bucket/"),
        ("file:///data", "file:///data/x/.."),
    ],
)
def test_the_same_place_for_both_is_refused(source: str, output: str) -> None:
    with pytest.raises(
        SettingsError, match="IMGFLOW_SOURCE_URL and IMGFLOW_OUTPUT_URL are the sam"
    ):
        StoreConfig(source, output).locations()


@pytest.mark.parametrize("folder", ["grayscale", "thumbnail/deep", "proof", "preview"])
def test_a_source_where_outputs_are_written_is_refused(folder: str) -> None:
    with pytest.raises(SettingsError, match=r"IMGFLOW_SOURCE_URL.*Choose another prefix"):
        StoreConfig(f"s3://bucket/out/{folder}", "s3://bucket/out").locations()


def test_a_source_beside_the_folders_of_outputs_is_fine() -> None:
    StoreConfig("s3://bucket/out/uploads", "s3://bucket/out").locations()
    StoreConfig("s3://bucket/out/previews", "s3://bucket/out").locations()


@pytest.mark.parametrize("prefix", ["a//b", "./a", "a/..", "a\tb"])
def test_outputs_are_refused_under_a_prefix_that_obstore_cannot_represent(prefix: str) -> None:
    with pytest.raises(SettingsError, match=r"IMGFLOW_OUTPUT_URL.*Choose another"):
        StoreConfig("s3://bucket/in", f"s3://bucket/{prefix}").locations()


def test_each_url_is_blamed_by_its_own_setting() -> None:
    with pytest.raises(SettingsError, match=r"^IMGFLOW_SOURCE_URL"):
        StoreConfig("in", "s3://bucket/out").locations()
    with pytest.raises(SettingsError, match=r"^IMGFLOW_OUTPUT_URL"):
        StoreConfig("s3://bucket/in", "out").locations()


def test_a_place_lies_below_another_by_whole_segments() -> None:
    assert parse("s3://bucket/in/a").below(parse("s3://bucket/in")) == "a/"
    assert parse("s3://bucket/inside").below(parse("s3://bucket/in")) is None
    assert parse("s3://bucket/in").below(parse("s3://bucket")) == "in/"
    assert parse("s3://bucket/in").below(parse("s3://other")) is None
    assert parse("file:///a/b").below(parse("file:///")) == "a/b/"
