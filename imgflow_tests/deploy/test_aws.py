"""The CloudFormation template: valid, closed, and imgflow works with what it makes."""

from __future__ import annotations

import json
import subprocess
import sysconfig
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from imgflow.settings.variables import Settings
from imgflow.store.naming import source_part
from imgflow_tests.deploy.stack import TEMPLATE, Stack, number_of_events
from imgflow_tests.orchestration.queues import Inbox, QueueProject
from imgflow_tests.pictures import jpeg

MakeStack = Callable[..., Stack]

# Of what moto's CloudFormation leaves out; see `stack`.
pytestmark = pytest.mark.filterwarnings("ignore:Tried to parse")

# What S3 hands out at once; the others must be restored first, for minutes to days.
READABLE = {"STANDARD", "STANDARD_IA", "INTELLIGENT_TIERING", "GLACIER_IR"}


@pytest.fixture
def stack(make_stack: MakeStack, monkeypatch: pytest.MonkeyPatch) -> Stack:
    stack = make_stack(UploadPrefix="in/", PicturePrefix="made/")
    for name, value in {
        "AWS_ENDPOINT_URL": stack.moto["endpoint_url"],
        "AWS_ENDPOINT_URL_SQS": stack.moto["endpoint_url"],
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
    }.items():
        monkeypatch.setenv(name, value)
    return stack


def test_the_template_is_valid_to_cloudformations_own_linter() -> None:
    # As a process, since it would leave its rules and its logging in this one.
    linter = Path(sysconfig.get_path("scripts")) / "cfn-lint"
    done = subprocess.run(
        [linter, "--include-checks", "I", "--", TEMPLATE],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, ""), done.stderr


def test_an_upload_reaches_the_queue_and_becomes_pictures(
    stack: Stack,
    make_settings: Callable[..., Settings],
    instance: dg.DagsterInstance,
) -> None:
    found = stack.outputs()
    project = QueueProject(
        make_settings(
            source_url=found["SourceUrl"],
            output_url=found["OutputUrl"],
            sqs_queue_url=found["QueueUrl"],
        ),
        instance,
    )
    uploads, pictures = (stack.parameters[f"{name}BucketName"] for name in ("Upload", "Picture"))
    stack.s3.put_object(Bucket=uploads, Key="in/summer/a b.jpg", Body=jpeg())
    stack.s3.put_object(Bucket=uploads, Key="elsewhere/b.jpg", Body=jpeg())

    (run,) = project.run_requests(project.take())

    assert run.success
    assert project.states() == {"summer/a b.jpg": "ready"}
    inbox = Inbox(stack.client("sqs"), found["QueueUrl"])
    assert inbox.counts() == (0, 0)
    part = source_part(f"s3://{uploads}/in/")
    made = stack.s3.list_objects_v2(Bucket=pictures)["Contents"]
    assert [entry["Key"].split("@")[0] for entry in made] == [
        f"made/grayscale/{part}/summer/a b.jpg/",
        "made/imgflow.json",
        f"made/thumbnail/{part}/summer/a b.jpg/",
    ]
    # moto tells no queue of deletions in a bucket with versions.
    configured = stack.s3.get_bucket_notification_configuration(Bucket=uploads)
    assert {event for one in configured["QueueConfigurations"] for event in one["Events"]} == {
        *("s3:ObjectCreated:*", "s3:ObjectRemoved:*", "s3:LifecycleExpiration:*")
    }


def test_only_what_lands_below_the_prefix_sends_a_message(stack: Stack) -> None:
    uploads = stack.parameters["UploadBucketName"]
    for key in ("in/a.jpg", "other/b.jpg", "c.jpg"):
        stack.s3.put_object(Bucket=uploads, Key=key, Body=b"x")
    answer = stack.client("sqs").receive_message(
        QueueUrl=stack.outputs()["QueueUrl"], MaxNumberOfMessages=10, WaitTimeSeconds=0
    )
    bodies = [message["Body"] for message in answer["Messages"]]
    assert sum(map(number_of_events, bodies)) == 1
    assert "in%2Fa.jpg" in "".join(bodies)


def lifecycle(stack: Stack, bucket: str) -> dict[str, dict[str, Any]]:
    rules = stack.s3.get_bucket_lifecycle_configuration(Bucket=stack.parameters[bucket])["Rules"]
    assert all(rule["Status"] == "Enabled" for rule in rules)
    return {rule["ID"]: rule for rule in rules}


def test_originals_get_cold_and_stay_readable_and_thumbnails_stay_warm(stack: Stack) -> None:
    uploads = lifecycle(stack, "UploadBucketName")
    pictures = lifecycle(stack, "PictureBucketName")

    assert uploads["originals"]["Transitions"] == [{"Days": 30, "StorageClass": "GLACIER_IR"}]
    assert uploads["originals"]["Filter"]["And"]["Prefix"] == "in/"
    assert pictures["grayscale"]["Transitions"] == [{"Days": 90, "StorageClass": "STANDARD_IA"}]
    assert pictures["grayscale"]["Filter"]["And"]["Prefix"] == "made/grayscale/"
    for bucket in ("UploadBucket", "PictureBucket"):  # moto does not give the size back
        rule = stack.resources[bucket]["LifecycleConfiguration"]["Rules"][0]
        assert rule["ObjectSizeGreaterThan"] == "131072"
    moved = [name for name, rule in pictures.items() if "Transitions" in rule]
    assert moved == ["grayscale"]  # nothing else, thumbnails least of all
    assert uploads["overwritten"]["NoncurrentVersionExpiration"] == {"NoncurrentDays": 30}
    assert "Days" not in uploads["overwritten"]["Expiration"]
    for rules in (uploads, pictures):
        assert rules["unfinished"]["AbortIncompleteMultipartUpload"]["DaysAfterInitiation"] > 0


@pytest.mark.parametrize("parameter", ["UploadsColdClass", "GrayscaleColdClass"])
def test_no_storage_class_can_be_chosen_that_the_api_could_not_show(
    make_stack: MakeStack, parameter: str
) -> None:
    summary = (
        make_stack()
        .client("cloudformation")
        .get_template_summary(TemplateBody=TEMPLATE.read_text())
    )
    (found,) = (one for one in summary["Parameters"] if one["ParameterKey"] == parameter)
    assert set(found["ParameterConstraints"]["AllowedValues"]) == READABLE


def test_without_cold_classes_nothing_moves(make_stack: MakeStack) -> None:
    stack = make_stack(UploadsColdClass="STANDARD", GrayscaleColdClass="STANDARD")
    assert lifecycle(stack, "UploadBucketName").keys() == {"overwritten", "unfinished"}
    assert lifecycle(stack, "PictureBucketName").keys() == {"unfinished"}


@pytest.mark.parametrize("bucket", ["Upload", "Picture"])
def test_both_buckets_are_private_encrypted_and_only_for_tls(stack: Stack, bucket: str) -> None:
    at = {"Bucket": stack.parameters[f"{bucket}BucketName"]}
    block = stack.s3.get_public_access_block(**at)["PublicAccessBlockConfiguration"]
    assert set(block.values()) == {True}
    assert len(block) == 4
    rules = stack.s3.get_bucket_encryption(**at)["ServerSideEncryptionConfiguration"]["Rules"]
    assert rules[0]["ApplyServerSideEncryptionByDefault"]["SSEAlgorithm"] == "AES256"
    controls = stack.s3.get_bucket_ownership_controls(**at)["OwnershipControls"]
    assert controls["Rules"] == [{"ObjectOwnership": "BucketOwnerEnforced"}]
    policy = stack.resources[f"{bucket}BucketPolicy"]
    assert policy["Bucket"] == at["Bucket"]
    arn = f"arn:aws:s3:::{at['Bucket']}"
    assert policy["PolicyDocument"]["Statement"] == [
        {
            "Sid": "TlsOnly",
            "Effect": "Deny",
            "Principal": "*",
            "Action": "s3:*",
            "Resource": [arn, f"{arn}/*"],
            "Condition": {"Bool": {"aws:SecureTransport": "false"}},
        }
    ]


def test_overwritten_originals_can_be_had_back(stack: Stack) -> None:
    at = {"Bucket": stack.parameters["UploadBucketName"]}
    assert stack.s3.get_bucket_versioning(**at)["Status"] == "Enabled"
    assert "Status" not in stack.s3.get_bucket_versioning(
        Bucket=stack.parameters["PictureBucketName"]
    )


def test_the_queue_takes_messages_of_the_bucket_only_and_keeps_them_through_an_outage(
    stack: Stack,
) -> None:
    sqs, url = stack.client("sqs"), stack.outputs()["QueueUrl"]
    found = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["All"])["Attributes"]
    allowed, denied = json.loads(found["Policy"])["Statement"]
    assert allowed["Principal"] == {"Service": "s3.amazonaws.com"}
    assert allowed["Condition"]["ArnEquals"] == {
        "aws:SourceArn": f"arn:aws:s3:::{stack.parameters['UploadBucketName']}"
    }
    assert allowed["Condition"]["StringEquals"] == {"aws:SourceAccount": "123456789012"}
    assert denied["Effect"] == "Deny"
    redrive = json.loads(found["RedrivePolicy"])
    dead = sqs.get_queue_url(QueueName=redrive["deadLetterTargetArn"].rpartition(":")[2])
    # Half a day without S3 or the database, at one receive for each visibility timeout.
    assert redrive["maxReceiveCount"] * int(found["VisibilityTimeout"]) > 12 * 3_600
    kept = sqs.get_queue_attributes(QueueUrl=dead["QueueUrl"], AttributeNames=["All"])
    for attributes in (found, kept["Attributes"]):
        assert int(attributes["MessageRetentionPeriod"]) == 14 * 86_400
        assert attributes["SqsManagedSseEnabled"] in ("true", "True", True)


def test_a_bucket_that_exists_is_left_as_it_is(make_stack: MakeStack) -> None:
    stack = make_stack(UploadBucketName="ours-already", UploadBucketExists="true")
    assert stack.outputs()["SourceUrl"] == "s3://ours-already/"
    with pytest.raises(stack.s3.exceptions.ClientError, match="404"):
        stack.s3.head_bucket(Bucket="ours-already")
    (allowed, _) = stack.resources["QueuePolicy"]["PolicyDocument"]["Statement"]
    assert allowed["Condition"]["ArnEquals"]["aws:SourceArn"] == "arn:aws:s3:::ours-already"
