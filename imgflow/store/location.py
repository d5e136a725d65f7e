"""Where objects lie: the two kinds of URL that settings take, parsed once."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from urllib.parse import unquote, unquote_to_bytes

from imgflow.errors import SettingsError

# Whether uploads carry a CRC32; not every S3-compatible store takes one.
Checksums = Literal["when_supported", "when_required"]

# Amazon's rule for new buckets, without its special cases.
BUCKET_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{1,61}[a-z0-9]")
URL = re.compile(r"([a-z][a-z0-9+.-]*)://([^/]*)(.*)", re.IGNORECASE | re.DOTALL)


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
        return f"{self.folder.as_uri().rstrip('/')}/" if self.prefix else "file:///"

    @property
    def folder(self) -> Path:
        """The local folder; only for the scheme `file`."""
        return Path("/" + self.prefix)

    def below(self, other: Location) -> str | None:
        """What this prefix adds to that of another location, or None if it is not inside it."""
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
        SettingsError: the URL is neither, with the fix.
    """
    # Not `urlsplit`: `?` and `#` are ordinary characters of keys and file names, and it drops
    # tabs and newlines.
    found = URL.fullmatch(url.strip())
    scheme, host, path = found.groups() if found else ("", "", "")
    shown = f"{setting}={_without_credentials(url, host)!r}"
    if "\0" in unquote(path):
        raise SettingsError(f"{shown}: a name cannot hold the character NUL.")
    if scheme.lower() == "s3":
        if not BUCKET_NAME.fullmatch(host):
            raise SettingsError(
                f"{shown}: what follows s3:// is not a bucket name; write s3://bucket/prefix, and "
                "credentials in AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY."
            )
        prefix = path.strip("/")
        return Location("s3", host, f"{prefix}/" if prefix else "")
    if scheme.lower() == "file":
        if host not in ("", "localhost"):
            raise SettingsError(f"{shown}: a folder is written with three slashes, file:///folder.")
        try:
            folder = Path(os.fsdecode(unquote_to_bytes(os.fsencode(path))) or "/").resolve()
        except (
            OSError,
            RuntimeError,
        ) as error:  # 3.11 and 3.12 raise the latter for a loop of links
            raise SettingsError(f"{shown}: the folder cannot be found: {error}.") from error
        inside = str(folder)[1:]
        return Location("file", "", f"{inside}/" if inside else "")
    raise SettingsError(
        f"{shown}: write s3://bucket/prefix or file:///folder; "
        f"{scheme or 'a bare path'} is not understood."
    )


def _without_credentials(url: str, host: str) -> str:
    """The URL for a message; some write keys before the bucket."""
    return re.sub(r"//.*@", "//***@", url, flags=re.DOTALL) if set(":@") & set(host) else url
