from __future__ import annotations

import pytest

from imgflow.fetch.hosts import AllowedHosts, Entry, NotAllowed

SECRET = "X-Amz-Signature=5ecre7"  # noqa: S105 - of nobody

S3 = [
    "https://s3.amazonaws.com/bucket/a.jpg",
    "https://bucket.s3.amazonaws.com/a.jpg",
    "https://bucket.s3.eu-central-1.amazonaws.com/a.jpg",
    "https://a.dotted.bucket.s3-us-west-2.amazonaws.com/a.jpg",
    "https://s3.dualstack.eu-west-1.amazonaws.com/bucket/a.jpg",
    "https://bucket.s3.cn-north-1.amazonaws.com.cn/a.jpg",
    "HTTPS://BUCKET.S3.AMAZONAWS.COM:443/a.jpg",
    "https://bucket.s3.amazonaws.com./a.jpg",
]

ELSEWHERE = [
    "http://bucket.s3.amazonaws.com/a.jpg",
    "https://bucket.s3.amazonaws.com:8443/a.jpg",
    "https://example.org/a.jpg",
    "https://s3.amazonaws.com.evil.example/a.jpg",
    "https://evil.example/s3.amazonaws.com/a.jpg",
    "https://evil.example#.s3.amazonaws.com/",
    "https://evil.example?.s3.amazonaws.com/",
    "https://ec2-1-2-3-4.compute.amazonaws.com/",
    "https://evils3.amazonaws.com.evil.example/",
    "https://amazonaws.com/",
    # Of Amazon, but what they answer is anyone's.
    "https://s3-evil-1.eu-central-1.elb.amazonaws.com/a.jpg",
    "https://x.s3-website-eu-west-1.amazonaws.com/a.jpg",
    "https://x-1.s3-accesspoint.eu-west-1.amazonaws.com/a.jpg",
    "https://x-1.s3-object-lambda.eu-west-1.amazonaws.com/a.jpg",
    "https://s3.evil.amazonaws.com/a.jpg",
    "https://s3xamazonaws.com/",
    "https://user@bucket.s3.amazonaws.com/a.jpg",
    "https://bucket.s3.amazonaws.com@evil.example/a.jpg",
    "https://user:hunter2@bucket.s3.amazonaws.com/a.jpg",
    "https://127.0.0.1/", "https://2130706433/", "https://0177.0.0.1/", "https://0x7f.1/",
    "https://[::1]/", "https://[::ffff:127.0.0.1]/", "https://169.254.169.254/latest/meta-data/",
    "https://localhost/", "https://localhost.localdomain/",
]  # fmt: skip

MALFORMED = [
    "", "a.jpg", "/a.jpg", "//bucket.s3.amazonaws.com/a.jpg", "s3://bucket/a.jpg",
    "file:///etc/passwd", "ftp://bucket.s3.amazonaws.com/a", "gopher://127.0.0.1:70/_",
    "data:image/png;base64,AAAA", "https:/bucket.s3.amazonaws.com/a", "https://",
    "https:///a.jpg", "https://bucket.s3.amazonaws.com:99999/", "https://bucket.s3.amazonaws.com:x/",
    "https://[::1/", "https://bucket.s3.amazonaws.com/a b",
    "https://bucket.s3.amazonaws.com/a\r\nX: y",
    "https://bucket.s3.amazonaws.com/\x00", "https://bucket.s3.amazonaws.com/\u00e9",
    "https://bucket.s3.amazonaws.com\\@evil.example/", "https://ⓢ3.amazonaws.com/",
    "https://" + "a" * 300 + ".s3.amazonaws.com/",
    "https://bucket.s3.amazonaws.com/" + "a" * 8_192,
]  # fmt: skip


@pytest.mark.parametrize("url", S3)
def test_s3_of_amazon_is_allowed_by_https(url: str) -> None:
    target = AllowedHosts().target(f"{url}?{SECRET}")
    assert (target.scheme, target.port, target.may_be_near) == ("https", 443, False)
    assert target.path.endswith(f"a.jpg?{SECRET}")
    assert target.host == target.host.lower()
    assert SECRET not in repr(target)


@pytest.mark.parametrize("url", [*ELSEWHERE, *MALFORMED])
def test_nothing_else_is(url: str) -> None:
    with pytest.raises(NotAllowed) as caught:
        AllowedHosts().target(f"{url}?{SECRET}" if url else url)
    assert "5ecre7" not in str(caught.value)
    assert "hunter2" not in str(caught.value)


def test_the_endpoint_of_the_settings_is_allowed_as_it_is_and_may_be_near() -> None:
    allowed = AllowedHosts(endpoint="http://ceph.internal:7480")
    for url in ("http://ceph.internal:7480/b/a.jpg", "http://b.ceph.internal:7480/a.jpg"):
        assert allowed.target(url).may_be_near
    for url in (
        "https://ceph.internal:7480/a",
        "http://ceph.internal/a",
        "http://ceph.internal:7481/a",
        "http://xceph.internal:7480/a",
    ):
        with pytest.raises(NotAllowed):
            allowed.target(url)
    assert (
        not AllowedHosts(endpoint="https://s3.eu-west-1.amazonaws.com")
        .target("https://s3.eu-west-1.amazonaws.com/b/a")
        .may_be_near
    )


def test_hosts_of_the_settings_are_allowed_as_they_are_written() -> None:
    allowed = AllowedHosts(
        ["Photos.example.org", "*.cdn.example", "http://old.example:8080", "https://10.1.2.3"]
    )
    for url in (
        "https://photos.example.org/a",
        "https://a.b.cdn.example/a",
        "http://old.example:8080/a",
    ):
        assert not allowed.target(url).may_be_near
    assert allowed.target("https://10.1.2.3/a").may_be_near
    for url in (
        "http://photos.example.org/a", "https://x.photos.example.org/a", "https://cdn.example/a",
        "https://xcdn.example/a", "https://old.example:8080/a", "http://old.example/a",
        "https://10.1.2.4/a",
    ):  # fmt: skip
        with pytest.raises(NotAllowed):
            allowed.target(url)


@pytest.mark.parametrize("text", ["", "*", "a/b", "ftp://a", "a:0", "a:99999", "a b", "u@a", "*."])
def test_what_is_no_host_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="host"):
        Entry.parse(text)
