"""Which object of the source a URL names, in any of the forms that S3 accepts.

Only names are compared here, so the answer is a claim: before a caller gets an object because of
it, `api.backend.process_now` proves that the server means the same object.
"""

from __future__ import annotations

import os
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

from imgflow.errors import BadKey
from imgflow.store.objects import Source
from imgflow.store.s3.amazon_hosts import s3_host
from imgflow.store.s3.source_bucket import S3Source

PORTS = {"http": 80, "https": 443}

# Query parameters that do not change the object: they sign, or set headers of the answer. Any other
# may ask for something else than the object, such as its tags, a part or an older version.
HARMLESS = frozenset(
    {
        *("x-amz-algorithm", "x-amz-credential", "x-amz-date", "x-amz-expires"),
        *("x-amz-signedheaders", "x-amz-signature", "x-amz-security-token"),
        *("x-amz-content-sha256", "x-amz-checksum-mode", "x-amz-user-agent"),
        *("awsaccesskeyid", "signature", "expires"),  # signature version 2
        *("response-content-type", "response-content-language", "response-content-encoding"),
        *("response-content-disposition", "response-cache-control", "response-expires"),
        "x-id",  # the operation's name, which some SDKs add
    }
)


def endpoint_of(source: Source) -> str | None:
    """The S3 endpoint of a source; for a folder, the environment's endpoint, if one is set."""
    if isinstance(source, S3Source):
        return source.endpoint
    return os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL") or None


def own_key(source: Source, url: str) -> str | None:
    """The key of the source's object that a URL names; None if it names something else.

    Says nothing about whether the URL is signed, or what the server takes it for.
    """
    if not isinstance(source, S3Source):
        return None
    try:
        parts = urlsplit(url)
        name = _name(parts, urlsplit(source.endpoint), source.location.bucket)
        asked = parse_qsl(parts.query, keep_blank_values=True)
        if name is None or not HARMLESS.issuperset(key.lower() for key, _ in asked):
            return None
        object_key = unquote(name, errors="strict")
    except ValueError:
        return None
    if not object_key.startswith(source.location.prefix):
        return None
    key = object_key[len(source.location.prefix) :]
    try:
        source.check_key(key)
    except BadKey:
        return None  # for example an output
    return key


def _name(parts: SplitResult, endpoint: SplitResult, bucket: str) -> str | None:
    """The encoded object key in the path, if host and path are the bucket's."""
    amazon = s3_host(endpoint.hostname or "")
    if amazon is not None and amazon.bucket is None:
        in_host = _is_in_host_of_amazon(parts, amazon.partition, bucket)
    else:
        in_host = _is_in_host(parts, endpoint, bucket)
    if in_host is None:
        return None
    path = parts.path.removeprefix("/")
    if in_host:
        return path
    first, slash, rest = path.partition("/")
    return rest if slash and unquote(first) == bucket else None


def _is_in_host_of_amazon(parts: SplitResult, partition: str, bucket: str) -> bool | None:
    """Whether the host, not the path, names the bucket; None if the host is not the bucket's."""
    found = s3_host(parts.hostname or "")
    if found is None or (parts.scheme, _port(parts)) != ("https", PORTS["https"]):
        return None
    if found.partition != partition or found.bucket not in (None, bucket):
        return None
    if found.bucket is not None and "." in bucket:
        return None  # no certificate covers it, so the answer would not be Amazon's
    return found.bucket is not None


def _is_in_host(parts: SplitResult, endpoint: SplitResult, bucket: str) -> bool | None:
    """The same for any other S3 service, which has a single host."""
    service = endpoint.hostname or ""
    if (parts.scheme, _port(parts)) != (endpoint.scheme, _port(endpoint)):
        return None
    if parts.hostname == service:
        return False
    return True if parts.hostname == f"{bucket}.{service}" else None


def _port(parts: SplitResult) -> int | None:
    return PORTS.get(parts.scheme) if parts.port is None else parts.port
