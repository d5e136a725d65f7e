"""An S3 bucket as a source.

boto3 lists, since it returns every key exactly. `obstore` reads and writes objects, at a sixth of
the CPU time per request, if it represents their keys exactly; boto3 handles the few others.
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

# Characters that XML cannot contain, raw or as a reference.
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
        """Take the bucket of `location`; nothing is requested yet.

        Args:
            location: Location with scheme `s3`.
            exclude: Key prefixes that are never listed, such as that of the outputs.
            client: A boto3 S3 client; made from the environment by default.
            checksums: Whether uploads carry a CRC32.
        """
        self.location = location
        self._exclude = exclude
        self._client = client or s3_client(checksums=checksums)
        # For the bucket without the prefix, which `obstore` may be unable to represent.
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
        """List in byte order of the keys, without folder markers and excluded prefixes.

        Keys that contain NUL are left out too: no database stores NUL in text.
        """
        begin = self.location.prefix
        arguments = {"Bucket": self.location.bucket, "Prefix": begin, "MaxKeys": limit}
        if start_after:
            arguments["StartAfter"] = begin + start_after
        answer = self._ask("listed", lambda: self._client.list_objects_v2(**arguments))
        if "IsTruncated" not in answer:  # otherwise a web page would look like an empty bucket
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
        """Describe the object with a HEAD request."""
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
        """Read with one request, and compare its answer's headers with the announcement.

        One answer never mixes two uploads, so this is as safe as a conditional request, without the
        `If-Match` that servers treat differently.
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
        """Read with one request, in chunks."""
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
        """Upload a file; a large one in parts, at most four at a time."""
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
        """Do nothing: S3 shows no upload before it is complete."""
        del older_than_seconds
        return 0

    def check(self) -> None:
        """Raise `Trouble` with the fix unless the bucket can be listed."""
        self.list_page(None, 1)

    def presign(self, key: str, seconds: int) -> str:
        """Make a URL under which anyone can read the object for `seconds`."""
        url: str = self._client.generate_presigned_url(
            "get_object", Params=self._address(key), ExpiresIn=seconds
        )
        return url

    def _is_absent(self, key: str) -> bool:
        """Whether a listing, unlike an answer about the key alone, shows that it does not exist.

        S3 answers 403 instead of 404 to users who may only list some prefixes.
        """
        name = self.location.prefix + key
        try:
            answer = self._client.list_objects_v2(
                Bucket=self.location.bucket, Prefix=name, MaxKeys=1
            )
        except (ClientError, BotoCoreError):
            return False
        # The key itself sorts before all longer keys that start with it.
        return "IsTruncated" in answer and name not in {
            entry["Key"] for entry in answer.get("Contents", [])
        }

    def _address(self, key: str) -> dict[str, str]:
        return {"Bucket": self.location.bucket, "Key": self.location.prefix + key}

    def _ask(self, verb: str, request: Callable[[], Answer], *, about: str = "") -> Answer:
        """Make a request; if it is `about` an object, answer None when that does not exist."""
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
            # Multipart uploads wrap the original error.
            cause = error.__context__ if isinstance(error, S3UploadFailedError) else error
            if isinstance(cause, ClientError):
                code = cause.response["Error"]["Code"]
                raise Trouble(explain(self.location, verb, code)) from error
            raise Trouble(no_answer(self.location, self.endpoint, verb, cause or error)) from error

    @contextmanager
    def _bytes_errors(self, announced: SourceObject) -> Iterator[None]:
        """Turn errors of either library into `SourceChanged`, `Withheld` or `Trouble`."""
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
    """Remove characters from a listing that are invalid in XML and would fail every retry.

    Keys are encoded, but Ceph repeats the first and last key of the page unencoded. Without this,
    a page that ends at a key with a control character stops all listings.
    """
    body = response_dict["body"]
    if b"<EncodingType>url</EncodingType>" in body and NOT_XML.search(body):
        response_dict["body"] = NOT_XML.sub(b"", body)
        response_dict["status_code"] = 200  # boto3 has checked the body before, and seen an error


def _describe(key: str, entry: dict[str, Any], size: int) -> SourceObject:
    return SourceObject(
        key=key,
        etag=entry["ETag"].strip('"'),
        # A HEAD has the version, a listing does not, and both must give the same identity.
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
