"""An S3 bucket as a source, and the one place that turns a boto3 client into an `obstore` store.

Listings come from boto3, which gives every key exactly; `obstore` moves the bytes, at a sixth of
the CPU time per request, of the keys that it represents exactly, and boto3 those of the few others.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal, TypeVar

import boto3
from boto3.s3.transfer import TransferConfig
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError
from obstore.auth.boto3 import Boto3CredentialProvider
from obstore.exceptions import BaseError, NotFoundError
from obstore.store import S3Store

from imgflow.errors import SourceChanged, Trouble
from imgflow.store.location import Location
from imgflow.store.objects import CHUNK_BYTES, Page, SourceObject

Answer = TypeVar("Answer")
Checksums = Literal["when_supported", "when_required"]

# Keys that `obstore` lists, reads or writes under another name than they have, or not at all.
INEXACT = re.compile(r"(^|/)\.{0,2}(/|$)|[\x00-\x1f\x7f]")
MISSING = {"404", "NoSuchKey", "NotFound", "NoSuchVersion"}
RETRIES = 5


def s3_client(*, checksums: Checksums = "when_supported") -> Any:
    """Make a boto3 S3 client from the standard `AWS_*` variables, with bounded waits and retries."""
    return boto3.client(
        "s3",
        config=Config(
            retries={"max_attempts": RETRIES, "mode": "standard"},
            connect_timeout=5,
            read_timeout=30,
            max_pool_connections=32,
            request_checksum_calculation=checksums,
            response_checksum_validation="when_required",
        ),
    )


def obstore_bucket(client: Any, bucket: str, prefix: str) -> S3Store:
    """Make an `obstore` store with the endpoint, region and credentials of a boto3 client."""
    endpoint = client.meta.endpoint_url
    on_aws = ".amazonaws.com" in endpoint
    session = boto3.Session(region_name=client.meta.region_name)
    return S3Store(
        bucket,
        prefix=prefix or None,
        region=client.meta.region_name or "us-east-1",
        credential_provider=Boto3CredentialProvider(session),
        virtual_hosted_style_request=on_aws,
        # Region-less boto3 clients talk to the global endpoint, which `obstore` finds by itself.
        **({} if on_aws else {"endpoint": endpoint}),
        client_options={
            "allow_http": endpoint.startswith("http://"),
            "connect_timeout": timedelta(seconds=5),
            "timeout": timedelta(seconds=60),
        },
        retry_config={"max_retries": RETRIES, "retry_timeout": timedelta(seconds=60)},
    )


class S3Source:
    """The objects of a bucket below a prefix."""

    def __init__(
        self,
        location: Location,
        exclude: tuple[str, ...] = (),
        *,
        client: Any = None,
        checksums: Checksums = "when_supported",
    ) -> None:
        """Take the bucket of `location`; nothing is asked of it yet.

        Args:
            location: of scheme `s3`.
            exclude: prefixes of keys that are never listed, such as that of the outputs.
            client: a boto3 S3 client; made from the environment when left out.
            checksums: whether uploads carry CRC32.
        """
        self.location = location
        self._exclude = exclude
        self._client = client or s3_client(checksums=checksums)
        self._store = obstore_bucket(self._client, location.bucket, location.prefix)

    def list_page(self, start_after: str | None, limit: int) -> Page:
        """List in the order of the keys' bytes; folder markers and excluded prefixes are left out."""
        begin = self.location.prefix
        arguments = {"Bucket": self.location.bucket, "Prefix": begin, "MaxKeys": limit}
        if start_after:
            arguments["StartAfter"] = begin + start_after
        answer = self._ask("listed", lambda: self._client.list_objects_v2(**arguments))
        objects = []
        contents = answer.get("Contents", [])
        for entry in contents:
            key = entry["Key"][len(begin) :]
            is_folder_marker = not key or (key.endswith("/") and not entry["Size"])
            if not is_folder_marker and not key.startswith(self._exclude):
                objects.append(_describe(key, entry, entry["Size"]))
        last = contents[-1]["Key"][len(begin) :] if contents and answer["IsTruncated"] else None
        return Page(objects, last, len(contents) - len(objects))

    def stat(self, key: str) -> SourceObject | None:
        """Ask for the object's head."""
        answer = self._ask(
            "asked", lambda: self._client.head_object(**self._address(key)), missing=True
        )
        return answer and _describe(key, answer, answer["ContentLength"])

    def read(self, announced: SourceObject) -> bytes:
        """Read with one request, and compare what the answer says of itself with what was announced.

        One answer never mixes two uploads, so this equals a conditional request, without the
        `If-Match` that servers disagree on.
        """
        with self._bytes_errors(announced):
            if INEXACT.search(announced.key):
                answer = self._client.get_object(**self._address(announced.key))
                _compare(announced, answer["ETag"])
                return _whole(announced, answer["Body"].read())
            result = self._store.get(announced.key)
            _compare(announced, result.meta["e_tag"] or "")
            return _whole(announced, bytes(result.bytes()))

    def stream(self, announced: SourceObject) -> Iterator[bytes]:
        """Read with one request, in pieces."""
        with self._bytes_errors(announced):
            if INEXACT.search(announced.key):
                answer = self._client.get_object(**self._address(announced.key))
                _compare(announced, answer["ETag"])
                yield from answer["Body"].iter_chunks(CHUNK_BYTES)
                return
            result = self._store.get(announced.key)
            _compare(announced, result.meta["e_tag"] or "")
            for piece in result.stream(min_chunk_size=CHUNK_BYTES):
                yield bytes(piece)

    def upload(self, key: str, file: Path) -> None:
        """Upload a file, in parts and at most four at a time when it is large."""
        self._ask(
            "written",
            lambda: self._client.upload_file(
                str(file), **self._address(key), Config=TransferConfig(max_concurrency=4)
            ),
        )

    def delete(self, key: str) -> None:
        """Delete the object."""
        self._ask("deleted from", lambda: self._client.delete_object(**self._address(key)))

    def check(self) -> None:
        """Raise `Trouble` with the mend unless the bucket can be listed."""
        self.list_page(None, 1)

    def presign(self, key: str, seconds: int) -> str:
        """Make a URL under which anyone can read the object for a while."""
        url: str = self._client.generate_presigned_url(
            "get_object", Params=self._address(key), ExpiresIn=seconds
        )
        return url

    def _address(self, key: str) -> dict[str, str]:
        return {"Bucket": self.location.bucket, "Key": self.location.prefix + key}

    def _ask(self, verb: str, request: Callable[[], Answer], *, missing: bool = False) -> Answer:
        try:
            return request()
        except ClientError as error:
            code = error.response["Error"]["Code"]
            if missing and code in MISSING:
                return None  # type: ignore[return-value]  # only where the caller asked for it
            raise Trouble(explain(self.location, verb, code)) from error
        except BotoCoreError as error:
            raise Trouble(
                f"{self.location.url} could not be {verb}: {error}. It is tried again."
            ) from error

    @contextmanager
    def _bytes_errors(self, announced: SourceObject) -> Iterator[None]:
        """Turn what either library says into `SourceChanged` or `Trouble`."""
        try:
            yield
        except (NotFoundError, FileNotFoundError) as error:
            raise SourceChanged(f"{announced.key!r} was deleted since it was listed") from error
        except ClientError as error:
            code = error.response["Error"]["Code"]
            if code in MISSING:
                raise SourceChanged(f"{announced.key!r} was deleted since it was listed") from error
            raise Trouble(f"{announced.key!r} could not be read: {code}") from error
        except (BaseError, BotoCoreError, OSError) as error:
            # The first line only: what follows may hold the request with its signature.
            raise Trouble(f"{announced.key!r} could not be read: {first_line(error)}") from error


def explain(location: Location, verb: str, code: str) -> str:
    """Say in one sentence what a store refused, and the mend."""
    mend = {
        "NoSuchBucket": "create it, or correct the URL",
        "404": "create it, or correct the URL",
        "AccessDenied": "allow s3:ListBucket on it and s3:GetObject below it",
        "403": "allow s3:ListBucket on it and s3:GetObject below it",
        "InvalidAccessKeyId": "check AWS_ACCESS_KEY_ID",
        "SignatureDoesNotMatch": "check AWS_SECRET_ACCESS_KEY",
        "PermanentRedirect": "the bucket is in another region: set AWS_DEFAULT_REGION",
        "AuthorizationHeaderMalformed": "the bucket is in another region: set AWS_DEFAULT_REGION",
        "RequestTimeTooSkewed": "set this machine's clock",
    }.get(code, "it is tried again")
    return f"{location.url} could not be {verb}: {code}; {mend}."


def first_line(error: BaseException) -> str:
    """The first line of an error's text, at most 300 characters."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]


def _describe(key: str, entry: dict[str, Any], size: int) -> SourceObject:
    return SourceObject(
        key=key,
        etag=entry["ETag"].strip('"'),
        # A HEAD tells the version, a listing does not, and both must give the same identity.
        version_id=None,
        size=size,
        last_modified=entry["LastModified"].replace(microsecond=0),
    )


def _compare(announced: SourceObject, etag: str) -> None:
    if etag.strip('"') != announced.etag:
        raise SourceChanged(f"{announced.key!r} was overwritten since it was listed")


def _whole(announced: SourceObject, body: bytes) -> bytes:
    if len(body) != announced.size:
        raise Trouble(
            f"{announced.key!r} came short: {len(body)} of {announced.size} bytes; it is read again"
        )
    return body
