"""What S3 refuses, in words with the fix: of a whole bucket, and of one object in it.

That one object cannot be read says nothing about the others, so it has a name of its own: withheld,
when a retry would be told the same until someone acts on the object, or unreadable, when a policy
may be fixed at any time.
"""

from __future__ import annotations

import re
import shlex
from urllib.parse import urlsplit

from botocore.exceptions import ClientError, HTTPClientError, NoCredentialsError, SSLError
from botocore.exceptions import ConnectionError as NotConnected
from obstore.exceptions import BaseError

from imgflow.errors import ImgflowError, Unreadable, Withheld
from imgflow.store.location import Location

MISSING = {"404", "NoSuchKey", "NotFound", "NoSuchVersion"}

# 400 is the answer to HEAD, which has no body, where GET would say `InvalidRequest`.
FORBIDDEN = {"AccessDenied", "AllAccessDisabled", "403", "400"}

NO_CREDENTIALS = "no AWS credentials; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"

# Of the verbs in errors, what the request takes.
PERMISSIONS = {
    "listed": "s3:ListBucket on the bucket",
    "copied": "s3:GetObject and s3:PutObject below it",
    "written": "s3:PutObject below it",
    "deleted": "s3:DeleteObject below it",
}

# How servers say that they do not understand the CRC32 of uploads.
CHECKSUM_REFUSALS = (
    *("XAmzContentSHA256Mismatch", "XAmzContentChecksumMismatch", "NotImplemented"),
    *("InvalidChecksum", "BadDigest"),
)


def refused_object(location: Location, key: str, error: BaseException) -> ImgflowError | None:
    """What it means that one object was refused; None when that is not about the object.

    Args:
        location: of the source.
        key: of the object.
        error: of boto3 or `obstore`.
    """
    code = error_code(error)
    if code == "InvalidObjectState":
        return Withheld("archived", _archived(location, key, error))
    if code == "InvalidRequest" and "Server Side Encryption" in str(error):
        return Withheld(
            "encrypted",
            "it is encrypted with a key of its uploader (SSE-C), which imgflow does not have; "
            "upload it without one, or with SSE-S3 or SSE-KMS",
        )
    if code in FORBIDDEN or code.startswith("KMS."):
        return Unreadable(
            f"{key!r} may not be read: {location.url} refuses it to these credentials ({code}); "
            "allow s3:GetObject on it, kms:Decrypt where a key of KMS encrypts it, and "
            "s3:ListBucket on the bucket. It is tried again."
        )
    return None


def _archived(location: Location, key: str, error: BaseException) -> str:
    tier = _detail(error, "AccessTier")
    storage = " ".join(filter(None, [_detail(error, "StorageClass"), tier]))
    # Intelligent tiering moves the object back for good; else a copy stays for some days.
    request = "{}" if tier else "Days=7"
    return (
        f"it is archived{f' ({storage})' if storage else ''} and cannot be read before it is "
        f"restored: `aws s3api restore-object --bucket {location.bucket} --key "
        f"{shlex.quote(location.prefix + key)} --restore-request {shlex.quote(request)}`, and when "
        f"that is done `imgflow retry {shlex.quote(key)}`"
    )


def _detail(error: BaseException, name: str) -> str:
    """What else than code and message a refusal says."""
    if isinstance(error, ClientError):
        return str(error.response["Error"].get(name, ""))
    found = re.search(rf"<{name}>(\w+)</{name}>", str(error))
    return found.group(1) if found else ""


def error_code(error: BaseException) -> str:
    """The code that S3 gave an error, or an empty text when it was not S3 that answered."""
    if isinstance(error, ClientError):
        code: str = error.response["Error"]["Code"]
        return code
    text = str(error)
    if "redirect without LOCATION" in text:
        return "PermanentRedirect"
    if "403 Forbidden" in text and "<Code>" not in text:  # the answer to a HEAD has no body
        return "403"
    found = re.search(r"<Code>([\w.]+)</Code>", text)
    return found.group(1) if found else ""


def explain(location: Location, verb: str, code: str) -> str:
    """Say in one sentence what a store refused, and the fix."""
    denied = (
        f"allow {PERMISSIONS.get(verb.partition(' ')[0], 's3:GetObject below it')}; "
        "`imgflow iam` prints the whole policy"
    )
    advice = {
        "NoSuchBucket": "create it, or correct the URL",
        "404": "create it, or correct the URL",
        "AccessDenied": denied,
        "AllAccessDisabled": denied,
        "403": denied,
        "InvalidAccessKeyId": "check AWS_ACCESS_KEY_ID",
        "SignatureDoesNotMatch": "check AWS_SECRET_ACCESS_KEY",
        "ExpiredToken": "renew AWS_SESSION_TOKEN and its keys",
        "InvalidToken": "renew AWS_SESSION_TOKEN and its keys",
        "PermanentRedirect": "the bucket is in another region: set AWS_DEFAULT_REGION",
        "AuthorizationHeaderMalformed": "the bucket is in another region: set AWS_DEFAULT_REGION",
        "RequestTimeTooSkewed": "this machine's clock is wrong: let it follow a time server",
        **dict.fromkeys(CHECKSUM_REFUSALS, "set IMGFLOW_S3_CHECKSUMS=when_required"),
    }.get(code, "it is tried again")
    return f"{location.url} could not be {verb}: {code}; {advice}."


def first_line(error: BaseException) -> str:
    """The first line of an error's text, at most 300 characters, without what a server answered.

    Answers may hold the request that was signed, and its signature.
    """
    line = (str(error).strip().splitlines() or [type(error).__name__])[0]
    return line.partition("<?xml")[0].partition("<Error>")[0][:300].rstrip(" :")


def no_answer(location: Location, endpoint: str, verb: str, error: BaseException) -> str:
    """Say in one sentence what kept a store from answering, and the fix."""
    if isinstance(error, NoCredentialsError):
        return f"{location.url} could not be {verb}: {NO_CREDENTIALS}."
    if isinstance(error, SSLError):
        return (
            f"{location.url} could not be {verb}: TLS with its endpoint fails "
            f"({_without_url(error)}); check AWS_ENDPOINT_URL, and have AWS_CA_BUNDLE and "
            "SSL_CERT_FILE name the file of its certificate's authority. It is tried again."
        )
    if isinstance(error, (NotConnected, HTTPClientError)):
        parts = urlsplit(endpoint)
        return (
            f"{location.url} could not be {verb}: {parts.scheme}://"
            f"{parts.netloc.rpartition('@')[2]} does not answer ({type(error).__name__}); "
            "check AWS_ENDPOINT_URL. It is tried again."
        )
    advice = "; check AWS_ENDPOINT_URL" if isinstance(error, BaseError) else ""
    reason = f"{first_line(error)}{advice}. It is tried again."
    return f"{location.url} could not be {verb}: {reason}"


def _without_url(error: SSLError) -> str:
    """What is wrong with TLS, without the request, whose URL may hold a signature."""
    found = re.search(r"\[SSL: \w+\]|certificate verify failed[^(]*", str(error))
    return found.group().strip() if found else "no certificate that is trusted here"
