"""Queues in which something is wrong: rights, and what the bucket tells them."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator

import boto3
import moto.settings

from imgflow_tests.misconfigured.case import Case, Fixture, Misconfigurations

QUEUES = Misconfigurations()
wrong = QUEUES.wrong


def as_moto_user(case: Case, arguments: dict[str, str], actions: list[str]) -> None:
    """As someone who may do these actions; moto does not look at resources."""
    # Until the test ends, moto asks for permissions.
    case.environment.setattr(moto.settings, "INITIAL_NO_AUTH_ACTION_COUNT", float("inf"))
    iam = boto3.client("iam", **arguments)
    name = f"u{uuid.uuid4().hex}"
    iam.create_user(UserName=name)
    # Amazon's action for one message is that for ten, too; moto's is another.
    actions = [*actions, *(f"{action}Batch" for action in actions)]
    allowed = {"Effect": "Allow", "Action": actions, "Resource": "*"}
    document = json.dumps({"Version": "2012-10-17", "Statement": [allowed]})
    iam.put_user_policy(UserName=name, PolicyName="only", PolicyDocument=document)
    keys = iam.create_access_key(UserName=name)["AccessKey"]
    case.use_moto(arguments)
    case.environment.setenv("AWS_ACCESS_KEY_ID", keys["AccessKeyId"])
    case.environment.setenv("AWS_SECRET_ACCESS_KEY", keys["SecretAccessKey"])
    case.environment.setattr(moto.settings, "INITIAL_NO_AUTH_ACTION_COUNT", 0)


def wired(case: Case, fixture: Fixture, prefix: str | None) -> None:
    """A bucket that tells the queue of the objects of a prefix; None: of nothing."""
    arguments, inbox = fixture("moto"), fixture("inbox")
    case.use_moto(arguments)
    client = boto3.client("s3", **arguments)
    bucket = f"wired-{inbox.url.rpartition('-')[2]}"
    client.create_bucket(Bucket=bucket)
    case.values |= {
        "source_url": f"s3://{bucket}/in",
        "output_url": f"s3://{bucket}/made",
        "sqs_queue_url": inbox.url,
    }
    if prefix is not None:
        queue = {"QueueArn": inbox.arn(), "Events": ["s3:ObjectCreated:*", "s3:ObjectRemoved:*"]}
        if prefix:
            queue["Filter"] = {"Key": {"FilterRules": [{"Name": "prefix", "Value": prefix}]}}
        client.put_bucket_notification_configuration(
            Bucket=bucket, NotificationConfiguration={"QueueConfigurations": [queue]}
        )


@wrong("the queue may not be received from", "allow sqs:ReceiveMessage")
def no_receiving(case: Case, fixture: Fixture) -> Iterator[None]:
    arguments, inbox = fixture("moto"), fixture("inbox")
    case.values["sqs_queue_url"] = inbox.url
    as_moto_user(case, arguments, ["sqs:DeleteMessage"])
    yield


@wrong("the queue does not exist", "IMGFLOW_SQS_QUEUE_URL")
def no_queue(case: Case, fixture: Fixture) -> Iterator[None]:
    case.use_moto(fixture("moto"))
    case.values["sqs_queue_url"] = f"{fixture('inbox').url}-none"
    yield


@wrong("the bucket sends no events to the queue", "s3:ObjectCreated:*")
def not_wired(case: Case, fixture: Fixture) -> Iterator[None]:
    wired(case, fixture, None)
    yield


@wrong("the bucket sends events of another prefix", "prefix 'in/'")
def wired_elsewhere(case: Case, fixture: Fixture) -> Iterator[None]:
    wired(case, fixture, "incoming/")
    yield
