"""The server's log of requests, without what lets others in.

Whoever reads a log must not be able to use the links in it.
"""

from __future__ import annotations

import logging
import re

SERVER_LOG = "uvicorn.access"

# Ours, those of presigned URLs that somebody puts into a query, and a token in the wrong place.
# A sign-in key is used up by the request that is logged; one that failed may not be.
SECRET = re.compile(
    r"(?i)(\b(?:signature|token|key|x-amz-[a-z-]+|awsaccesskeyid)(?:=|%3d))[^&\s\"]+"
)


class WithoutSecrets(logging.Filter):
    """Takes the values of secret parameters out of paths."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Let a record through, changed where it shows a secret."""
        if isinstance(record.args, tuple):
            record.args = tuple(
                hidden(value) if isinstance(value, str) else value for value in record.args
            )
        return True


def hidden(text: str) -> str:
    """A text without the values of secret parameters."""
    return SECRET.sub(r"\1***", text)


def hide_secrets() -> None:
    """Let the server's log go through the filter; doing it again is no harm."""
    log = logging.getLogger(SERVER_LOG)
    if not any(isinstance(known, WithoutSecrets) for known in log.filters):
        log.addFilter(WithoutSecrets())
