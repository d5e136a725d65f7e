"""Clients for S3: the only place that makes boto3 clients, and `obstore` stores from them.

The client for SQS is in `sqs`.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import boto3
import botocore.session
from botocore.config import Config
from botocore.exceptions import BotoCoreError
from botocore.utils import parse_timestamp
from obstore.store import S3Store

from imgflow.errors import SettingsError, Trouble
from imgflow.store.location import Checksums
from imgflow.store.s3.amazon_hosts import s3_host
from imgflow.store.s3.store_errors import NO_CREDENTIALS, first_line

if TYPE_CHECKING:
    from obstore.store import S3Credential

# Times as S3 writes them in listings. The fraction is dropped, see `SourceObject.last_modified`.
ISO_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z", re.ASCII)

# With boto3's waits of up to 1, 2 and 4 s between attempts; the run retries longer outages.
ATTEMPTS = 4

# For one request including its body: the largest photograph at 2 MB/s.
REQUEST_SECONDS = 120
# Streaming a body takes as long as the work on its chunks, which the worker limits.
STREAM_SECONDS = 24 * 3600
# Either kind of request ends after this time without a single byte.
SILENT_SECONDS = 30

# How long `obstore` keeps credentials. boto3 renews temporary ones ten minutes before they expire.
CREDENTIALS_KEPT = timedelta(minutes=5)


def s3_client(*, checksums: Checksums = "when_supported") -> Any:
    """Make a boto3 S3 client from the standard `AWS_*` variables, with bounded waits and retries.

    Raises:
        SettingsError: The variables do not make a valid client.
    """
    config = Config(
        # Otherwise presigned URLs use version 2, which AWS's newer regions refuse.
        signature_version="s3v4",
        retries={"total_max_attempts": ATTEMPTS, "mode": "standard"},
        connect_timeout=3,
        read_timeout=SILENT_SECONDS,
        max_pool_connections=32,
        request_checksum_calculation=checksums,
        response_checksum_validation="when_required",
    )
    try:
        # Not `boto3.client`: its session keeps the credentials of the first client forever.
        session = botocore.session.get_session()
        parsers = session.get_component("response_parser_factory")
        parsers.set_parser_defaults(timestamp_parser=_parse_time)
        return boto3.Session(botocore_session=session).client("s3", config=config)
    except (BotoCoreError, ValueError) as error:
        raise SettingsError(
            f"The AWS_* variables do not describe an S3 service: {first_line(error)}; "
            "AWS_ENDPOINT_URL is written http://host:port."
        ) from error


def obstore_bucket(
    client: Any, bucket: str, prefix: str, *, seconds: float | None = None
) -> S3Store:
    """Make an `obstore` store with the endpoint, region and credentials of a boto3 client.

    `seconds` limits one request including its body; the default is `REQUEST_SECONDS`.

    Raises:
        Trouble: The client has no credentials.
    """
    if client._request_signer._credentials is None:
        raise Trouble(f"s3://{bucket}/{prefix} cannot be opened: {NO_CREDENTIALS}.")
    endpoint = urlsplit(client.meta.endpoint_url)
    # Amazon wants the bucket in the host name, but its certificates do not cover names with dots.
    amazon = s3_host(endpoint.netloc)
    has_own_host = amazon is not None and amazon.bucket is None and "." not in bucket
    longest = timedelta(seconds=seconds or REQUEST_SECONDS)
    url = endpoint._replace(netloc=f"{bucket}.{endpoint.netloc}") if has_own_host else endpoint
    return S3Store(
        bucket,
        prefix=prefix or None,
        # Always set: otherwise `obstore` uses the variables, even if the client does not.
        endpoint=url.geturl(),
        region=client.meta.region_name or "us-east-1",
        credential_provider=_Credentials(client),
        virtual_hosted_style_request=has_own_host,
        client_options={
            "allow_http": endpoint.scheme == "http",
            "connect_timeout": timedelta(seconds=3),
            "read_timeout": timedelta(seconds=SILENT_SECONDS),
            "timeout": longest,
        },
        # Also limits how long a broken download is resumed after the bytes that have arrived.
        retry_config={"max_retries": ATTEMPTS, "retry_timeout": longest},
    )


class _Credentials:
    """What a boto3 client signs with, for `obstore`; its own class for this needs Python 3.11."""

    def __init__(self, client: Any) -> None:
        self._client = client

    def __call__(self) -> S3Credential:
        found = self._client._request_signer._credentials.get_frozen_credentials()
        return {
            "access_key_id": found.access_key,
            "secret_access_key": found.secret_key,
            "token": found.token,
            "expires_at": datetime.now(UTC) + CREDENTIALS_KEPT,
        }


def _parse_time(text: Any) -> datetime:
    """Parse a time; for the format of listings, in 1% of the time that botocore takes.

    botocore tries every format there is, which is half of the work of a listing.
    """
    if isinstance(text, str) and ISO_TIME.fullmatch(text):
        return datetime.fromisoformat(f"{text[:19]}+00:00")
    parsed: datetime = parse_timestamp(text)
    return parsed
