"""Every row of the table in `docs/doctor.md` is made for real; the doctor names it and its mend."""

# ruff: noqa: ARG001 - all arrangements take the same arguments

from __future__ import annotations

import json
import re
import ssl
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import boto3
import botocore.auth
import moto.settings
import pytest
import yaml
from dagster._core.definitions.run_request import InstigatorType
from dagster._core.remote_origin import RegisteredCodeLocationOrigin, RemoteRepositoryOrigin
from dagster._core.scheduler.instigation import InstigatorState, InstigatorStatus

from imgflow.catalog.connecting import make_engine, up_name
from imgflow.catalog.postgres import PostgresCatalog
from imgflow.doctor import machine
from imgflow.iam import Extra, policy
from imgflow.orchestration import diagnosis
from imgflow.orchestration.instance import prepare_dagster_home
from imgflow.running import only_one
from imgflow.settings import Settings
from imgflow_tests.ceph import free_port
from imgflow_tests.fetch.servers import make_certificate, ok, serving
from imgflow_tests.misconfigured import Case
from imgflow_tests.pictures import jpeg
from imgflow_tests.policies import User
from imgflow_tests.s3_proxy import Fault, Proxy

DOCS = Path(__file__).resolve().parents[2] / "docs" / "doctor.md"
Row = tuple[str, str, str]
Fixture = Callable[[str], Any]
Arrange = Callable[[Case, Fixture], Iterator[None]]

ARRANGED: dict[str, tuple[str, Arrange]] = {}
"""What is wrong: a piece of the mend, and how to make it so."""


def wrong(name: str, mend: str) -> Callable[[Arrange], Arrange]:
    def register(arrange: Arrange) -> Arrange:
        ARRANGED[name] = mend, arrange
        return arrange

    return register


def table() -> dict[str, Row]:
    """The rows of the documentation: part, state and mend of each misconfiguration."""
    rows = {}
    for line in DOCS.read_text().splitlines():
        cells = [cell.strip() for cell in line.strip("|").split(" | ")]
        if line.startswith("| ") and len(cells) == 4 and cells[2] in ("`wrong`", "`notice`"):
            rows[cells[0].strip()] = cells[1].strip("`"), cells[2].strip("`"), cells[3]
    return rows


@pytest.fixture
def case(
    make_settings: Callable[..., Settings],
    home: Path,
    database_url: str,
    monkeypatch: pytest.MonkeyPatch,
) -> Case:
    return Case(make_settings, home, database_url, monkeypatch)


def test_the_table_and_these_tests_have_the_same_rows() -> None:
    assert list(table()) == list(ARRANGED)
    assert len(ARRANGED) >= 15


@pytest.mark.parametrize("name", ARRANGED)
def test_it_is_named_with_its_mend(name: str, case: Case, request: pytest.FixtureRequest) -> None:
    part, state, documented = table()[name]
    mend, arrange = ARRANGED[name]
    with contextmanager(arrange)(case, request.getfixturevalue):
        found = case.found()
    matching = [one for of, one in found.items() if re.fullmatch(part.replace("…", ".*"), of)]
    (finding,) = [one for one in matching if one.state == state] or matching[:1]
    assert (finding.state, mend in finding.text) == (state, True), finding
    for piece in re.findall(r"`([^`…]+)`", documented):
        assert piece in finding.text


def in_bucket(case: Case, fixture: Fixture) -> tuple[Any, str]:
    """Source and outputs in a bucket that has an upload."""
    client, bucket = fixture("s3"), fixture("bucket")
    client.put_object(Bucket=bucket, Key="in/a.jpg", Body=jpeg())
    case.values |= {"source_url": f"s3://{bucket}/in", "output_url": f"s3://{bucket}/made"}
    return client, bucket


def without(case: Case, fixture: Fixture, *denied: tuple[str, str]) -> None:
    """As a user whose policy lacks actions of statements."""
    in_bucket(case, fixture)
    user: User = fixture("user")
    whole = policy(case.settings, Extra())
    for statement in whole["Statement"]:
        statement["Action"] = [
            action for action in statement["Action"] if (statement["Sid"], action) not in denied
        ]
    user.may({**whole, "Statement": [one for one in whole["Statement"] if one["Action"]]})
    for name, value in user.variables().items():
        case.environment.setenv(name, value)


@contextmanager
def proxied(case: Case, fixture: Fixture, fault: Fault, *kinds: str) -> Iterator[None]:
    """Answers of the S3 server have a fault: all, or those to some kinds of requests."""
    proxy = Proxy(fixture("s3").meta.endpoint_url)
    proxy.programme = lambda request: fault if request.kind in kinds or not kinds else None
    case.environment.setenv("AWS_ENDPOINT_URL", proxy.endpoint)
    try:
        yield
    finally:
        proxy.stop()


def use_moto(case: Case, arguments: dict[str, str]) -> None:
    """Have the variables point to moto, which has regions and queues."""
    case.environment.setenv("AWS_ENDPOINT_URL", arguments["endpoint_url"])
    case.environment.setenv("AWS_ACCESS_KEY_ID", arguments["aws_access_key_id"])
    case.environment.setenv("AWS_SECRET_ACCESS_KEY", arguments["aws_secret_access_key"])
    case.environment.setenv("AWS_DEFAULT_REGION", arguments["region_name"])


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
    use_moto(case, arguments)
    case.environment.setenv("AWS_ACCESS_KEY_ID", keys["AccessKeyId"])
    case.environment.setenv("AWS_SECRET_ACCESS_KEY", keys["SecretAccessKey"])
    case.environment.setattr(moto.settings, "INITIAL_NO_AUTH_ACTION_COUNT", 0)


def wired(case: Case, fixture: Fixture, prefix: str | None) -> None:
    """A bucket that tells the queue of the objects of a prefix; None: of nothing."""
    arguments, inbox = fixture("moto"), fixture("inbox")
    use_moto(case, arguments)
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


def migrate(case: Case) -> None:
    engine = make_engine(case.database_url)
    PostgresCatalog(engine, "file:///").migrate()
    engine.dispose()


def configured(case: Case, **changes: Any) -> None:
    """A `dagster.yaml` as the first start writes it, changed."""
    file = prepare_dagster_home(case.settings) / "dagster.yaml"
    config = {**yaml.safe_load(file.read_text()), **changes}
    file.write_text(yaml.safe_dump({name: value for name, value in config.items() if value}))


def test_a_bucket_that_tells_the_queue_of_uploads_is_well(
    case: Case, request: pytest.FixtureRequest
) -> None:
    for prefix in ("in/", ""):
        wired(case, request.getfixturevalue, prefix)
        found = case.found()
        assert found["events"].state == "ok"
    assert [part for part, finding in found.items() if finding.state == "wrong"] == []


def test_the_queue_needs_both_actions_of_the_policy_and_no_more(
    case: Case, request: pytest.FixtureRequest
) -> None:
    arguments, inbox = request.getfixturevalue("moto"), request.getfixturevalue("inbox")
    inbox.send("a message")
    case.values["sqs_queue_url"] = inbox.url
    ((_, actions),) = [(one["Sid"], one["Action"]) for one in policy(case.settings)["Statement"]]
    states = {}
    for allowed in (actions, actions[:1], actions[1:]):
        as_moto_user(case, arguments, allowed)
        states[tuple(allowed)] = case.found()["queue"].state
        case.environment.setattr(moto.settings, "INITIAL_NO_AUTH_ACTION_COUNT", float("inf"))
    assert list(states.values()) == ["ok", "wrong", "wrong"]
    assert inbox.counts() == (1, 0), "the message is still there"


@wrong("no credentials", "AWS_ACCESS_KEY_ID")
def no_credentials(case: Case, fixture: Fixture) -> Iterator[None]:
    in_bucket(case, fixture)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        case.environment.delenv(name)
    case.environment.setenv("AWS_EC2_METADATA_DISABLED", "true")
    case.environment.setenv("AWS_SHARED_CREDENTIALS_FILE", "none")
    yield


@wrong("unknown access key", "AWS_ACCESS_KEY_ID")
def unknown_access_key(case: Case, fixture: Fixture) -> Iterator[None]:
    in_bucket(case, fixture)
    case.environment.setenv("AWS_ACCESS_KEY_ID", "nobody")
    yield


@wrong("wrong secret key", "AWS_SECRET_ACCESS_KEY")
def wrong_secret_key(case: Case, fixture: Fixture) -> Iterator[None]:
    in_bucket(case, fixture)
    case.environment.setenv("AWS_SECRET_ACCESS_KEY", "s3cr3t")
    yield


@wrong("expired session token", "renew AWS_SESSION_TOKEN")
def expired_session_token(case: Case, fixture: Fixture) -> Iterator[None]:
    in_bucket(case, fixture)
    with proxied(case, fixture, Fault(refused="ExpiredToken")):
        yield


@wrong("the bucket does not exist", "create it")
def no_bucket(case: Case, fixture: Fixture) -> Iterator[None]:
    in_bucket(case, fixture)
    case.values["source_url"] = "s3://no-such-bucket-here"
    yield


@wrong("the bucket is in another region", "AWS_DEFAULT_REGION=eu-central-1")
def other_region(case: Case, fixture: Fixture) -> Iterator[None]:
    arguments = fixture("moto")
    client = boto3.client("s3", **arguments)
    client.create_bucket(
        Bucket="in-frankfurt", CreateBucketConfiguration={"LocationConstraint": "eu-central-1"}
    )
    case.values |= {"source_url": "s3://in-frankfurt/in", "output_url": "s3://in-frankfurt/made"}
    use_moto(case, arguments)
    yield


@wrong("uploads may not be listed", "allow s3:ListBucket")
def no_listing(case: Case, fixture: Fixture) -> Iterator[None]:
    without(case, fixture, ("ListUploads", "s3:ListBucket"))
    yield


@wrong("uploads may not be read", "allow s3:GetObject")
def no_reading(case: Case, fixture: Fixture) -> Iterator[None]:
    without(case, fixture, ("Uploads", "s3:GetObject"))
    yield


@wrong("outputs may not be written", "allow s3:PutObject")
def no_writing(case: Case, fixture: Fixture) -> Iterator[None]:
    without(case, fixture, ("Pictures", "s3:PutObject"))
    yield


@wrong("outputs may not be deleted", "allow s3:DeleteObject")
def no_deleting(case: Case, fixture: Fixture) -> Iterator[None]:
    without(case, fixture, ("Pictures", "s3:DeleteObject"))
    yield


@wrong("outputs may not be listed", "allow s3:ListBucket")
def no_listing_of_outputs(case: Case, fixture: Fixture) -> Iterator[None]:
    without(case, fixture, ("ListPictures", "s3:ListBucket"))
    yield


@wrong("nothing answers at the endpoint", "AWS_ENDPOINT_URL")
def no_endpoint(case: Case, fixture: Fixture) -> Iterator[None]:
    in_bucket(case, fixture)
    case.environment.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{free_port()}")
    yield


@wrong("the endpoint's certificate is not trusted", "AWS_CA_BUNDLE")
def untrusted(case: Case, fixture: Fixture) -> Iterator[None]:
    in_bucket(case, fixture)
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(make_certificate(fixture("tmp_path"), "localhost"))
    with serving(ok(b""), tls) as server:
        case.environment.setenv("AWS_ENDPOINT_URL", f"https://localhost:{server.port}")
        yield


@wrong("the endpoint holds the bucket's name", "leave it out")
def bucket_twice(case: Case, fixture: Fixture) -> Iterator[None]:
    client, bucket = in_bucket(case, fixture)
    case.environment.setenv("AWS_ENDPOINT_URL", f"{client.meta.endpoint_url}/{bucket}")
    yield


@wrong("this clock and that of S3 differ", "time server")
def other_clock(case: Case, fixture: Fixture) -> Iterator[None]:
    in_bucket(case, fixture)
    with proxied(case, fixture, Fault(clock_seconds=600)):
        yield


@wrong("the clock is so wrong that S3 refuses signatures", "time server")
def refused_clock(case: Case, fixture: Fixture) -> Iterator[None]:
    in_bucket(case, fixture)
    if fixture("s3_server").ceph is None:
        pytest.skip("moto looks at no signature")
    now = botocore.auth.get_current_datetime
    late = timedelta(hours=1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(botocore.auth, "get_current_datetime", lambda: now() - late)
        yield


@wrong("the server refuses checksums of uploads", "IMGFLOW_S3_CHECKSUMS=when_required")
def refused_checksums(case: Case, fixture: Fixture) -> Iterator[None]:
    in_bucket(case, fixture)
    with proxied(case, fixture, Fault(refused="XAmzContentSHA256Mismatch"), "PUT"):
        yield


@wrong("outputs cannot be written to their folder", "IMGFLOW_OUTPUT_URL")
def unwritable(case: Case, fixture: Fixture) -> Iterator[None]:
    file = fixture("tmp_path") / "file"
    file.touch()
    case.values["output_url"] = (file / "outputs").as_uri()
    yield


@wrong("source and outputs are the same place", "prefix of their own")
def same_place(case: Case, fixture: Fixture) -> Iterator[None]:
    place = fixture("tmp_path").as_uri()
    case.values |= {"source_url": place, "output_url": place}
    yield


@wrong("the source lies among the outputs", "another prefix")
def source_in_outputs(case: Case, fixture: Fixture) -> Iterator[None]:
    place = fixture("tmp_path")
    case.values |= {
        "source_url": (place / "thumbnail").as_uri(),
        "output_url": place.as_uri(),
    }
    yield


@wrong("the outputs lie inside the source", "beside the source")
def outputs_in_source(case: Case, fixture: Fixture) -> Iterator[None]:
    place = fixture("tmp_path")
    case.values |= {"source_url": place.as_uri(), "output_url": (place / "made").as_uri()}
    yield


@wrong("the source folder is not mounted", "IMGFLOW_SOURCE_URL")
def not_mounted(case: Case, fixture: Fixture) -> Iterator[None]:
    case.values["source_url"] = (fixture("tmp_path") / "unmounted").as_uri()
    yield


@wrong("the disk is full", "make room")
def full_disk(case: Case, fixture: Fixture) -> Iterator[None]:
    case.home.mkdir()
    case.environment.setattr(machine, "LEAST_FREE_BYTES", 10**18)
    yield


@wrong("the queue may not be received from", "allow sqs:ReceiveMessage")
def no_receiving(case: Case, fixture: Fixture) -> Iterator[None]:
    arguments, inbox = fixture("moto"), fixture("inbox")
    case.values["sqs_queue_url"] = inbox.url
    as_moto_user(case, arguments, ["sqs:DeleteMessage"])
    yield


@wrong("the queue does not exist", "IMGFLOW_SQS_QUEUE_URL")
def no_queue(case: Case, fixture: Fixture) -> Iterator[None]:
    use_moto(case, fixture("moto"))
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


@wrong("the database does not answer", "IMGFLOW_DATABASE_URL")
def no_database(case: Case, fixture: Fixture) -> Iterator[None]:
    case.values["database_url"] = f"postgresql://imgflow:s3cr3t@127.0.0.1:{free_port()}/imgflow"
    yield


@wrong("wrong password of the database", "user and password")
def wrong_password(case: Case, fixture: Fixture) -> Iterator[None]:
    rules = Path(case.sql("SHOW hba_file"))
    before = rules.read_text()
    with case.role("locked", "PASSWORD 'right'"):
        rules.write_text(
            f"local all locked scram-sha-256\nhost all locked all scram-sha-256\n{before}"
        )
        case.sql("SELECT pg_reload_conf()")
        case.use_role("locked", "s3cr3t")
        try:
            yield
        finally:
            rules.write_text(before)
            case.sql("SELECT pg_reload_conf()")


@wrong("the database's user may not create tables", "GRANT USAGE, CREATE")
def no_tables(case: Case, fixture: Fixture) -> Iterator[None]:
    with case.role("tenant"):
        case.use_role("tenant")
        yield


@wrong("the tables belong to another user", "GRANT ALL ON ALL TABLES")
def foreign_tables(case: Case, fixture: Fixture) -> Iterator[None]:
    migrate(case)
    with case.role("tenant"):
        case.sql("GRANT CREATE ON SCHEMA public TO tenant")
        case.use_role("tenant")
        yield


@wrong("too few connections to the database", "CONNECTION LIMIT")
def few_connections(case: Case, fixture: Fixture) -> Iterator[None]:
    with case.role("tenant", "CONNECTION LIMIT 10"):
        case.sql("GRANT CREATE ON SCHEMA public TO tenant")
        case.use_role("tenant")
        yield


@wrong("the clocks of database and machine differ", "time server")
def database_clock(case: Case, fixture: Fixture) -> Iterator[None]:
    from imgflow.doctor import database

    now = database.time.time
    case.environment.setattr(database.time, "time", lambda: now() - 60)
    yield


@wrong("the schema is of an older imgflow", "next start brings it")
def older_schema(case: Case, fixture: Fixture) -> Iterator[None]:
    migrate(case)
    case.sql("UPDATE imgflow_schema_version SET version_num = '0002'")
    yield


@wrong("the schema is of a newer imgflow", "install that")
def newer_schema(case: Case, fixture: Fixture) -> Iterator[None]:
    migrate(case)
    case.sql("UPDATE imgflow_schema_version SET version_num = '9999'")
    yield


@wrong("another `imgflow up` works on the same database", "database of its own")
def two_instances(case: Case, fixture: Fixture) -> Iterator[None]:
    other = make_engine(case.database_url, application=up_name(Path("/elsewhere")))
    with other.connect():
        yield
    other.dispose()


@wrong("`imgflow up` was started with other settings", "IMGFLOW_THUMBNAIL_SIZE")
def other_settings(case: Case, fixture: Fixture) -> Iterator[None]:
    fixture("tmp_path")
    ports = {"dagster_port": free_port(), "api_port": free_port()}
    case.values |= ports
    with only_one(case.settings):
        case.values["thumbnail_size"] = 100
        yield


@wrong("a variable is misspelt", "rename it to IMGFLOW_THUMBNAIL_SIZE")
def misspelt(case: Case, fixture: Fixture) -> Iterator[None]:
    folder = fixture("tmp_path")
    (folder / ".env").write_text("IMGFLOW_TUMBNAIL_SIZE=300\n")
    case.environment.chdir(folder)
    yield


@wrong("DAGSTER_HOME is another instance's", "unset it")
def other_home(case: Case, fixture: Fixture) -> Iterator[None]:
    case.environment.setenv("DAGSTER_HOME", str(fixture("tmp_path") / "theirs"))
    yield


@wrong("Dagster's batch size is set too small", "unset it")
def small_batches(case: Case, fixture: Fixture) -> Iterator[None]:
    case.environment.setenv("DAGSTER_EVENT_BATCH_SIZE", "1")
    yield


@wrong("`dagster.yaml` has another event log", "BulkPostgresEventLogStorage")
def other_event_log(case: Case, fixture: Fixture) -> Iterator[None]:
    configured(case, event_log_storage=None)
    yield


@wrong("no run may start", "max_concurrent_runs")
def blocked_queue(case: Case, fixture: Fixture) -> Iterator[None]:
    configured(case, run_queue={"max_concurrent_runs": 0})
    yield


@wrong("runs wait and none starts", "daemon runs")
def waiting_runs(case: Case, fixture: Fixture) -> Iterator[None]:
    project = fixture("project")
    (project.source.location.folder / "a.jpg").write_bytes(jpeg())
    (asked,) = project.tick().run_requests
    job = project.definitions.resolve_job_def(asked.job_name)
    project.instance.create_run_for_job(job, tags=dict(asked.tags))
    case.environment.setattr(diagnosis, "START_SECONDS", -1.0)
    yield


@wrong("the daemon does not run", "imgflow up")
def no_daemon(case: Case, fixture: Fixture) -> Iterator[None]:
    fixture("instance")
    yield


@wrong("somebody stopped the sensor", "start it in the UI")
def stopped_sensor(case: Case, fixture: Fixture) -> Iterator[None]:
    project = fixture("project")
    location = RegisteredCodeLocationOrigin("imgflow")
    origin = RemoteRepositoryOrigin(location, "__repository__").get_instigator_origin("arrivals")
    project.instance.add_instigator_state(
        InstigatorState(origin, InstigatorType.SENSOR, InstigatorStatus.STOPPED)
    )
    yield


@wrong("a port is taken", "IMGFLOW_API_PORT")
def taken_port(case: Case, fixture: Fixture) -> Iterator[None]:
    with serving(ok(b"")) as server:
        case.values["api_port"] = server.port
        yield


@wrong("others reach the API without a token", "IMGFLOW_API_TOKEN")
def open_api(case: Case, fixture: Fixture) -> Iterator[None]:
    case.values["api_host"] = "0.0.0.0"  # noqa: S104 - nothing listens
    yield


@wrong("the watermark's letters are in no font", "IMGFLOW_WATERMARK")
def no_letters(case: Case, fixture: Fixture) -> Iterator[None]:
    case.values["watermark_text"] = "\ue123"
    yield
