"""What boto3 is asked for: profiles that become credentials, and uploads that were left unfinished."""

from __future__ import annotations

import sys
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import boto3
import pytest

from wds_real.errors import UnavailableError
from wds_real.storage.aws import Profile, abort_uploads, have_boto3
from wds_real.storage.url import Location

if TYPE_CHECKING:
    from pathlib import Path

    from support import servers

CREDENTIALS = """
[default]
aws_access_key_id = usual-key
aws_secret_access_key = usual-secret

[lab]
aws_access_key_id = lab-key
aws_secret_access_key = lab-secret
aws_session_token = lab-token
region = eu-lab-1
"""


@pytest.fixture
def profiles(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A credentials file with a usual profile, and one with token and region."""
    path = tmp_path / "credentials"
    path.write_text(CREDENTIALS)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(path))
    return path


def credentials_of(profile: Profile) -> dict[str, Any]:
    provide = profile.credentials()
    assert provide is not None
    return provide()


@pytest.fixture
def begin(s3: servers.S3Server) -> Any:
    """Return boto3's client of the S3 server, with which to begin uploads and to see which there are."""
    return boto3.client(
        "s3",
        endpoint_url=s3.endpoint,
        aws_access_key_id=s3.access_key,
        aws_secret_access_key=s3.secret_key,
        region_name="us-east-1",
    )


def unfinished(client: Any, prefix: str) -> list[str]:
    found = client.list_multipart_uploads(Bucket="test", Prefix=prefix).get("Uploads", [])
    return sorted(upload["Key"] for upload in found)


def test_boto3_may_be_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is looked for, and not imported to find out."""
    assert have_boto3()
    monkeypatch.setitem(sys.modules, "boto3", None)
    assert not have_boto3()


@pytest.mark.usefixtures("profiles")
def test_a_profile_is_credentials_and_a_region() -> None:
    """By name, with its token; without a name the usual one."""
    lab, usual = Profile("lab"), Profile(None)
    found = credentials_of(lab)
    assert lab.region == "eu-lab-1"
    assert usual.region is None
    assert (found["access_key_id"], found["secret_access_key"], found["token"]) == (
        "lab-key",
        "lab-secret",
        "lab-token",
    )
    assert credentials_of(usual)["access_key_id"] == "usual-key"


@pytest.mark.usefixtures("profiles")
def test_the_environment_chooses_a_profile(monkeypatch: pytest.MonkeyPatch) -> None:
    """AWS_PROFILE counts, and credentials in the environment count more."""
    monkeypatch.setenv("AWS_PROFILE", "lab")
    assert credentials_of(Profile(None))["access_key_id"] == "lab-key"
    monkeypatch.delenv("AWS_PROFILE")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "env-key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "env-secret")
    assert credentials_of(Profile(None))["access_key_id"] == "env-key"


@pytest.mark.usefixtures("profiles")
def test_credentials_are_asked_for_again_in_time() -> None:
    """They are said to end before those of a role can, and with a zone, as the client library wants it."""
    expires_at = credentials_of(Profile("lab"))["expires_at"]
    assert timedelta(0) < expires_at - datetime.now(UTC) <= timedelta(minutes=15)


@pytest.mark.usefixtures("profiles")
def test_a_profile_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether it was asked for, or the environment names it."""
    with pytest.raises(UnavailableError, match="there is no profile nobody"):
        Profile("nobody")
    monkeypatch.setenv("AWS_PROFILE", "somebody")
    with pytest.raises(UnavailableError, match="there is no profile somebody"):
        Profile(None)


def test_without_credentials_there_are_none() -> None:
    """No file, no variables and no metadata service: None, and no exception."""
    assert Profile(None).credentials() is None


def test_unfinished_uploads_are_aborted_where_they_are_ours(s3: servers.S3Server, begin: Any) -> None:
    """Those directly below the prefix, and none deeper, beside it, or with a name that only begins like it."""
    ours, others = ["aws/set/a.tar", "aws/set/a.tar", "aws/set/b.tar"], ["aws/set/deep/c.tar", "aws/set2/d", "aws/e"]
    for key in (*ours, *others):
        begin.create_multipart_upload(Bucket="test", Key=key)
    location = Location.parse("s3://test/aws/set/", s3.options)
    assert sorted(abort_uploads(location)) == ["a.tar", "a.tar", "b.tar"]
    assert unfinished(begin, "aws/") == sorted(others)
    assert list(abort_uploads(location)) == []


def test_a_finished_object_is_not_an_upload(s3: servers.S3Server, begin: Any) -> None:
    """What was written whole stays, also under the name of an upload that is aborted."""
    s3.put("test", "aws-whole/a", b"whole")
    begin.create_multipart_upload(Bucket="test", Key="aws-whole/a")
    assert list(abort_uploads(Location.parse("s3://test/aws-whole", s3.options))) == ["a"]
    assert s3.request("GET", "/test/aws-whole/a")[2] == b"whole"


def test_whoever_has_no_name_aborts_nothing(s3: servers.S3Server) -> None:
    """A public bucket is not asked for others' uploads."""
    options = {"endpoint": s3.endpoint, "skip_signature": "true", "region": "us-east-1"}
    assert list(abort_uploads(Location.parse("s3://public/aws", options))) == []


def test_a_profile_s_credentials_abort_uploads(
    s3: servers.S3Server, begin: Any, profiles: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without credentials among the options, those of the profile and the endpoint of the environment are used."""
    profiles.write_text(f"[lab]\naws_access_key_id={s3.access_key}\naws_secret_access_key={s3.secret_key}\n")
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3.endpoint)
    begin.create_multipart_upload(Bucket="test", Key="aws-profile/a")
    location = Location.parse("s3://test/aws-profile", {"profile": "lab", "region": "us-east-1"})
    assert list(abort_uploads(location)) == ["a"]
