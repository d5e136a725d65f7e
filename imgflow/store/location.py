"""Store locations: the two kinds of URL that settings accept, parsed once.

Opening the store at a location is in `config`.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from urllib.parse import unquote, unquote_to_bytes

from imgflow.errors import SettingsError

# Whether uploads carry a CRC32; not every S3-compatible store accepts one.
Checksums = Literal["when_supported", "when_required"]

# Amazon's rule for new buckets, without its special cases.
BUCKET_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{1,61}[a-z0-9]")
URL = re.compile(r"([a-z][a-z0-9+.-]*)://([^/]*)(.*)", re.IGNORECASE | re.DOTALL)


@dataclass(frozen=True)
class Location:
    """A bucket and a prefix, or a local folder.

    Attributes:
        scheme: `s3` or `file`.
        bucket: Name of the bucket; empty for folders.
        prefix: What every object name starts with: empty or ending in `/`, never starting with it.
            For folders, the full path without the leading `/`.
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
        """What this prefix adds to another location's; None if this is not inside the other."""
        if (self.scheme, self.bucket) != (other.scheme, other.bucket):
            return None
        if not self.prefix.startswith(other.prefix):
            return None
        return self.prefix[len(other.prefix) :]


def parse_location(url: str, *, setting: str) -> Location:
    """Parse `s3://bucket/prefix` or `file:///folder`.

    Args:
        url: Value of the setting; it may contain credentials by mistake.
        setting: Name of the environment variable, for the error message.

    Raises:
        SettingsError: The URL is neither; the message says how to fix it.
    """
    # Not `urlsplit`: it drops tabs and newlines, and `?` and `#` are ordinary characters of keys
    # and file names.
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
        ) as error:  # 3.11 and 3.12 raise the latter for a symlink loop
            raise SettingsError(f"{shown}: the folder cannot be found: {error}.") from error
        inside = str(folder)[1:]
        return Location("file", "", f"{inside}/" if inside else "")
    raise SettingsError(
        f"{shown}: write s3://bucket/prefix or file:///folder; "
        f"{scheme or 'a bare path'} is not understood."
    )


def _without_credentials(url: str, host: str) -> str:
    """The URL for an error message; some users put credentials before the bucket."""
    return re.sub(r"//.*@", "//***@", url, flags=re.DOTALL) if set(":@") & set(host) else url
