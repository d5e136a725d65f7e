"""`imgflow iam`: the smallest AWS policy under which everything works, for one's settings.

Each action stands here because a request of the code needs it; a test takes them away one by one.
Nothing is asked of AWS, so the command works before there are credentials.
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

# Of the policy language: they would stand for any text.
WILDCARDS = re.compile(r"[*?$]")


@dataclass(frozen=True)
class Extra:
    """What is allowed beyond processing, showing and deleting pictures.

    Attributes:
        upload: put objects into the source: `imgflow upload`, the gallery, `POST /process`.
        delete_source: delete uploaded objects: `imgflow delete --source`, `?source=true`.
        diagnosis: see whether the bucket sends its events to the queue: `imgflow doctor`.
        kms_key: ARN of the key that encrypts the buckets; empty: none does.
    """

    upload: bool = False
    delete_source: bool = False
    diagnosis: bool = False
    kms_key: str = ""


def policy(settings: Settings, extra: Extra = Extra(), *, region: str = "us-east-1") -> Statement:
    """Make the policy document.

    Args:
        settings: whose bucket, prefixes and queue it is for.
        extra: what is allowed beyond the least.
        region: of the buckets, for the names in ARNs that China and GovCloud have.

    Raises:
        SettingsError: nothing of the settings lies on AWS, or a name cannot stand in a policy.
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
    """ARNs of one partition of AWS."""

    partition: str

    def bucket(self, location: Location) -> str:
        return f"arn:{self.partition}:s3:::{location.bucket}"

    def below(self, location: Location, folder: str = "") -> str:
        return f"{self.bucket(location)}/{_plain(location.prefix)}{folder}*"


def _source(names: _Names, source: Location, extra: Extra) -> Iterator[Statement]:
    listed = [f"{_plain(source.prefix)}*"] if source.prefix else []
    yield _list("ListUploads", names, source, listed)
    # Versions are not asked for: what is read is compared with what was listed.
    actions = ["s3:GetObject"]
    if extra.upload:
        # Large files go in parts; those of an upload that failed are removed.
        actions += ["s3:PutObject", "s3:AbortMultipartUpload"]
    if extra.delete_source:
        actions += ["s3:DeleteObject"]
    yield _allow("Uploads", actions, [names.below(source)])
    if extra.upload and not extra.delete_source:
        # What `POST /process` fetched and could not use.
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
    # Whoever deletes it hands the location over to another catalogue, which no service does.
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
    except UnknownRegionError:  # a region of an S3-compatible server
        return "aws"
    return found
