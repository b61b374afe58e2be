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

    from support.s3 import S3Server

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
def begin(s3: S3Server) -> Any:
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
def test_credentials_are_renewed_in_time() -> None:
    """Their expiry, which has a time zone, is sooner than that of a role's credentials can be."""
    expires_at = credentials_of(Profile("lab"))["expires_at"]
    assert timedelta(0) < expires_at - datetime.now(UTC) <= timedelta(minutes=15)


@pytest.mark.usefixtures("profiles")
def test_a_missing_profile_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """The error names the profile of the argument, and that of the environment."""
    with pytest.raises(UnavailableError, match="there is no profile nobody"):
        Profile("nobody")
    monkeypatch.setenv("AWS_PROFILE", "somebody")
    with pytest.raises(UnavailableError, match="there is no profile somebody"):
        Profile(None)


def test_without_credentials_there_are_none() -> None:
    """No file, no variables and no metadata service: None, and no exception."""
    assert Profile(None).credentials() is None


def abort(location: Location) -> list[str]:
    return abort_uploads(location.url, location.config, profile=location.profile, policy=location.policy)


def test_unfinished_uploads_below_the_url_are_aborted(s3: S3Server, begin: Any) -> None:
    """Those directly below the prefix are; those deeper, beside it, or below a longer prefix are not."""
    ours, others = ["aws/set/a.tar", "aws/set/a.tar", "aws/set/b.tar"], ["aws/set/deep/c.tar", "aws/set2/d", "aws/e"]
    for key in (*ours, *others):
        begin.create_multipart_upload(Bucket="test", Key=key)
    location = Location.parse("s3://test/aws/set/", s3.options)
    assert sorted(abort(location)) == ["a.tar", "a.tar", "b.tar"]
    assert unfinished(begin, "aws/") == sorted(others)
    assert abort(location) == []


def test_a_finished_object_stays(s3: S3Server, begin: Any) -> None:
    """Aborting an upload of the same name does not remove it."""
    s3.put("test", "aws-whole/a", b"whole")
    begin.create_multipart_upload(Bucket="test", Key="aws-whole/a")
    assert abort(Location.parse("s3://test/aws-whole", s3.options)) == ["a"]
    assert s3.request("GET", "/test/aws-whole/a")[2] == b"whole"


def test_anonymous_users_abort_nothing(s3: S3Server) -> None:
    """Without a signature, uploads are not listed."""
    options = {"endpoint": s3.endpoint, "skip_signature": "true", "region": "us-east-1"}
    assert abort(Location.parse("s3://public/aws", options)) == []


def test_uploads_are_aborted_with_the_credentials_of_a_profile(
    s3: S3Server, begin: Any, profiles: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without credentials among the options, those of the profile and the endpoint of the environment are used."""
    profiles.write_text(f"[lab]\naws_access_key_id={s3.access_key}\naws_secret_access_key={s3.secret_key}\n")
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3.endpoint)
    begin.create_multipart_upload(Bucket="test", Key="aws-profile/a")
    location = Location.parse("s3://test/aws-profile", {"profile": "lab", "region": "us-east-1"})
    assert abort(location) == ["a"]
