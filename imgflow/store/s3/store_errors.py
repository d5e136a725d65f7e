"""Refusals of S3 as sentences with the fix: for a bucket as a whole, and for one object in it.

An object that cannot be read says nothing about the others, so it raises an error of its own:
`Withheld` if retries fail the same way until someone acts on the object, `Unreadable` if someone
may fix a policy at any time.
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

# 400 is the answer to HEAD, which has no body, where GET would answer `InvalidRequest`.
FORBIDDEN = {"AccessDenied", "AllAccessDisabled", "403", "400"}

NO_CREDENTIALS = "no AWS credentials; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"

# By verb of an error message: what the request needs.
PERMISSIONS = {
    "listed": "s3:ListBucket on the bucket",
    "copied": "s3:GetObject and s3:PutObject below it",
    "written": "s3:PutObject below it",
    "deleted": "s3:DeleteObject below it",
}

# How servers refuse the CRC32 of uploads.
CHECKSUM_REFUSALS = (
    *("XAmzContentSHA256Mismatch", "XAmzContentChecksumMismatch", "NotImplemented"),
    *("InvalidChecksum", "BadDigest"),
)


def refused_object(location: Location, key: str, error: BaseException) -> ImgflowError | None:
    """The error for an object that boto3 or `obstore` reports as refused; None for other errors."""
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
    # Intelligent tiering moves the object back for good; otherwise a copy stays for some days.
    request = "{}" if tier else "Days=7"
    return (
        f"it is archived{f' ({storage})' if storage else ''} and cannot be read before it is "
        f"restored: `aws s3api restore-object --bucket {location.bucket} --key "
        f"{shlex.quote(location.prefix + key)} --restore-request {shlex.quote(request)}`, and when "
        f"that is done `imgflow retry {shlex.quote(key)}`"
    )


def _detail(error: BaseException, name: str) -> str:
    """A field of a refusal other than code and message; empty if it is missing."""
    if isinstance(error, ClientError):
        return str(error.response["Error"].get(name, ""))
    found = re.search(rf"<{name}>(\w+)</{name}>", str(error))
    return found.group(1) if found else ""


def error_code(error: BaseException) -> str:
    """S3's code for an error; empty if the error is not S3's answer."""
    if isinstance(error, ClientError):
        code: str = error.response["Error"]["Code"]
        return code
    text = str(error)
    if "redirect without LOCATION" in text:
        return "PermanentRedirect"
    if "403 Forbidden" in text and "<Code>" not in text:  # the answer to HEAD has no body
        return "403"
    found = re.search(r"<Code>([\w.]+)</Code>", text)
    return found.group(1) if found else ""


def explain(location: Location, verb: str, code: str) -> str:
    """Explain in one sentence what a store refused, and how to fix it."""
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
    """The first line of an error's text, at most 300 characters, without the server's answer.

    Answers may contain the signed request and its signature.
    """
    line = (str(error).strip().splitlines() or [type(error).__name__])[0]
    return line.partition("<?xml")[0].partition("<Error>")[0][:300].rstrip(" :")


def no_answer(location: Location, endpoint: str, verb: str, error: BaseException) -> str:
    """Explain in one sentence why a store did not answer, and how to fix it."""
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
    """What is wrong with TLS, without the request, whose URL may contain a signature."""
    found = re.search(r"\[SSL: \w+\]|certificate verify failed[^(]*", str(error))
    return found.group().strip() if found else "no certificate that is trusted here"
