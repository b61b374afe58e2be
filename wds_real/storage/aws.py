"""What boto3 knows of AWS and the client library does not: profiles, and uploads that were left unfinished.

boto3 is optional. Without it credentials come from environment variables, container and instance roles.
"""

from __future__ import annotations

import importlib.util
import os
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from wds_real.errors import UnavailableError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from wds_real.storage.url import Location

__all__ = ["Profile", "abort_uploads", "endpoint_from_environment", "have_boto3"]

_REFRESH_AFTER = timedelta(minutes=10)  # boto3 renews its credentials at least this long before they expire


def endpoint_from_environment() -> str | None:
    """Return the S3 endpoint that AWS's own variables name, or None for Amazon's."""
    return os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL") or None


def have_boto3() -> bool:
    """Return whether boto3 is installed."""
    return importlib.util.find_spec("boto3") is not None


class Profile:
    """The credentials, region and endpoint that boto3 finds: environment, profile, sign-on, container, instance.

    Args:
        name: Of a profile, or None for the usual one.

    Raises:
        UnavailableError: there is no profile of that name, or what is configured cannot be read.
    """

    def __init__(self, name: str | None) -> None:
        import boto3
        import botocore.exceptions

        try:
            self.session = boto3.Session(profile_name=name)
            self.region: str | None = self.session.region_name
            self._credentials = self.session.get_credentials()
        except botocore.exceptions.ProfileNotFound as error:
            missing = error.kwargs.get("profile", name)
            raise UnavailableError(f"there is no profile {missing}. Check ~/.aws/config and AWS_PROFILE.") from None
        except botocore.exceptions.BotoCoreError as error:
            raise UnavailableError(
                f"the credentials that are configured cannot be read ({type(error).__name__}). Check ~/.aws and AWS's "
                "environment variables."
            ) from None

    def credentials(self) -> Callable[[], dict[str, Any]] | None:
        """Return a function that gives credentials as they are then, or None if there are none."""
        found = self._credentials
        if found is None:
            return None

        def current() -> dict[str, Any]:
            frozen = found.get_frozen_credentials()
            return {
                "access_key_id": frozen.access_key,
                "secret_access_key": frozen.secret_key,
                "token": frozen.token,
                "expires_at": datetime.now(UTC) + _REFRESH_AFTER,
            }

        return current


def abort_uploads(location: Location) -> Iterator[str]:
    """Abort all unfinished multipart uploads directly below a location, and yield the names they were for."""
    import botocore.config
    import botocore.exceptions

    config, bucket, prefix = location.config, *_bucket_and_prefix(location.url)
    anonymous = config.get("skip_signature", "").lower() == "true"
    if anonymous:  # whoever may write there without a name may not list what others write
        return
    try:
        profile = Profile(location.profile)
    except UnavailableError as error:
        raise UnavailableError(f"unfinished uploads cannot be listed: {error}") from None
    client = profile.session.client(
        "s3",
        region_name=config.get("region", profile.region),
        endpoint_url=config.get("endpoint"),
        aws_access_key_id=config.get("access_key_id"),
        aws_secret_access_key=config.get("secret_access_key"),
        aws_session_token=config.get("session_token"),
        config=botocore.config.Config(
            connect_timeout=location.policy.connect_timeout_s, read_timeout=location.policy.read_timeout_s
        ),
    )
    try:
        for page in client.get_paginator("list_multipart_uploads").paginate(Bucket=bucket, Prefix=prefix):
            for upload in page.get("Uploads", []):
                name = upload["Key"].removeprefix(prefix)
                if "/" not in name:
                    client.abort_multipart_upload(Bucket=bucket, Key=upload["Key"], UploadId=upload["UploadId"])
                    yield name
    except (botocore.exceptions.BotoCoreError, botocore.exceptions.ClientError) as error:
        raise UnavailableError(f"unfinished uploads cannot be listed ({type(error).__name__}).") from None
    finally:
        client.close()


def _bucket_and_prefix(url: str) -> tuple[str, str]:
    bucket, _, prefix = url.partition("://")[2].partition("/")
    return bucket, f"{prefix}/" if prefix else ""
