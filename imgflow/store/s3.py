"""An S3 bucket as a source, and the one place that turns a boto3 client into an `obstore` store.

Listings come from boto3, which gives every key exactly; `obstore` moves the bytes, at a sixth of
the CPU time per request, of the keys that it represents exactly, and boto3 those of the few others.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit

import boto3
import botocore.session
from boto3.exceptions import S3UploadFailedError
from boto3.s3.transfer import TransferConfig
from botocore.config import Config
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    HTTPClientError,
    NoCredentialsError,
    SSLError,
)
from botocore.exceptions import ConnectionError as NotConnected
from botocore.utils import parse_timestamp
from obstore.exceptions import BaseError, NotFoundError
from obstore.store import S3Store

from imgflow.errors import BadKey, SettingsError, SourceChanged, Trouble, Unreadable
from imgflow.store.location import Checksums, Location
from imgflow.store.naming import is_exact
from imgflow.store.objects import (
    CHUNK_BYTES,
    MOST_KEY_BYTES,
    Digest,
    Page,
    SourceObject,
    check_any_key,
)
from imgflow.store.refusals import MISSING, error_code, explain, first_line, refused_object

if TYPE_CHECKING:
    from obstore.store import S3Credential

Answer = TypeVar("Answer")

# What S3 writes in listings; the fraction is dropped, see `SourceObject.last_modified`.
ISO_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z", re.ASCII)

# What XML cannot hold, raw or as a reference.
NOT_XML = re.compile(
    rb"[\x00-\x08\x0b\x0c\x0e-\x1f]|\xef\xbf[\xbe\xbf]"
    rb"|&#(x0*([0-8bcef]|1[0-9a-f]|fff[ef])|0*([0-8]|1[124-9]|2[0-9]|3[01]|6553[45]));",
    re.IGNORECASE,
)

# With boto3's waits of up to 1, 2 and 4 s between them; what lasts longer is retried by the run.
ATTEMPTS = 4

# For one request with its whole body: the largest photograph at 2 MB/s.
REQUEST_SECONDS = 120
# A body that is streamed takes as long as the work on its pieces, for which its worker has a limit.
STREAM_SECONDS = 24 * 3600
# Either ends when nothing at all has come for so long.
SILENT_SECONDS = 30

# How long `obstore` keeps credentials. boto3 renews temporary ones ten minutes before they end.
CREDENTIALS_KEPT = timedelta(minutes=5)

# Amazon's own endpoints, which want the bucket as a part of the host name.
AMAZON = re.compile(r"s3([.-][a-z0-9-]+)*\.amazonaws\.com(\.cn)?")
NO_CREDENTIALS = "no AWS credentials; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"


def s3_client(*, checksums: Checksums = "when_supported") -> Any:
    """Make a boto3 S3 client from the standard `AWS_*` variables, with bounded waits and retries.

    Raises:
        SettingsError: the variables do not make a client.
    """
    config = Config(
        # Else presigned URLs are of version 2, which the newer regions of AWS refuse.
        signature_version="s3v4",
        retries={"total_max_attempts": ATTEMPTS, "mode": "standard"},
        connect_timeout=3,
        read_timeout=SILENT_SECONDS,
        max_pool_connections=32,
        request_checksum_calculation=checksums,
        response_checksum_validation="when_required",
    )
    try:
        # Not `boto3.client`: its session keeps the credentials of the first client for good.
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

    Args:
        client: of boto3.
        bucket: its name.
        prefix: before all keys.
        seconds: for one request, its body included; `REQUEST_SECONDS` when left out.

    Raises:
        Trouble: the client has no credentials.
    """
    if client._request_signer._credentials is None:
        raise Trouble(f"s3://{bucket}/{prefix} cannot be opened: {NO_CREDENTIALS}.")
    endpoint = urlsplit(client.meta.endpoint_url)
    # A certificate of Amazon's covers no bucket whose name has dots.
    has_own_host = bool(AMAZON.fullmatch(endpoint.netloc)) and "." not in bucket
    longest = timedelta(seconds=seconds or REQUEST_SECONDS)
    url = endpoint._replace(netloc=f"{bucket}.{endpoint.netloc}") if has_own_host else endpoint
    return S3Store(
        bucket,
        prefix=prefix or None,
        # Given in any case: `obstore` would take the variables, also where the client has others.
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
        # Also for how long a body that breaks off is gone on with, behind what has come already.
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
            "expires_at": datetime.now(timezone.utc) + CREDENTIALS_KEPT,
        }


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
        # Of the whole bucket: a prefix may be one that `obstore` cannot represent.
        self._store = obstore_bucket(self._client, location.bucket, "")
        self._streams = obstore_bucket(self._client, location.bucket, "", seconds=STREAM_SECONDS)
        self._client.meta.events.register_first(
            "before-parse.s3.ListObjectsV2", _make_readable, unique_id="imgflow"
        )

    @property
    def endpoint(self) -> str:
        """URL of the service."""
        url: str = self._client.meta.endpoint_url
        return url

    def list_page(self, start_after: str | None, limit: int) -> Page:
        """List in the order of the keys' bytes, without folder markers and excluded prefixes.

        A key with the character NUL is left out too: no database keeps one as text.
        """
        begin = self.location.prefix
        arguments = {"Bucket": self.location.bucket, "Prefix": begin, "MaxKeys": limit}
        if start_after:
            arguments["StartAfter"] = begin + start_after
        answer = self._ask("listed", lambda: self._client.list_objects_v2(**arguments))
        if "IsTruncated" not in answer:  # else a web page would be an empty bucket
            raise Trouble(
                f"{self.location.url} could not be listed: {self._client.meta.endpoint_url} does "
                "not answer as S3 does; check AWS_ENDPOINT_URL."
            )
        objects = []
        shown: list[str] = []
        contents = answer.get("Contents", [])
        for entry in contents:
            key = entry["Key"][len(begin) :]
            is_folder_marker = not key or (key.endswith("/") and not entry["Size"])
            if not (is_folder_marker or "\0" in key or key.startswith(self._exclude)):
                upload = _describe(key, entry, entry["Size"])
                objects.append(upload)
                shown += (key, upload.identity)
        last = contents[-1]["Key"][len(begin) :] if contents and answer["IsTruncated"] else None
        return Page(objects, Digest.of("identity", shown), last, len(contents) - len(objects))

    def stat(self, key: str) -> SourceObject | None:
        """Ask for the object's head."""
        try:
            answer = self._ask(
                f"asked for {key!r}",
                lambda: self._client.head_object(**self._address(key)),
                about=key,
            )
        except Unreadable:
            if self._is_absent(key):
                return None
            raise
        return answer and _describe(key, answer, answer["ContentLength"])

    def read(self, announced: SourceObject) -> bytes:
        """Read with one request, and compare what its answer says of itself with the announcement.

        One answer never mixes two uploads, so this equals a conditional request, without the
        `If-Match` that servers disagree on.
        """
        with self._bytes_errors(announced):
            address = self._address(announced.key)
            if not is_exact(address["Key"]):
                answer = self._client.get_object(**address)
                _compare(announced, answer["ETag"])
                body: bytes = answer["Body"].read()
            else:
                result = self._store.get(address["Key"])
                _compare(announced, result.meta["e_tag"] or "")
                body = bytes(result.bytes())
            _check_size(announced, len(body))
            return body

    def stream(self, announced: SourceObject) -> Iterator[bytes]:
        """Read with one request, in pieces."""
        size = 0
        with self._bytes_errors(announced):
            for piece in self._pieces(announced):
                size += len(piece)
                yield piece
            _check_size(announced, size)

    def _pieces(self, announced: SourceObject) -> Iterator[bytes]:
        address = self._address(announced.key)
        if not is_exact(address["Key"]):
            answer = self._client.get_object(**address)
            _compare(announced, answer["ETag"])
            yield from answer["Body"].iter_chunks(CHUNK_BYTES)
            return
        result = self._streams.get(address["Key"])
        _compare(announced, result.meta["e_tag"] or "")
        for piece in result.stream(min_chunk_size=CHUNK_BYTES):
            yield bytes(piece)

    def check_key(self, key: str) -> None:
        """Raise `BadKey` unless a listing would show an object of this name."""
        check_any_key(key, self._exclude)
        if len((self.location.prefix + key).encode()) > MOST_KEY_BYTES:
            raise BadKey(f"With the prefix of {self.location.url} the key is too long for S3.")

    def upload(self, key: str, file: Path) -> None:
        """Upload a file, in parts and at most four at a time when it is large."""
        self.check_key(key)
        if key.endswith("/") and not file.stat().st_size:
            raise BadKey(f"{key!r} without bytes is a folder marker, which is never listed.")
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

    def _is_absent(self, key: str) -> bool:
        """Whether a listing, unlike an answer about the key alone, tells that it is not there.

        S3 says 403 rather than 404 to those who may list some prefixes only.
        """
        name = self.location.prefix + key
        try:
            answer = self._client.list_objects_v2(
                Bucket=self.location.bucket, Prefix=name, MaxKeys=1
            )
        except (ClientError, BotoCoreError):
            return False
        # The key itself comes before all that it begins.
        return "IsTruncated" in answer and name not in {
            entry["Key"] for entry in answer.get("Contents", [])
        }

    def _address(self, key: str) -> dict[str, str]:
        return {"Bucket": self.location.bucket, "Key": self.location.prefix + key}

    def _ask(self, verb: str, request: Callable[[], Answer], *, about: str = "") -> Answer:
        """Make a request; one about an object may answer None, and have it refused by itself."""
        try:
            return request()
        except ClientError as error:
            code = error_code(error)
            if about and code in MISSING:
                return None  # type: ignore[return-value]  # only where the caller asked for it
            if about and (refusal := refused_object(self.location, about, error)):
                raise refusal from error
            raise Trouble(explain(self.location, verb, code)) from error
        except (BotoCoreError, S3UploadFailedError) as error:
            # An upload in parts wraps what it was told.
            cause = error.__context__ if isinstance(error, S3UploadFailedError) else error
            if isinstance(cause, ClientError):
                code = cause.response["Error"]["Code"]
                raise Trouble(explain(self.location, verb, code)) from error
            raise Trouble(self._no_answer(verb, cause or error)) from error

    def _no_answer(self, verb: str, error: BaseException) -> str:
        if isinstance(error, NoCredentialsError):
            return f"{self.location.url} could not be {verb}: {NO_CREDENTIALS}."
        if isinstance(error, SSLError):
            return (
                f"{self.location.url} could not be {verb}: TLS with its endpoint fails "
                f"({_without_url(error)}); check AWS_ENDPOINT_URL, and have AWS_CA_BUNDLE and "
                "SSL_CERT_FILE name the file of its certificate's authority. It is tried again."
            )
        if isinstance(error, (NotConnected, HTTPClientError)):
            endpoint = urlsplit(self._client.meta.endpoint_url)
            return (
                f"{self.location.url} could not be {verb}: {endpoint.scheme}://"
                f"{endpoint.netloc.rpartition('@')[2]} does not answer ({type(error).__name__}); "
                "check AWS_ENDPOINT_URL. It is tried again."
            )
        mend = "; check AWS_ENDPOINT_URL" if isinstance(error, BaseError) else ""
        reason = f"{first_line(error)}{mend}. It is tried again."
        return f"{self.location.url} could not be {verb}: {reason}"

    @contextmanager
    def _bytes_errors(self, announced: SourceObject) -> Iterator[None]:
        """Turn what either library says into `SourceChanged`, `Withheld` or `Trouble`."""
        verb = f"asked for {announced.key!r}"
        try:
            yield
        except (ClientError, BaseError, FileNotFoundError) as error:
            code = error_code(error)
            is_missing = code in MISSING or isinstance(error, (NotFoundError, FileNotFoundError))
            if is_missing and code != "NoSuchBucket":
                raise SourceChanged(f"{announced.key!r} was deleted since it was listed") from error
            if refusal := refused_object(self.location, announced.key, error):
                if isinstance(refusal, Unreadable) and self._is_absent(announced.key):
                    raise SourceChanged(
                        f"{announced.key!r} was deleted since it was listed"
                    ) from error
                raise refusal from error
            if code:
                raise Trouble(explain(self.location, verb, code)) from error
            raise Trouble(self._no_answer(verb, error)) from error
        except (BotoCoreError, OSError) as error:
            raise Trouble(self._no_answer(verb, error)) from error


def _without_url(error: SSLError) -> str:
    """What is wrong with TLS, without the request, whose URL may hold a signature."""
    found = re.search(r"\[SSL: \w+\]|certificate verify failed[^(]*", str(error))
    return found.group().strip() if found else "no certificate that is trusted here"


def _parse_time(text: Any) -> datetime:
    """Read a time; as listings write it, in a hundredth of what botocore's own way takes.

    That one tries every format there is, which is half of the work of a listing.
    """
    if isinstance(text, str) and ISO_TIME.fullmatch(text):
        return datetime.fromisoformat(f"{text[:19]}+00:00")
    parsed: datetime = parse_timestamp(text)
    return parsed


def _make_readable(response_dict: dict[str, Any], **_: Any) -> None:
    """Drop characters from a listing that are no XML, which would make it fail again and again.

    Keys come encoded, but Ceph repeats the first and last key of the page beside them as they are.
    Without this, one page that ends at a key with a control character is the end of all listings.
    """
    body = response_dict["body"]
    if b"<EncodingType>url</EncodingType>" in body and NOT_XML.search(body):
        response_dict["body"] = NOT_XML.sub(b"", body)
        response_dict["status_code"] = 200  # boto3 looked before, and took it for a failure


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


def _check_size(announced: SourceObject, size: int) -> None:
    if size != announced.size:
        raise Trouble(
            f"{announced.key!r} came short: {size} of {announced.size} bytes; it is read again"
        )
