"""Which URLs name an object of the source. That a name proves nothing is tested in `attacks`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache

import pytest

from imgflow.store.location import parse_location
from imgflow.store.s3.presigned import own_key
from imgflow.store.s3.source_bucket import S3Source

V4 = "X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=A%2F1&X-Amz-Date=20261129T000000Z"
V4 += "&X-Amz-Expires=60&X-Amz-SignedHeaders=host&X-Amz-Signature=5e"
V2 = "AWSAccessKeyId=AKIA&Expires=1&Signature=5e%3D"
PATH, INSIDE = "photos/in/a.jpg", "in/a.jpg"

Open = Callable[..., S3Source]


@pytest.fixture(scope="module")
def source() -> Iterator[Open]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ACCESS_KEY_ID", "of-nobody")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "of-nobody")
        patch.setenv("AWS_DEFAULT_REGION", "eu-central-1")

        @cache
        def opened(endpoint: str, bucket: str = "photos") -> S3Source:
            patch.setenv("AWS_ENDPOINT_URL", endpoint)
            return S3Source(parse_location(f"s3://{bucket}/in", setting=""), exclude=("made/",))

        yield opened


OURS = [
    f"https://photos.s3.eu-central-1.amazonaws.com/{INSIDE}",
    f"https://photos.s3-eu-central-1.amazonaws.com/{INSIDE}",
    f"https://photos.s3.dualstack.eu-central-1.amazonaws.com/{INSIDE}",
    f"https://photos.s3-fips.us-east-1.amazonaws.com/{INSIDE}",
    f"https://photos.s3.amazonaws.com/{INSIDE}",
    f"https://photos.s3.us-west-2.amazonaws.com/{INSIDE}",  # redirects to the right region
    f"https://photos.s3-accelerate.amazonaws.com/{INSIDE}",
    f"https://photos.s3-accelerate.dualstack.amazonaws.com/{INSIDE}",
    f"https://photos.s3.ap-southeast-2.amazonaws.com:443/{INSIDE}",
    f"HTTPS://PHOTOS.S3.EU-CENTRAL-1.AMAZONAWS.COM/{INSIDE}",
    f"https://s3.eu-central-1.amazonaws.com/{PATH}",
    f"https://s3-eu-central-1.amazonaws.com/{PATH}",
    f"https://s3.dualstack.eu-central-1.amazonaws.com/{PATH}",
    f"https://s3.amazonaws.com/{PATH}",
    "https://s3.amazonaws.com/%70hotos/%69n/%61.jpg",
]

# Hosts with our bucket's name in them, or before our bucket's name in the path, which are others'.
THEIRS = [
    # Buckets that are called as a service is.
    *(f"https://s3-evil.s3.{region}amazonaws.com/{PATH}" for region in ("", "eu-central-1.")),
    *(
        f"https://s3-evil.s3{form}eu-central-1.amazonaws.com/{PATH}"
        for form in ("-", ".dualstack.")
    ),
    f"https://s3-evil.s3-accelerate.amazonaws.com/{PATH}",
    f"https://s3-evil.s3-fips.us-east-1.amazonaws.com/{PATH}",
    f"https://s3.evil.s3.eu-central-1.amazonaws.com/{PATH}",
    f"https://s3.eu-central-1.s3.eu-central-1.amazonaws.com/{PATH}",
    f"https://s3.dualstack.s3.amazonaws.com/{PATH}",
    f"https://photos.s3.s3.eu-central-1.amazonaws.com/{INSIDE}",
    f"https://photos.s3-evil.s3.eu-central-1.amazonaws.com/{INSIDE}",
    f"https://evil.photos.s3.eu-central-1.amazonaws.com/{INSIDE}",
    f"https://xphotos.s3.eu-central-1.amazonaws.com/{INSIDE}",
    f"https://photosx.s3.eu-central-1.amazonaws.com/{INSIDE}",
    # The same name of a bucket in other partitions.
    f"https://photos.s3.cn-north-1.amazonaws.com.cn/{INSIDE}",
    f"https://s3.cn-north-1.amazonaws.com.cn/{PATH}",
    f"https://photos.s3.us-gov-west-1.amazonaws.com/{INSIDE}",
    f"https://s3.us-gov-east-1.amazonaws.com/{PATH}",
    f"https://photos.s3-fips.us-gov-west-1.amazonaws.com/{INSIDE}",
    f"https://photos.s3.us-iso-east-1.c2s.ic.gov/{INSIDE}",
    f"https://photos.s3.us-iso-east-1.amazonaws.com/{INSIDE}",
    f"https://photos.s3.eusc-de-east-1.amazonaws.eu/{INSIDE}",
    f"https://photos.s3.eu-central-1.amazonaws.com.cn/{INSIDE}",
    f"https://photos.s3.cn-north-1.amazonaws.com/{INSIDE}",
    f"https://photos.s3.amazonaws.com.cn/{INSIDE}",
    # What answers as somebody set it up to.
    f"https://photos-123456789012.s3-accesspoint.eu-central-1.amazonaws.com/{INSIDE}",
    f"https://s3-evil-123456789012.s3-accesspoint.eu-central-1.amazonaws.com/{PATH}",
    f"https://photos.s3-accesspoint.eu-central-1.amazonaws.com/{INSIDE}",
    f"https://s3-accesspoint.eu-central-1.amazonaws.com/{PATH}",
    f"https://s3-evil-1.s3-object-lambda.eu-central-1.amazonaws.com/{PATH}",
    f"https://photos.s3-object-lambda.eu-central-1.amazonaws.com/{INSIDE}",
    f"https://photos.mrap.accesspoint.s3-global.amazonaws.com/{INSIDE}",
    f"https://s3-outposts.eu-central-1.amazonaws.com/{PATH}",
    f"https://photos.1.op-0.s3-outposts.eu-central-1.amazonaws.com/{INSIDE}",
    f"https://photos.s3-website.eu-central-1.amazonaws.com/{INSIDE}",
    f"https://photos.s3-website-eu-west-1.amazonaws.com/{INSIDE}",
    f"https://s3-evil-1.eu-central-1.elb.amazonaws.com/{PATH}",
    f"https://s3-evil.elb.eu-central-1.amazonaws.com/{PATH}",
    f"https://s3.evil.amazonaws.com/{PATH}",
    f"https://s3-control.eu-central-1.amazonaws.com/{PATH}",
    f"https://photos.s3express-euc1-az1.eu-central-1.amazonaws.com/{INSIDE}",
    f"https://photos.vpce-1a2b.s3.eu-central-1.vpce.amazonaws.com/{INSIDE}",
    f"https://s3-accelerate.amazonaws.com/{PATH}",
    f"https://photos.s3-accelerate.eu-central-1.amazonaws.com/{INSIDE}",
    # Not Amazon's, not by TLS, not there.
    f"http://photos.s3.eu-central-1.amazonaws.com/{INSIDE}",
    f"https://photos.s3.eu-central-1.amazonaws.com:8443/{INSIDE}",
    f"https://photos.s3.eu-central-1.amazonaws.com:0/{INSIDE}",
    f"https://photos.s3.eu-central-1.amazonaws.com./{INSIDE}",
    f"https://photos.s3.eu-central-1.amazonaws.com.evil.example/{INSIDE}",
    f"https://evil.example/{PATH}",
    f"https://photos.s3.eu-central-1.amazonaws.com\\.evil.example/{INSIDE}",
    f"https://s3xamazonaws.com/{PATH}",
    f"https://s3.eu-central-1.amazonaws.com/{INSIDE}",
    f"https://s3.eu-central-1.amazonaws.com//{PATH}",
    f"https://photos.s3.eu-central-1.amazonaws.com//{INSIDE}",
    "https://photos.s3.eu-central-1.amazonaws.com/private/a.jpg",
    "https://photos.s3.eu-central-1.amazonaws.com/in/made/a.jpg",
    "https://photos.s3.eu-central-1.amazonaws.com/in/",
    "https://photos.s3.eu-central-1.amazonaws.com/in/%ff.jpg",
]


@pytest.mark.parametrize("query", [V4, V2, ""])
@pytest.mark.parametrize("url", OURS)
def test_an_object_has_many_addresses_at_amazon(source: Open, url: str, query: str) -> None:
    found = own_key(source("https://s3.eu-central-1.amazonaws.com"), f"{url}?{query}")
    assert found == "a.jpg"


@pytest.mark.parametrize("url", THEIRS)
def test_what_only_looks_like_one_is_none(source: Open, url: str) -> None:
    assert own_key(source("https://s3.eu-central-1.amazonaws.com"), f"{url}?{V4}") is None


@pytest.mark.parametrize(
    ("endpoint", "url"),
    [
        ("https://s3.cn-north-1.amazonaws.com.cn", "https://photos.s3.cn-north-1.amazonaws.com.cn"),
        ("https://s3.us-gov-west-1.amazonaws.com", "https://photos.s3.us-gov-east-1.amazonaws.com"),
        ("https://s3.us-iso-east-1.c2s.ic.gov", "https://photos.s3.us-iso-east-1.c2s.ic.gov"),
    ],
)
def test_a_partition_knows_its_own_hosts_only(source: Open, endpoint: str, url: str) -> None:
    opened = source(endpoint)
    assert own_key(opened, f"{url}/{INSIDE}?{V4}") == "a.jpg"
    assert own_key(opened, f"https://photos.s3.eu-central-1.amazonaws.com/{INSIDE}?{V4}") is None


def test_a_bucket_with_dots_is_in_the_path_only_since_no_certificate_covers_its_host(
    source: Open,
) -> None:
    opened = source("https://s3.eu-central-1.amazonaws.com", bucket="my.photos")
    assert own_key(opened, f"https://s3.amazonaws.com/my.{PATH}?{V4}") == "a.jpg"
    assert own_key(opened, f"https://my.photos.s3.amazonaws.com/{INSIDE}?{V4}") is None


@pytest.mark.parametrize(
    "more",
    ["response-content-type=image%2Fjpeg", "response-content-disposition=x", "x-id=GetObject",
     "X-Amz-Security-Token=x", "x-amz-checksum-mode=ENABLED", "Response-Expires=0"],
)  # fmt: skip
def test_what_signs_and_what_names_headers_of_the_answer_leaves_the_object(
    source: Open, more: str
) -> None:
    url = f"https://photos.s3.eu-central-1.amazonaws.com/{INSIDE}?{V4}&{more}"
    assert own_key(source("https://s3.eu-central-1.amazonaws.com"), url) == "a.jpg"


@pytest.mark.parametrize(
    "more",
    ["acl", "tagging", "torrent", "attributes", "legal-hold", "retention", "restore", "uploads",
     "uploadId=1", "partNumber=1", "versionId=1", "versionid=1", "select&select-type=2", "ACL",
     "policy", "location", "x-amz-website-redirect-location=x", "x-amz-copy-source=x", "unknown=1",
     "%61cl", "acl=", "response-content-type;acl"],
)  # fmt: skip
def test_a_url_of_something_about_an_object_is_none_of_the_object(source: Open, more: str) -> None:
    for query in (f"{V4}&{more}", f"{more}&{V4}", f"{V2}&{more}", more):
        url = f"https://photos.s3.eu-central-1.amazonaws.com/{INSIDE}?{query}"
        assert own_key(source("https://s3.eu-central-1.amazonaws.com"), url) is None


@pytest.mark.parametrize(
    ("url", "key"),
    [
        (f"http://ceph.internal:7480/{PATH}", "a.jpg"),
        (f"http://photos.ceph.internal:7480/{INSIDE}", "a.jpg"),
        (f"http://CEPH.internal:7480/{PATH}", "a.jpg"),
        (f"https://ceph.internal:7480/{PATH}", None),
        (f"http://ceph.internal/{PATH}", None),
        (f"http://ceph.internal:7481/{PATH}", None),
        (f"http://xphotos.ceph.internal:7480/{INSIDE}", None),
        (f"http://a.photos.ceph.internal:7480/{INSIDE}", None),
        (f"http://photos.xceph.internal:7480/{INSIDE}", None),
        (f"http://evil.ceph.internal:7480/{PATH}", None),
        (f"https://photos.s3.eu-central-1.amazonaws.com/{INSIDE}", None),
    ],
)
def test_another_service_has_one_host_and_those_of_its_buckets(
    source: Open, url: str, key: str | None
) -> None:
    assert own_key(source("http://ceph.internal:7480"), f"{url}?{V4}") == key


def test_a_service_whose_host_begins_like_the_bucket_takes_the_bucket_from_the_path(
    source: Open,
) -> None:
    opened = source("https://photos.example.org")
    assert own_key(opened, f"https://photos.example.org/{PATH}?{V4}") == "a.jpg"
    assert own_key(opened, f"https://photos.example.org/{INSIDE}?{V4}") is None
