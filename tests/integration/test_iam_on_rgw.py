"""The shipped policies on a real server with Object Lock: what they allow, and that nothing in them is superfluous.

RGW checks the rights about locks, holds and versions, which moto does not. The policy stands on the bucket, for a
user who has no other right.
"""

import json
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError
from pydantic import SecretStr

from config.clock import SystemClock
from config.retention import LockMode
from config.settings import Archive
from storage.errors import StoreRefused, VersionLocked
from storage.lock import Lock
from storage.s3.store import S3Store
from storage.store import Protection
from tests.support.rgw import GUEST, GUEST_KEY, GUEST_SECRET
from tests.support.s3 import eyes, new_bucket, rgw_can

DEPLOY = Path(__file__).parents[2] / "deploy"
ARCHIVING, DESTRUCTION = (
    json.loads((DEPLOY / f"{name}.json").read_text())["Statement"] for name in ("iam-policy", "iam-policy-destruction")
)
RIGHTS = sorted({action for statement in ARCHIVING for action in statement["Action"]})
ALL = {*RIGHTS, "s3:BypassGovernanceRetention", "s3:PutBucketObjectLockConfiguration", "s3:PutBucketVersioning"}
"""All rights that are tried here, in vain or not. RGW knows no `NotAction`."""
UNTOLD = {"s3:DeleteObject"}
"""What RGW does not ask for where a version is named, nor does AWS; moto does."""
BODY = b"RIFF"
HASH = sha256(BODY).hexdigest()
FOLDER = "v1/recordings/source=hq/date=2026-03-01/"
SHORT = Lock(LockMode.GOVERNANCE, datetime.now(UTC).replace(microsecond=0) + timedelta(days=2))
LONG = Lock(LockMode.GOVERNANCE, SHORT.until + timedelta(days=1))


def allow(archive: Archive, statements: Iterable[dict[str, Any]], *, without: str | None = None) -> Archive:
    """Have the bucket's policy grant that to the guest, less one right; return the settings to use as the guest.

    All else is denied in so many words: RGW gives whoever wrote an object every right to it, which AWS does not.
    """
    reach: dict[str, set[str]] = {}
    for statement in statements:
        resources = statement["Resource"] if isinstance(statement["Resource"], list) else [statement["Resource"]]
        for action in set(statement["Action"]) - {without}:
            reach.setdefault(action, set()).update(told.replace("acme-calls", archive.bucket) for told in resources)
    bucket = f"arn:aws:s3:::{archive.bucket}"
    rules: list[dict[str, Any]] = [
        {"Effect": "Deny", "Action": sorted(ALL - set(reach)), "Resource": [bucket, f"{bucket}/*"]},
        *({"Effect": "Allow", "Action": [right], "Resource": sorted(there)} for right, there in reach.items()),
        *({"Effect": "Deny", "Action": [right], "NotResource": sorted(there)} for right, there in reach.items()),
    ]
    told = [{**rule, "Principal": {"AWS": [f"arn:aws:iam:::user/{GUEST}"]}} for rule in rules]
    eyes(archive).put_bucket_policy(
        Bucket=archive.bucket, Policy=json.dumps({"Version": "2012-10-17", "Statement": told})
    )
    return archive.model_copy(
        update={"access_key_id": SecretStr(GUEST_KEY), "secret_access_key": SecretStr(GUEST_SECRET)}
    )


@asynccontextmanager
async def opened(archive: Archive, *, probed: bool = True) -> AsyncIterator[S3Store]:
    """Open a store, with what is known of RGW unless it is to find out itself."""
    can = rgw_can(versioned=True, object_lock=True)
    store = S3Store(archive, SystemClock(), capabilities=can if probed else None)
    try:
        yield store
    finally:
        await store.aclose()


async def put(store: S3Store, name: str, *, lock: Lock | None = None, legal_hold: bool = False) -> str | None:
    """Write an object among the recordings; return its version."""
    written = await store.put(
        f"{FOLDER}{name}", BODY, sha256=HASH, content_type="audio/wav", lock=lock, legal_hold=legal_hold
    )
    return written.version_id


async def everything(store: S3Store) -> None:
    """Do all that callvault does to archive, hold, audit and index; raises where a right is missing."""
    if not (await store.ensure_probed()).object_lock:
        raise StoreRefused("whether the bucket can lock cannot be told")
    version = await put(store, "1.wav", lock=SHORT, legal_hold=True)
    assert await store.protection(f"{FOLDER}1.wav", version) == Protection(SHORT, legal_hold=True)
    async with await store.upload(f"{FOLDER}2.wav", content_type="audio/wav", lock=SHORT, legal_hold=True) as upload:
        await upload.part(BODY, HASH)
        await upload.complete()
    assert await store.extend_lock(f"{FOLDER}1.wav", version, LONG) == LONG
    await store.set_legal_hold(f"{FOLDER}1.wav", version, on=False)
    assert await store.get(f"{FOLDER}1.wav", max_bytes=10) == BODY
    assert await store.head(f"{FOLDER}none") is None
    for _ in range(2):
        await store.put("v1/index/a", BODY, sha256=HASH, content_type="text/plain", create_only=False)
    async for found in store.versions("v1/index/"):
        if not found.latest:
            await store.delete_version(found.key, found.version_id)
    assert await store.count_versions("v1/index/a") == 1
    assert [found.key async for found in store.objects(FOLDER)] == [f"{FOLDER}1.wav", f"{FOLDER}2.wav"]
    await store.upload(f"{FOLDER}3.wav", content_type="audio/wav")  # its process died
    assert await store.abort_stale_uploads("v1/", timedelta(0), datetime.now(UTC) + timedelta(days=1)) == 1
    if left := [found.key async for found in store.versions("v1/probe/")]:
        raise StoreRefused(f"probe objects cannot be removed: {left}")


@pytest.fixture
def archive(rgw: str) -> Archive:
    """Return a fresh bucket with Object Lock."""
    return new_bucket(rgw, object_lock=True)


async def test_the_policy_allows_all_but_destruction(archive: Archive) -> None:
    """All that callvault does to archive and hold works, and nothing of it can be destroyed or let go."""
    async with opened(allow(archive, ARCHIVING), probed=False) as store:
        await everything(store)
        version = await put(store, "free.wav")
        with pytest.raises(StoreRefused, match="Grant s3:DeleteObjectVersion"):
            await store.delete_version(f"{FOLDER}free.wav", version)
        assert await store.head(f"{FOLDER}free.wav")


@pytest.mark.parametrize("right", [right for right in RIGHTS if right not in UNTOLD])
async def test_no_right_is_superfluous(archive: Archive, right: str) -> None:
    """Less any one right, something that callvault does is refused."""
    async with opened(allow(archive, ARCHIVING, without=right), probed=False) as store:
        with pytest.raises(StoreRefused):
            await everything(store)


async def test_the_second_policy_lets_go_what_nothing_protects(archive: Archive) -> None:
    """Free versions are destroyed, locked and held ones stay; not even the header helps that asks to bypass a lock."""
    guest = allow(archive, [*ARCHIVING, *DESTRUCTION])
    async with opened(guest) as store:
        await store.delete_version(f"{FOLDER}free.wav", await put(store, "free.wav"))
        assert await store.head(f"{FOLDER}free.wav") is None
        for name, lock, hold in (("locked.wav", SHORT, False), ("held.wav", None, True)):
            version = await put(store, name, lock=lock, legal_hold=hold)
            with pytest.raises(VersionLocked, match="governance until" if lock else "legal hold"):
                await store.delete_version(f"{FOLDER}{name}", version)
            with pytest.raises(ClientError, match="AccessDenied"):
                eyes(guest).delete_object(
                    Bucket=guest.bucket, Key=f"{FOLDER}{name}", VersionId=version, BypassGovernanceRetention=True
                )
            assert await store.head(f"{FOLDER}{name}")


async def test_with_both_policies_the_proof_of_it_stays(archive: Archive) -> None:
    """Matters, certificates and notes cannot be destroyed, and nothing can be hidden behind a delete marker."""
    guest = allow(archive, [*ARCHIVING, *DESTRUCTION])
    async with opened(guest) as store:
        for key in ("v1/holds/a.json", "v1/certificates/date=2026-03-01/a.json", "v1/destroyed/source=hq/a.json"):
            written = await store.put(key, BODY, sha256=HASH, content_type="application/json")
            with pytest.raises(StoreRefused, match="Grant s3:DeleteObjectVersion"):
                await store.delete_version(key, written.version_id)
        await put(store, "1.wav")
        with pytest.raises(ClientError, match="AccessDenied"):
            eyes(guest).delete_object(Bucket=guest.bucket, Key=f"{FOLDER}1.wav")
        assert await store.head(f"{FOLDER}1.wav")
