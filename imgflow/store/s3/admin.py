"""Requests about a bucket itself: what `imgflow doctor` asks about it, and creating it.

Requests for objects are in `source_bucket` and `store.output_store`.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import urlsplit

from botocore.exceptions import BotoCoreError, ClientError

from imgflow.errors import Trouble
from imgflow.store.location import Checksums, Location
from imgflow.store.s3.clients import s3_client
from imgflow.store.s3.store_errors import MISSING, error_code, explain, first_line


@dataclass(frozen=True)
class Service:
    """What the headers of an answer say about an S3 service.

    Attributes:
        endpoint: URL that was asked.
        client_region: Region for which requests are signed.
        region: Region of the bucket; None if the server does not say.
        clock_seconds: How far the server's clock is ahead of this machine's; None if unknown.
        names_bucket: Whether the endpoint's URL already contains the bucket's name.
    """

    endpoint: str
    client_region: str
    region: str | None
    clock_seconds: float | None
    names_bucket: bool


def look_at_service(location: Location, checksums: Checksums) -> Service:
    """Send HEAD for a bucket; the headers are useful even if the server refuses it.

    Raises:
        Trouble: The service does not answer.
    """
    client = s3_client(checksums=checksums)
    before = time.time()
    try:
        answer = client.head_bucket(Bucket=location.bucket)
    except ClientError as error:
        answer = error.response
    except BotoCoreError as error:
        raise Trouble(f"{location.url} could not be looked at: {first_line(error)}.") from error
    headers = answer["ResponseMetadata"]["HTTPHeaders"]
    endpoint = urlsplit(client.meta.endpoint_url)
    return Service(
        endpoint=f"{endpoint.scheme}://{endpoint.netloc.rpartition('@')[2]}",
        client_region=client.meta.region_name or "us-east-1",
        region=headers.get("x-amz-bucket-region"),
        clock_seconds=_ahead(headers, (before + time.time()) / 2),
        names_bucket=endpoint.netloc.startswith(f"{location.bucket}.")
        or endpoint.path.strip("/").partition("/")[0] == location.bucket,
    )


def event_targets(location: Location, checksums: Checksums) -> Mapping[str, Sequence[Any]] | None:
    """Where a bucket sends its events, according to `GetBucketNotificationConfiguration`.

    Returns:
        None if these credentials may not see it, or the server does not support it.

    Raises:
        Trouble: The service does not answer.
    """
    client = s3_client(checksums=checksums)
    try:
        answer: dict[str, Any] = client.get_bucket_notification_configuration(
            Bucket=location.bucket
        )
    except ClientError as error:
        code = error.response["Error"]["Code"]
        if code in ("AccessDenied", "403", "NotImplemented", "MethodNotAllowed", "501", "405"):
            return None
        raise Trouble(explain(location, "asked where it sends its events", code)) from error
    except BotoCoreError as error:
        raise Trouble(f"{location.url} could not be looked at: {first_line(error)}.") from error
    return {name: value for name, value in answer.items() if name != "ResponseMetadata"}


def _ahead(headers: Mapping[str, str], now: float) -> float | None:
    try:
        return parsedate_to_datetime(headers["date"]).timestamp() - now
    except (KeyError, ValueError, TypeError):
        return None


# Creating a bucket: only for `imgflow migrate --make-buckets`; nothing else needs the permission.


def make_bucket(bucket: str, *, checksums: Checksums = "when_supported") -> bool:
    """Create a bucket unless it exists; return whether it was missing.

    Raises:
        Trouble: The service does not answer, or refuses.
    """
    client = s3_client(checksums=checksums)
    try:
        if _is_there(client, bucket):
            return False
        region = client.meta.region_name
        # us-east-1, the oldest region, must not be named.
        where = {} if region in (None, "us-east-1") else {"LocationConstraint": region}
        options = {"CreateBucketConfiguration": where} if where else {}
        client.create_bucket(Bucket=bucket, **options)
    except (ClientError, BotoCoreError) as error:
        raise Trouble(f"s3://{bucket} cannot be made: {first_line(error)}") from error
    return True


def _is_there(client: Any, bucket: str) -> bool:
    try:
        client.head_bucket(Bucket=bucket)
    except ClientError as error:
        if error_code(error) in MISSING:
            return False
        raise
    return True
