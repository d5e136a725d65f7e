"""Where objects lie: the two kinds of URL that settings take, parsed once."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from urllib.parse import unquote, urlsplit

from imgflow.errors import SettingsError

# Amazon's rule for new buckets, without its special cases.
BUCKET_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{1,61}[a-z0-9]")


@dataclass(frozen=True)
class Location:
    """A bucket and a prefix, or a local folder.

    Attributes:
        scheme: `s3` or `file`.
        bucket: the bucket; empty for folders.
        prefix: what every object name begins with: empty or ending in `/`, never beginning with it.
            For folders the whole path, without the leading `/`.
    """

    scheme: Literal["s3", "file"]
    bucket: str
    prefix: str

    @property
    def url(self) -> str:
        """The canonical URL; one location has exactly one."""
        if self.scheme == "s3":
            return f"s3://{self.bucket}/{self.prefix}"
        return f"{self.folder.as_uri()}/"

    @property
    def folder(self) -> Path:
        """The local folder; only for the scheme `file`."""
        return Path("/" + self.prefix)

    def below(self, other: Location) -> str | None:
        """The part of this prefix that lies below another location, or None if it is not inside it."""
        if (self.scheme, self.bucket) != (other.scheme, other.bucket):
            return None
        if not self.prefix.startswith(other.prefix):
            return None
        return self.prefix[len(other.prefix) :]


def parse_location(url: str, *, setting: str) -> Location:
    """Parse `s3://bucket/prefix` or `file:///folder`.

    Args:
        url: what was set.
        setting: the name of the environment variable, for the error.

    Raises:
        SettingsError: the URL is neither, with the mend.
    """
    parts = urlsplit(url)
    if parts.scheme == "s3":
        if not BUCKET_NAME.fullmatch(parts.netloc):
            raise SettingsError(
                f"{setting}={url!r}: {parts.netloc!r} is not a bucket name; write s3://bucket/prefix."
            )
        # Not `parts.path`: `?` and `#` are ordinary characters of object keys.
        prefix = url[len("s3://") + len(parts.netloc) :].strip("/")
        return Location("s3", parts.netloc, f"{prefix}/" if prefix else "")
    if parts.scheme == "file":
        if parts.netloc not in ("", "localhost"):
            raise SettingsError(
                f"{setting}={url!r}: a folder is written with three slashes, file:///folder."
            )
        folder = Path(unquote(parts.path)).resolve()
        return Location("file", "", f"{str(folder)[1:]}/")
    raise SettingsError(
        f"{setting}={url!r}: write s3://bucket/prefix or file:///folder; "
        f"{parts.scheme or 'a bare path'} is not understood."
    )
