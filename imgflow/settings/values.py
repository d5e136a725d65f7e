"""Types of settings whose values need more checks than a type and a range.

pydantic runs the checks. `imgflow.settings.variables.load_settings` reports an error with the
variable's name and meaning, so no message here may repeat a value that could be a secret. The
variables and their ranges are in `imgflow.settings.variables`.
"""

from __future__ import annotations

import json
import re
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator
from pydantic_settings import NoDecode
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError

from imgflow.fetch.hosts import Entry
from imgflow.images.formats.pillow import MEDIA_TYPES
from imgflow.settings.channels import parse_channels
from imgflow.settings.tokens import Tokens

SHORTEST_KEY = 32
ORIGIN = re.compile(r"https?://[a-z0-9.\[\]:-]+")


def absolute_home(home: Path) -> Path:
    """The absolute path of a home, which may start with `~` or `~user`."""
    try:
        return home.expanduser().absolute()
    except RuntimeError as error:
        raise ValueError(f"{error}; write the whole path") from error


def _whole_path(file: str) -> str:
    # Workers may have another working directory.
    return str(Path(file).expanduser().absolute()) if file else ""


def _postgresql(url: str) -> str:
    if url and not url.startswith(("postgresql://", "postgres://", "postgresql+psycopg2://")):
        raise ValueError("only postgresql:// URLs are understood; SQLite and others are not")
    if url.startswith("postgres:"):
        url = url.replace("postgres:", "postgresql:", 1)
    if url:
        _check_parts(url)
    return url


def _check_parts(url: str) -> None:
    """Raise a `ValueError`, without any part of the URL, unless SQLAlchemy can parse it."""
    try:
        make_url(url)
    except (ArgumentError, ValueError):
        raise ValueError(
            "not a URL of a database; characters like @ : / in the password are written %40 %3A %2F"
        ) from None


def _redis(url: str) -> str:
    if url and not url.startswith(("redis://", "rediss://")):
        raise ValueError("a broker is written redis://:password@host:port/number")
    return url


def _tokens(text: str) -> str:
    if text:
        Tokens.parse(text)
    return text


def _address(host: str) -> str:
    host = host.strip().removeprefix("[").removesuffix("]")
    try:
        return host if host == "localhost" else str(ip_address(host))
    except ValueError:
        raise ValueError("an IP address or `localhost`, without a port") from None


def _long_enough(key: str) -> str:
    if key and len(key) < SHORTEST_KEY:
        raise ValueError(f"at least {SHORTEST_KEY} characters; `openssl rand -hex 32` makes 64")
    return key


def _list(value: Any) -> Any:
    """Split the comma-separated list of a variable."""
    if isinstance(value, str):
        return tuple(part.strip() for part in value.split(",") if part.strip())
    return value


def _channels(value: Any) -> Any:
    return parse_channels(value) if isinstance(value, str) else value


def _origins(value: tuple[str, ...]) -> tuple[str, ...]:
    for origin in value:
        if not ORIGIN.fullmatch(origin):
            raise ValueError(f"{origin} is not https://host or http://host:port")
    return value


def _hosts(value: tuple[str, ...]) -> tuple[str, ...]:
    for host in value:
        Entry.parse(host)
    return value


def _formats(value: tuple[str, ...]) -> tuple[str, ...]:
    value = tuple(name.upper() for name in value)
    unknown = [name for name in value if name not in MEDIA_TYPES]
    if unknown or not value:
        raise ValueError(f"{', '.join(unknown) or 'none'}: known are {', '.join(MEDIA_TYPES)}")
    return value


def _web_url(url: str) -> str:
    parts = urlsplit(url)
    if url and not (parts.scheme in ("http", "https") and parts.netloc):
        raise ValueError("an address that begins with http:// or https:// and has a host")
    return url


def _queue_url(url: str) -> str:
    parts = urlsplit(url)
    if url and not (parts.scheme in ("http", "https") and parts.netloc and parts.path[1:]):
        raise ValueError("a queue is written https://sqs.region.amazonaws.com/account/name")
    return url


def _json(text: Any) -> Any:
    if not isinstance(text, str):
        return text
    try:
        return json.loads(text or "{}")
    except ValueError as error:
        raise ValueError(f"not JSON ({error})") from None


Home = Annotated[Path, AfterValidator(absolute_home)]
FontFile = Annotated[str, AfterValidator(_whole_path)]
DatabaseUrl = Annotated[str, AfterValidator(_postgresql)]
BrokerUrl = Annotated[str, AfterValidator(_redis)]
ApiTokens = Annotated[str, AfterValidator(_tokens)]
ListenAddress = Annotated[str, AfterValidator(_address)]
LinkKey = Annotated[str, AfterValidator(_long_enough)]
WebUrl = Annotated[str, AfterValidator(_web_url)]
QueueUrl = Annotated[str, AfterValidator(_queue_url)]

# Without `NoDecode`, pydantic-settings would parse these variables as JSON, and report invalid JSON
# in an error of its own, without the variable's name.
Names = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_list)]
Origins = Annotated[Names, AfterValidator(_origins)]
FetchHosts = Annotated[Names, AfterValidator(_hosts)]
Formats = Annotated[Names, AfterValidator(_formats)]
Channels = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_channels)]
OutputParameters = Annotated[
    dict[str, dict[str, bool | int | float | str]], NoDecode, BeforeValidator(_json)
]
