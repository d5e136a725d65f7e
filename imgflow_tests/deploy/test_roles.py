"""The roles of the template: together what `imgflow iam` prints, each enough for its process."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import dagster as dg
import pytest
from fastapi.testclient import TestClient

from imgflow.api.app import create_app
from imgflow.cli.iam import Extra, policy
from imgflow.settings.variables import Settings
from imgflow_tests.deploy.stack import Stack, shape
from imgflow_tests.orchestration.project import Project
from imgflow_tests.orchestration.test_maintenance import reconcile
from imgflow_tests.pictures import depth_csv, jpeg
from imgflow_tests.policies import User, document

MakeStack = Callable[..., Stack]

# Of what moto's CloudFormation leaves out; see `stack`.
pytestmark = pytest.mark.filterwarnings("ignore:Tried to parse")

ROLES = ("CodeRoleArn", "WorkerRoleArn", "ApiRoleArn")
KEY = "arn:aws:kms:us-east-1:123456789012:key/0123"


@pytest.mark.parametrize(
    ("parameters", "extra"),
    [
        ({}, Extra(upload=True, diagnosis=True)),
        ({"UploadPrefix": "in/", "PicturePrefix": "made/"}, Extra(upload=True, diagnosis=True)),
        ({"ApiUploads": "false"}, Extra(diagnosis=True)),
        (
            {"ApiDeletesUploads": "true", "OnDelete": "delete", "KmsKeyArn": KEY},
            Extra(upload=True, delete_source=True, diagnosis=True, kms_key=KEY),
        ),
    ],
)
def test_the_roles_together_may_do_what_imgflow_iam_prints_and_nothing_else(
    make_stack: MakeStack,
    make_settings: Callable[..., Settings],
    parameters: dict[str, str],
    extra: Extra,
) -> None:
    stack = make_stack(**parameters)
    found = stack.outputs()
    settings = make_settings(
        source_url=found["SourceUrl"],
        output_url=found["OutputUrl"],
        sqs_queue_url=found["QueueUrl"],
    )
    allowed = set().union(*(shape(stack.role(role)[1]) for role in ROLES))
    assert allowed == shape(policy(settings, extra)["Statement"])


def test_each_role_may_do_what_its_process_does(make_stack: MakeStack) -> None:
    stack = make_stack(ApiDeletesUploads="true")

    def actions(role: str, bucket: str) -> set[str]:
        name = stack.parameters[bucket]
        found = shape(stack.role(role)[1])
        return {
            action for action, resource, _ in found if resource.split(":::")[-1].startswith(name)
        }

    reading = {"s3:ListBucket", "s3:GetObject"}
    making = {*reading, "s3:PutObject", "s3:DeleteObject"}
    assert actions("CodeRoleArn", "UploadBucketName") == {*reading, "s3:GetBucketNotification"}
    assert actions("CodeRoleArn", "PictureBucketName") == set()
    assert actions("WorkerRoleArn", "UploadBucketName") == reading
    assert actions("WorkerRoleArn", "PictureBucketName") == making
    assert actions("ApiRoleArn", "UploadBucketName") == {*making, "s3:AbortMultipartUpload"}
    assert actions("ApiRoleArn", "PictureBucketName") == making


def trusted(stack: Stack) -> list[Any]:
    return [stack.role(role)[0]["Statement"][0] for role in ROLES]


def test_roles_of_service_accounts_are_for_one_account_each(make_stack: MakeStack) -> None:
    issuer = "oidc.eks.eu-central-1.amazonaws.com/id/0A1B"
    statements = trusted(make_stack(OidcProvider=issuer, Namespace="pictures"))
    for name, statement in zip(("code", "worker", "api"), statements, strict=True):
        assert statement["Action"] == "sts:AssumeRoleWithWebIdentity"
        assert statement["Principal"] == {
            "Federated": f"arn:aws:iam::123456789012:oidc-provider/{issuer}"
        }
        assert statement["Condition"]["StringEquals"] == {
            f"{issuer}:aud": "sts.amazonaws.com",
            f"{issuer}:sub": f"system:serviceaccount:pictures:imgflow-{name}",
        }


def test_without_an_issuer_the_roles_are_for_pod_identity_and_tasks_of_this_account(
    make_stack: MakeStack,
) -> None:
    for statement in trusted(make_stack()):
        assert statement["Principal"]["Service"] == [
            *("pods.eks.amazonaws.com", "ecs-tasks.amazonaws.com")
        ]
        assert statement["Condition"] == {"StringEquals": {"aws:SourceAccount": "123456789012"}}


TOKEN = {"Authorization": "Bearer secret"}


@pytest.fixture
def take_role(make_stack: MakeStack, bucket: str, user: User) -> Callable[..., None]:
    """Give someone of the S3 server, which follows policies, the statements of a role."""
    stack = make_stack(
        UploadBucketName=bucket,
        UploadBucketExists="true",
        UploadPrefix="in/",
        PictureBucketName=bucket,
        PicturePrefix="made/",
        OnDelete="tombstone",
        ApiDeletesUploads="true",
    )

    def take(role: str) -> None:
        # Ceph knows no statements about queues and keys of others.
        statements = [one for one in stack.role(role)[1] if ":s3:::" in one["Resource"][0]]
        user.may(document(*statements))

    return take


def test_each_role_is_enough_for_its_process(  # noqa: PLR0917 - fixtures
    s3: Any,
    bucket: str,
    user: User,
    take_role: Callable[..., None],
    make_settings: Callable[..., Settings],
    instance: dg.DagsterInstance,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, value in user.variables().items():
        monkeypatch.setenv(name, value)
    settings = make_settings(
        source_url=f"s3://{bucket}/in",
        output_url=f"s3://{bucket}/made",
        on_delete="tombstone",
        api_token="secret",  # noqa: S106 - of this test
    )
    for key, body in {"a.jpg": jpeg(), "b.jpg": jpeg(seed=1), "d.csv": depth_csv()}.items():
        s3.put_object(Bucket=bucket, Key=f"in/{key}", Body=body)

    take_role("CodeRoleArn")
    project = Project(settings, instance)
    asked = project.tick()

    take_role("WorkerRoleArn")
    assert all(run.success for run in project.run_requests(asked))
    assert reconcile(project) == {"listed": 3}
    assert {image.key: image.state for image in project.catalog.page(limit=9)} == dict.fromkeys(
        ("a.jpg", "b.jpg", "d.csv"), "ready"
    )

    take_role("ApiRoleArn")
    with TestClient(create_app(settings)) as api:
        assert api.get("/health/ready").status_code == 200
        for output in ("thumbnail", "grayscale", "original"):
            assert api.get(f"/images/key:a.jpg/{output}", headers=TOKEN).status_code == 200
        uploaded = api.put("/images/key:up.jpg/original", content=jpeg(seed=2), headers=TOKEN)
        assert uploaded.status_code < 300, uploaded.text
        assert project.source.stat("up.jpg") is not None
        deleted = api.delete("/images/key:a.jpg", params={"source": True}, headers=TOKEN)
        assert deleted.status_code in (200, 204), deleted.text
    assert {name.split("/")[2] for name in project.stored()} == {"b.jpg", "d.csv"}

    s3.delete_object(Bucket=bucket, Key="in/b.jpg")
    take_role("CodeRoleArn")
    project.tick()
    project.tick()
    take_role("WorkerRoleArn")
    assert {name.split("/")[2] for name in project.stored()} == {"d.csv"}
