"""Makes the minimal AWS policy for given settings, which `imgflow iam` prints.

Each action is listed because some request in the code needs it; a test removes them one by one. AWS
is never called, so the command works before there are credentials.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from imgflow.errors import SettingsError
from imgflow.settings.variables import Settings
from imgflow.store.location import Location
from imgflow.store.naming import FETCHED_FOLDER, MARKER, OUTPUT_FOLDERS
from imgflow.store.s3.amazon_hosts import sqs_region

Statement = dict[str, Any]

# Wildcards and variables of the policy language, which would match other text too.
WILDCARDS = re.compile(r"[*?$]")


@dataclass(frozen=True)
class Extra:
    """Permissions beyond processing, showing and deleting pictures.

    Attributes:
        upload: Put objects into the source, for `imgflow upload`, the gallery and `POST /process`.
        delete_source: Delete uploads, for `imgflow delete --source` and `?source=true`.
        diagnosis: See whether the bucket sends its events to the queue, for `imgflow doctor`.
        kms_key: ARN of the KMS key that encrypts the buckets; empty if none does.
    """

    upload: bool = False
    delete_source: bool = False
    diagnosis: bool = False
    kms_key: str = ""


def policy(settings: Settings, extra: Extra = Extra(), *, region: str = "us-east-1") -> Statement:
    """Make the policy document for the settings' buckets, prefixes and queue.

    The region of the buckets determines the partition in ARNs, which differs in China and GovCloud.

    Raises:
        SettingsError: The settings use nothing on AWS, or a prefix cannot be written in a policy.
    """
    source, output = settings.stores.locations()
    if extra.kms_key and not extra.kms_key.startswith("arn:"):
        raise SettingsError(f"--kms-key {extra.kms_key}: write its ARN, arn:aws:kms:….")
    names = _Names(_partition(region))
    statements: list[Statement] = []
    if source.scheme == "s3":
        statements += _source(names, source, extra)
    if output.scheme == "s3":
        statements += _outputs(names, output)
    if settings.sqs_queue_url:
        statements += _queue(names, settings.sqs_queue_url, source, region, extra)
    if not statements:
        raise SettingsError(
            "Neither IMGFLOW_SOURCE_URL nor IMGFLOW_OUTPUT_URL is s3://bucket/prefix, and there is "
            "no IMGFLOW_SQS_QUEUE_URL: imgflow asks nothing of AWS, so it needs no policy."
        )
    if extra.kms_key:
        actions = ["kms:Decrypt", *(["kms:GenerateDataKey"] if _writes(output, extra) else [])]
        statements.append(_allow("Encryption", actions, [extra.kms_key]))
    return {"Version": "2012-10-17", "Statement": statements}


@dataclass(frozen=True)
class _Names:
    """Makes ARNs in one AWS partition."""

    partition: str

    def bucket(self, location: Location) -> str:
        return f"arn:{self.partition}:s3:::{location.bucket}"

    def below(self, location: Location, folder: str = "") -> str:
        return f"{self.bucket(location)}/{_plain(location.prefix)}{folder}*"


def _source(names: _Names, source: Location, extra: Extra) -> Iterator[Statement]:
    listed = [f"{_plain(source.prefix)}*"] if source.prefix else []
    yield _list("ListUploads", names, source, listed)
    # s3:GetObjectVersion is not needed: reads are compared with the listing instead.
    actions = ["s3:GetObject"]
    if extra.upload:
        # Large files are uploaded in parts; the parts of a failed upload are removed.
        actions += ["s3:PutObject", "s3:AbortMultipartUpload"]
    if extra.delete_source:
        actions += ["s3:DeleteObject"]
    yield _allow("Uploads", actions, [names.below(source)])
    if extra.upload and not extra.delete_source:
        # Removes what `POST /process` fetched and could not use.
        yield _allow("Fetched", ["s3:DeleteObject"], [names.below(source, FETCHED_FOLDER)])


def _outputs(names: _Names, output: Location) -> Iterator[Statement]:
    listed = [f"{_plain(output.prefix)}{folder}*" for folder in OUTPUT_FOLDERS]
    listed.append(f"{_plain(output.prefix)}{MARKER}")
    yield _list("ListPictures", names, output, listed)
    yield _allow(
        "Pictures",
        ["s3:GetObject", "s3:PutObject", "s3:DeleteObject"],
        [names.below(output, folder) for folder in OUTPUT_FOLDERS],
    )
    # No DeleteObject: deleting the marker hands the location over to another catalogue, which no
    # service does.
    marker = names.below(output, MARKER).removesuffix("*")
    yield _allow("Owner", ["s3:GetObject", "s3:PutObject"], [marker])


def _queue(
    names: _Names, url: str, source: Location, region: str, extra: Extra
) -> Iterator[Statement]:
    parts = urlsplit(url)
    account, _, name = parts.path.strip("/").rpartition("/")
    region = sqs_region(parts.netloc) or region
    arn = f"arn:{names.partition}:sqs:{region}:{account.rpartition('/')[2] or '*'}:{name}"
    yield _allow("Notifications", ["sqs:ReceiveMessage", "sqs:DeleteMessage"], [arn])
    if extra.diagnosis and source.scheme == "s3":
        yield _allow("Diagnosis", ["s3:GetBucketNotification"], [names.bucket(source)])


def _list(sid: str, names: _Names, location: Location, prefixes: list[str]) -> Statement:
    statement = _allow(sid, ["s3:ListBucket"], [names.bucket(location)])
    if prefixes:
        statement["Condition"] = {"StringLike": {"s3:prefix": prefixes}}
    return statement


def _allow(sid: str, actions: list[str], resources: list[str]) -> Statement:
    return {"Sid": sid, "Effect": "Allow", "Action": actions, "Resource": resources}


def _writes(output: Location, extra: Extra) -> bool:
    return output.scheme == "s3" or extra.upload


def _plain(prefix: str) -> str:
    if WILDCARDS.search(prefix):
        raise SettingsError(
            f"The prefix {prefix!r} has a character (* ? $) that stands for others in a policy; "
            "choose another prefix, or write the policy by hand."
        )
    return prefix


def _partition(region: str) -> str:
    from botocore.exceptions import UnknownRegionError
    from botocore.session import get_session

    try:
        found: str = get_session().get_partition_for_region(region)
    except UnknownRegionError:  # the region of an S3-compatible server
        return "aws"
    return found
