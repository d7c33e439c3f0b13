"""The shipped IAM policy, enforced: all that callvault does is allowed by it, and nothing in it is superfluous.

moto's server checks policies once it has been told who may set things up; each user has a policy of its own.
"""

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError, EndpointConnectionError
from pydantic import SecretStr

from config.clock import SystemClock
from config.settings import Archive
from storage.errors import StoreRefused
from storage.s3.store import S3Store
from tests.support.valkey import free_port
from tests.support.waiting import wait_for

POLICY = json.loads((Path(__file__).parents[2] / "deploy" / "iam-policy.json").read_text())
RIGHTS = sorted({action for statement in POLICY["Statement"] for action in statement["Action"]})
BUCKET = "acme-calls"
RECORDING = "v1/recordings/source=hq/date=2026-03-01/1.wav"
BODY = b"x"
HASH = sha256(BODY).hexdigest()

FOR_LOCKS = {
    "s3:GetObjectVersion",
    *(f"s3:{verb}Object{what}" for verb in ("Get", "Put") for what in ("LegalHold", "Retention")),
}
"""Rights that only retention and holds need. moto asks for none of them: they are tried in `test_iam_on_rgw`."""
UNTOLD = {"s3:DeleteObjectVersion", "s3:GetBucketObjectLockConfiguration", *FOR_LOCKS}
"""Rights that moto does not ask for and AWS does: also to delete a version, to read the lock's configuration."""


def without(right: str | None) -> dict[str, Any]:
    """Return the shipped policy less one right."""
    statements = [{**s, "Action": [a for a in s["Action"] if a != right]} for s in POLICY["Statement"]]
    return {**POLICY, "Statement": [s for s in statements if s["Action"]]}


class Guarded:
    """An S3 that checks policies, with one bucket."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._keys: dict[str | None, tuple[str, str]] = {}

    def client(self, service: str, key: str = "setup", secret: str = "setup") -> Any:
        return boto3.client(
            service,
            endpoint_url=self.url,
            region_name="us-east-1",
            aws_access_key_id=key,
            aws_secret_access_key=secret,
            config=Config(s3={"addressing_style": "path"}, proxies={}, retries={"total_max_attempts": 1}),
        )

    def set_up(self) -> None:
        """Make the bucket and a user for each policy; after the last of these calls every request is checked."""
        self.client("s3").create_bucket(Bucket=BUCKET)
        iam = self.client("iam")
        for number, right in enumerate((None, *RIGHTS)):
            user = f"user-{number}"
            iam.create_user(UserName=user)
            iam.put_user_policy(UserName=user, PolicyName="callvault", PolicyDocument=json.dumps(without(right)))
            made = iam.create_access_key(UserName=user)["AccessKey"]
            self._keys[right] = made["AccessKeyId"], made["SecretAccessKey"]

    def keys(self, lacking: str | None = None) -> tuple[str, str]:
        return self._keys[lacking]

    @asynccontextmanager
    async def store(self, lacking: str | None = None) -> AsyncIterator[S3Store]:
        key, secret = self.keys(lacking)
        store = S3Store(
            Archive(
                bucket=BUCKET,
                endpoint_url=self.url,
                region="us-east-1",
                access_key_id=SecretStr(key),
                secret_access_key=SecretStr(secret),
            ),
            SystemClock(),
        )
        try:
            yield store
        finally:
            await store.aclose()


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    """Run the server in a process of its own: what it checks holds for all of a process."""
    port = free_port()
    free_calls = 2 + 3 * (1 + len(RIGHTS))  # the wait below, the bucket, three for each user
    with (tmp_path_factory.mktemp("moto") / "moto.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "moto.server", "-p", str(port)],
            env={**os.environ, "INITIAL_NO_AUTH_ACTION_COUNT": str(free_calls)},
            stdout=log,
            stderr=log,
        )
    try:
        server = Guarded(f"http://127.0.0.1:{port}")

        def up() -> bool:
            assert process.poll() is None
            with contextlib.suppress(EndpointConnectionError):
                server.client("s3").list_buckets()
                return True
            return False

        wait_for(up, "moto answers")
        server.set_up()
        yield server
    finally:
        process.terminate()
        process.wait(20)


async def everything(store: S3Store, name: str) -> None:
    """Do all that callvault does in a bucket; raises where a right is missing."""
    store.capabilities = await store.probe("v1/probe/")
    key = f"v1/recordings/{name}"
    await store.put(f"{key}.wav", BODY, sha256=HASH, content_type="audio/wav")
    await store.put(f"v1/gaps/{name}.json", BODY, sha256=HASH, content_type="application/json", create_only=False)
    assert await store.head(f"{key}.wav")
    assert await store.head(f"{key}.none") is None
    assert await store.get(f"{key}.wav", max_bytes=10) == BODY
    assert await store.sha256(f"{key}.wav") == HASH
    async with await store.upload(f"{key}.mp3", content_type="audio/mpeg") as upload:
        await upload.part(BODY, HASH)
        await upload.complete()
    await store.upload(f"{key}.ogg", content_type="audio/ogg")  # its process died
    assert await store.abort_stale_uploads("v1/", timedelta(0), datetime.now(UTC) + timedelta(days=1)) == 1
    assert await store.count_versions(f"{key}.wav") == 1
    assert await store.folders("v1/")
    left = [found.key async for found in store.objects("v1/probe/")]
    if left:
        raise StoreRefused(f"probe objects cannot be removed: {left}")


async def test_the_policy_allows_all_that_callvault_does(guarded: Guarded) -> None:
    """With the shipped rights the bucket is probed, written, read, listed and tidied up."""
    async with guarded.store() as store:
        await everything(store, "all")


@pytest.mark.parametrize("right", [right for right in RIGHTS if right not in UNTOLD])
async def test_no_right_is_superfluous(guarded: Guarded, right: str) -> None:
    """Less any one right, something that callvault does is refused."""
    async with guarded.store(lacking=right) as store:
        with pytest.raises(StoreRefused):
            await everything(store, right.partition(":")[2])
    async with guarded.store() as store:  # what could not be tidied up must not mislead the next test
        await store.abort_stale_uploads("v1/", timedelta(0), datetime.now(UTC) + timedelta(days=1))
        eyes = guarded.client("s3", *guarded.keys())
        async for left in store.objects("v1/probe/"):
            eyes.delete_object(Bucket=BUCKET, Key=left.key)


async def test_the_policy_lets_nothing_of_the_archive_be_removed(guarded: Guarded) -> None:
    """Recordings, sidecars, gap records and quarantine cannot be deleted, nor anything written beside the layout."""
    s3 = guarded.client("s3", *guarded.keys())
    async with guarded.store() as store:
        for key in (RECORDING, "v1/gaps/1.json", "v1/quarantine/1.1.wav"):
            await store.put(key, BODY, sha256=HASH, content_type="audio/wav")
            with pytest.raises(ClientError, match="AccessDenied"):
                s3.delete_object(Bucket=BUCKET, Key=key)
            assert await store.head(key)
        with pytest.raises(StoreRefused):
            await store.put("elsewhere/1.wav", BODY, sha256=HASH, content_type="audio/wav")
    for attempt in (
        lambda: s3.delete_bucket(Bucket=BUCKET),
        lambda: s3.put_bucket_versioning(Bucket=BUCKET, VersioningConfiguration={"Status": "Suspended"}),
        lambda: s3.delete_bucket_policy(Bucket=BUCKET),
    ):
        with pytest.raises(ClientError, match="AccessDenied"):
            attempt()
