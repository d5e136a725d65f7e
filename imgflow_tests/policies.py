"""Users of the S3 server with a policy of their own, as Amazon's, for tests of permissions."""

from __future__ import annotations

import json
import uuid
from dataclasses import dataclass
from typing import Any

import boto3

from imgflow_tests.ceph import Ceph

Policy = dict[str, Any]


@dataclass(frozen=True)
class User:
    """Someone who may do what its policy says, and nothing else."""

    name: str
    access_key: str
    secret_key: str
    _iam: Any

    def may(self, policy: Policy) -> None:
        """Replace the policy."""
        self._iam.put_user_policy(
            UserName=self.name, PolicyName="only", PolicyDocument=json.dumps(policy)
        )

    def variables(self) -> dict[str, str]:
        return {"AWS_ACCESS_KEY_ID": self.access_key, "AWS_SECRET_ACCESS_KEY": self.secret_key}


def make_user(server: Ceph, admin_key: str, admin_secret: str) -> User:
    """Make a user who may do nothing yet."""
    name = f"u{uuid.uuid4().hex[:12]}"
    access_key, secret_key = server.create_user(name)
    iam = boto3.client(
        "iam",
        endpoint_url=server.endpoint,
        aws_access_key_id=admin_key,
        aws_secret_access_key=admin_secret,
        region_name="us-east-1",
    )
    return User(name, access_key, secret_key, iam)


def allow(*actions: str, bucket: str, below: str = "", **condition: Any) -> dict[str, Any]:
    """One statement: about the bucket, or about objects below a prefix."""
    resource = f"arn:aws:s3:::{bucket}" + (f"/{below}*" if below else "")
    statement = {"Effect": "Allow", "Action": list(actions), "Resource": [resource]}
    return {**statement, **({"Condition": condition} if condition else {})}


def document(*statements: dict[str, Any]) -> Policy:
    return {"Version": "2012-10-17", "Statement": list(statements)}
