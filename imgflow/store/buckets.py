"""Making a bucket: of `imgflow migrate --make-buckets` only, since nothing else needs the right."""

from __future__ import annotations

from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from imgflow.errors import Trouble
from imgflow.store.location import Checksums
from imgflow.store.s3.clients import s3_client
from imgflow.store.s3.store_errors import MISSING, error_code, first_line


def make_bucket(bucket: str, *, checksums: Checksums = "when_supported") -> bool:
    """Make a bucket, and return whether it was missing.

    Raises:
        Trouble: the service does not answer, or refuses.
    """
    client = s3_client(checksums=checksums)
    try:
        if _is_there(client, bucket):
            return False
        region = client.meta.region_name
        # The oldest region is the one that may not be named.
        where = {} if region in (None, "us-east-1") else {"LocationConstraint": region}
        options = {"CreateBucketConfiguration": where} if where else {}
        client.create_bucket(Bucket=bucket, **options)
    except (ClientError, BotoCoreError) as error:
        raise Trouble(f"s3://{bucket} cannot be made: {first_line(error)}") from error
    return True


def _is_there(client: Any, bucket: str) -> bool:
    try:
        client.head_bucket(Bucket=bucket)
    except ClientError as error:
        if error_code(error) in MISSING:
            return False
        raise
    return True
