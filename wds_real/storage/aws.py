"""AWS features that obstore lacks, through boto3: profiles, and a list of unfinished uploads.

boto3 is optional. Without it, credentials come from environment variables and from container and instance roles.
"""

from __future__ import annotations

import importlib.util
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from wds_real.errors import UnavailableError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from wds_real.storage.retry import RetryPolicy

__all__ = ["Profile", "abort_uploads", "have_boto3"]

_REFRESH_AFTER = timedelta(minutes=10)  # obstore asks again then; boto3 renews them this long before they expire


def have_boto3() -> bool:
    """Return whether boto3 is installed."""
    return importlib.util.find_spec("boto3") is not None


class Profile:
    """The credentials and region that boto3 finds in the environment, a profile, single sign-on or an AWS role.

    Args:
        name: Name of a profile, or None for the default one.

    Raises:
        UnavailableError: there is no profile of that name, or the configuration cannot be read.
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
        """Return a function that returns current credentials, or None if there are none."""
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


def abort_uploads(url: str, config: Mapping[str, str], *, profile: str | None, policy: RetryPolicy) -> list[str]:
    """Abort all unfinished multipart uploads directly below an S3 URL, and return their names.

    Without credentials nothing is done: anonymous users cannot list uploads.

    Raises:
        UnavailableError: the uploads cannot be listed.
    """
    import botocore.config
    import botocore.exceptions

    if config.get("skip_signature", "").lower() == "true":
        return []
    bucket, prefix = _bucket_and_prefix(url)
    try:
        found = Profile(profile)
    except UnavailableError as error:
        raise UnavailableError(f"unfinished uploads cannot be listed: {error}") from None
    client = found.session.client(
        "s3",
        region_name=config.get("region", found.region),
        endpoint_url=config.get("endpoint"),
        aws_access_key_id=config.get("access_key_id"),
        aws_secret_access_key=config.get("secret_access_key"),
        aws_session_token=config.get("session_token"),
        config=botocore.config.Config(connect_timeout=policy.connect_timeout_s, read_timeout=policy.read_timeout_s),
    )
    names = []
    try:
        for page in client.get_paginator("list_multipart_uploads").paginate(Bucket=bucket, Prefix=prefix):
            for upload in page.get("Uploads", []):
                name = upload["Key"].removeprefix(prefix)
                if "/" not in name:
                    client.abort_multipart_upload(Bucket=bucket, Key=upload["Key"], UploadId=upload["UploadId"])
                    names.append(name)
    except (botocore.exceptions.BotoCoreError, botocore.exceptions.ClientError) as error:
        raise UnavailableError(f"unfinished uploads cannot be listed ({type(error).__name__}).") from None
    finally:
        client.close()
    return names


def _bucket_and_prefix(url: str) -> tuple[str, str]:
    bucket, _, prefix = url.partition("://")[2].partition("/")
    return bucket, f"{prefix}/" if prefix else ""
