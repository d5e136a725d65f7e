"""An S3 bucket as a source.

Listings come from boto3, which gives every key exactly; `obstore` moves the bytes, at a sixth of
the CPU time per request, of the keys that it represents exactly, and boto3 those of the few others.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from boto3.exceptions import S3UploadFailedError
from boto3.s3.transfer import TransferConfig
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
)
from obstore.exceptions import BaseError, NotFoundError

from imgflow.errors import BadKey, SourceChanged, Trouble, Unreadable
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
from imgflow.store.s3.clients import STREAM_SECONDS, obstore_bucket, s3_client
from imgflow.store.s3.store_errors import MISSING, error_code, explain, no_answer, refused_object

Answer = TypeVar("Answer")

# What XML cannot hold, raw or as a reference.
NOT_XML = re.compile(
    rb"[\x00-\x08\x0b\x0c\x0e-\x1f]|\xef\xbf[\xbe\xbf]"
    rb"|&#(x0*([0-8bcef]|1[0-9a-f]|fff[ef])|0*([0-8]|1[124-9]|2[0-9]|3[01]|6553[45]));",
    re.IGNORECASE,
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

    def remove_abandoned(self, older_than_seconds: float) -> int:
        """Nothing: S3 shows no upload before it is complete."""
        del older_than_seconds
        return 0

    def check(self) -> None:
        """Raise `Trouble` with the fix unless the bucket can be listed."""
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
            raise Trouble(no_answer(self.location, self.endpoint, verb, cause or error)) from error

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
            raise Trouble(no_answer(self.location, self.endpoint, verb, error)) from error
        except (BotoCoreError, OSError) as error:
            raise Trouble(no_answer(self.location, self.endpoint, verb, error)) from error


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
