"""Amazon's host names: the only place that parses them.

A name that merely looks like S3's may belong to anyone: to a bucket called `s3-…`, an access point,
a load balancer. So this is the complete grammar of the hosts that serve objects of buckets, and
nothing similar. Access points, Object Lambda, Outposts and website endpoints are left out on
purpose: whoever set them up decides what they answer.
"""

from __future__ import annotations

import re
from typing import NamedTuple

_REGION = r"(?P<region>[a-z]{2}(?:-[a-z]+)+-\d)"
_S3 = re.compile(
    r"(?:(?P<bucket>[a-z0-9][a-z0-9.-]{1,61}[a-z0-9])\.)?"
    r"(?:(?P<accelerated>s3-accelerate(?:\.dualstack)?)"
    rf"|s3(?:(?:-fips)?(?:\.dualstack\.|[.-]){_REGION})?)"
    r"\.amazonaws\.com(?P<china>\.cn)?"
)
_SQS = re.compile(r"(?:sqs\.([a-z0-9-]+)|([a-z0-9-]+)\.queue)\.amazonaws\.com(?:\.cn)?")


class S3Host(NamedTuple):
    """The parts of an S3 host name.

    Attributes:
        partition: `aws`, `aws-cn` or `aws-us-gov`. Bucket names are unique only within a partition,
            so the same name in another one is someone else's bucket.
        bucket: None if the path starts with the bucket instead.
    """

    partition: str
    bucket: str | None


def s3_host(host: str) -> S3Host | None:
    """Parse a host name in lower case; None if S3 does not serve buckets under it."""
    match = _S3.fullmatch(host)
    if match is None:
        return None
    region, bucket = match["region"] or "", match["bucket"]
    is_chinese = region.startswith("cn-")
    # Isolated regions have their own domains.
    if bool(match["china"]) != is_chinese or region.startswith("us-iso"):
        return None
    # Accelerated names contain the bucket, which has no dots.
    if match["accelerated"] and (bucket is None or "." in bucket):
        return None
    if is_chinese:
        return S3Host("aws-cn", bucket)
    return S3Host("aws-us-gov" if region.startswith("us-gov-") else "aws", bucket)


def sqs_region(host: str) -> str | None:
    """The region of an SQS host, in either of its two spellings; None for other hosts."""
    match = _SQS.fullmatch(host)
    return match and (match[1] or match[2])
