"""`deploy/aws/imgflow.yaml` applied to moto.

moto makes the buckets, queues, policies and roles of a template, and leaves out a bucket's rules,
notifications and policies, the policy of a queue and which policies a role has. Those are taken
from the template as moto resolved it, and set by the same services' own calls, which check them.
Policies of buckets stay out: moto ignores their conditions, so that one for TLS only would deny
everything.
"""

from __future__ import annotations

import json
import re
import uuid
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import boto3
from moto.cloudformation import parsing
from moto.cloudformation.models import cloudformation_backends

TEMPLATE = Path(__file__).resolve().parents[2] / "deploy" / "aws" / "imgflow.yaml"
ACCOUNT = "123456789012"
REGION = "us-east-1"

Json = dict[str, Any]


def resolve(value: Any, resources: Any) -> Any:
    """What moto resolves, without the nulls that it leaves where `AWS::NoValue` stood."""
    found = _clean_json(value, resources)
    if isinstance(found, dict):
        return {name: part for name, part in found.items() if part is not None}
    if isinstance(found, list):
        return [part for part in found if part is not None]
    return found


_clean_json = parsing.clean_json


@dataclass
class Stack:
    """A stack of the template with these parameters.

    Attributes:
        moto: arguments of moto's clients.
        parameters: of the template, beyond the names of the buckets.
        name: of the stack.
    """

    moto: dict[str, str]
    parameters: dict[str, str] = field(default_factory=dict)
    name: str = field(default_factory=lambda: f"imgflow-{uuid.uuid4().hex[:8]}")

    def __post_init__(self) -> None:
        names = {
            "UploadBucketName": f"{self.name}-uploads",
            "PictureBucketName": f"{self.name}-pictures",
        }
        self.parameters = {**names, **self.parameters}
        self.s3 = self.client("s3")
        self.client("cloudformation").create_stack(
            StackName=self.name,
            TemplateBody=TEMPLATE.read_text(),
            Parameters=[
                {"ParameterKey": name, "ParameterValue": value}
                for name, value in self.parameters.items()
            ],
            Capabilities=["CAPABILITY_IAM"],
        )
        stack = cloudformation_backends[ACCOUNT][REGION].get_stack(self.name)
        resources = stack.resource_map
        self.resources = {
            name: resolve(resource["Properties"], resources)
            for name, resource in stack.template_dict["Resources"].items()
            if resources.lazy_condition_map.get(resource.get("Condition"), True)
        }
        self._queue_policy()
        self._attach_policies()
        for name, properties in self.resources.items():
            if name in ("UploadBucket", "PictureBucket"):
                self._bucket(properties)

    def client(self, service: str) -> Any:
        return boto3.client(service, **self.moto)

    def outputs(self) -> dict[str, str]:
        (found,) = self.client("cloudformation").describe_stacks(StackName=self.name)["Stacks"]
        return {output["OutputKey"]: output["OutputValue"] for output in found["Outputs"]}

    def role(self, output: str) -> tuple[Json, list[Json]]:
        """Who may take a role, and the statements that it allows."""
        iam = self.client("iam")
        name = self.outputs()[output].rpartition("/")[2]
        statements = []
        for attached in iam.list_attached_role_policies(RoleName=name)["AttachedPolicies"]:
            version = iam.get_policy_version(PolicyArn=attached["PolicyArn"], VersionId="v1")
            statements += version["PolicyVersion"]["Document"]["Statement"]
        return iam.get_role(RoleName=name)["Role"]["AssumeRolePolicyDocument"], statements

    def _queue_policy(self) -> None:
        properties = self.resources["QueuePolicy"]
        for queue in properties["Queues"]:
            self.client("sqs").set_queue_attributes(
                QueueUrl=queue, Attributes={"Policy": json.dumps(properties["PolicyDocument"])}
            )

    def _attach_policies(self) -> None:
        for name, properties in self.resources.items():
            for arn in properties.get("ManagedPolicyArns", []):
                role = self.outputs()[f"{name}Arn"].rpartition("/")[2]
                self.client("iam").attach_role_policy(RoleName=role, PolicyArn=arn)

    def _bucket(self, properties: Json) -> None:
        name = properties["BucketName"]
        self.s3.put_public_access_block(
            Bucket=name,
            PublicAccessBlockConfiguration=properties["PublicAccessBlockConfiguration"],
        )
        self.s3.put_bucket_ownership_controls(
            Bucket=name, OwnershipControls=properties["OwnershipControls"]
        )
        self.s3.put_bucket_lifecycle_configuration(
            Bucket=name,
            LifecycleConfiguration={
                "Rules": [_rule(rule) for rule in properties["LifecycleConfiguration"]["Rules"]]
            },
        )
        if versioning := properties.get("VersioningConfiguration"):
            self.s3.put_bucket_versioning(Bucket=name, VersioningConfiguration=versioning)
        if notifications := properties.get("NotificationConfiguration"):
            self.s3.put_bucket_notification_configuration(
                Bucket=name,
                NotificationConfiguration={
                    "QueueConfigurations": [
                        _notification(one) for one in notifications["QueueConfigurations"]
                    ]
                },
            )


def _rule(rule: Json) -> Json:
    """A rule of CloudFormation as S3's own call takes it."""
    prefix, size = rule.get("Prefix", ""), rule.get("ObjectSizeGreaterThan")
    found: Json = {"ID": rule["Id"], "Status": rule["Status"], "Filter": {"Prefix": prefix}}
    if size:
        found["Filter"] = {"And": {"Prefix": prefix, "ObjectSizeGreaterThan": int(size)}}
    if "Transitions" in rule:
        found["Transitions"] = [
            {"StorageClass": one["StorageClass"], "Days": int(one["TransitionInDays"])}
            for one in rule["Transitions"]
        ]
    for name in ("NoncurrentVersionExpiration", "AbortIncompleteMultipartUpload"):
        if name in rule:
            found[name] = {key: int(value) for key, value in rule[name].items()}
    if rule.get("ExpiredObjectDeleteMarker"):
        found["Expiration"] = {"ExpiredObjectDeleteMarker": True}
    known = {"Prefix", "ObjectSizeGreaterThan", "Id", "ExpiredObjectDeleteMarker", *found}
    assert not rule.keys() - known, rule
    return found


def _notification(one: Json) -> Json:
    found = {"QueueArn": one["Queue"], "Events": [one["Event"]]}
    if "Filter" in one:
        rules = one["Filter"]["S3Key"]["Rules"]
        found["Filter"] = {"Key": {"FilterRules": rules}}
    return found


def shape(statements: list[Json]) -> set[tuple[str, str, str]]:
    """Statements as single permissions: action, resource and condition."""
    return {
        (action, resource, json.dumps(statement.get("Condition", {}), sort_keys=True))
        for statement in statements
        for action in statement["Action"]
        for resource in statement["Resource"]
    }


def number_of_events(text: str) -> int:
    """How many records messages of S3 have."""
    return len(re.findall(r'"eventName"', text))
