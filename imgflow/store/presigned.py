"""Which object of the source a URL is of, however S3 lets it be written."""

from __future__ import annotations

import os
from urllib.parse import SplitResult, parse_qs, unquote, urlsplit

from imgflow.errors import BadKey
from imgflow.store.objects import Source
from imgflow.store.s3 import S3Source
from imgflow.store.s3_clients import AMAZON

PORTS = {"http": 80, "https": 443}


def endpoint_of(source: Source) -> str | None:
    """The S3 service of a source; of a folder that of the environment, if any is set."""
    if isinstance(source, S3Source):
        return source.endpoint
    return os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL") or None


def own_key(source: Source, url: str) -> str | None:
    """The key of the source's object that a URL leads to, or None when it leads elsewhere.

    Says nothing about whether the URL is signed. One of a certain version is not of the object.
    """
    if not isinstance(source, S3Source):
        return None
    try:
        parts = urlsplit(url)
        name = _name(parts, urlsplit(source.endpoint), source.location.bucket)
        if name is None or "versionId" in parse_qs(parts.query, keep_blank_values=True):
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
        return None  # such as an output
    return key


def _name(parts: SplitResult, endpoint: SplitResult, bucket: str) -> str | None:
    """The encoded object key in the path, when host and path are of the bucket."""
    host, path = parts.hostname or "", parts.path.removeprefix("/")
    in_host = host.startswith(f"{bucket}.")
    service = host.removeprefix(f"{bucket}.") if in_host else host
    if AMAZON.fullmatch(endpoint.hostname or ""):
        # Names of buckets are unique in all regions.
        is_ours = AMAZON.fullmatch(service) and parts.scheme == "https"
    else:
        is_ours = (parts.scheme, service, _port(parts)) == (
            endpoint.scheme,
            endpoint.hostname,
            _port(endpoint),
        )
    if not is_ours:
        return None
    if in_host:
        return path
    first, slash, rest = path.partition("/")
    return rest if slash and unquote(first) == bucket else None


def _port(parts: SplitResult) -> int | None:
    return parts.port or PORTS.get(parts.scheme)
