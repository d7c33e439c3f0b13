"""The store in S3 keeps the contract of stores, on moto over HTTP: a plain, a versioned and a locked bucket."""

import base64
from collections.abc import AsyncIterator, Iterator
from typing import ClassVar

import pytest

from config.settings import Archive
from storage.s3.store import S3Store
from storage.store import ArchiveStore
from tests.contract.store_contract import PAGE_SIZE, StoreContract, digest
from tests.support.clock import FakeClock
from tests.support.s3 import eyes, moto, moto_can, new_bucket


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    """One moto for all tests of this file."""
    with moto() as url:
        yield url


class TestS3Store(StoreContract):
    can = moto_can(versioned=False, object_lock=False)
    object_lock: ClassVar[bool] = False

    @pytest.fixture
    def archive(self, endpoint: str) -> Archive:
        return new_bucket(endpoint, versioned=self.can.versioned, object_lock=self.object_lock)

    @pytest.fixture
    async def store(self, archive: Archive) -> AsyncIterator[ArchiveStore]:
        store = S3Store(archive, FakeClock(), page_size=PAGE_SIZE, capabilities=self.can)
        yield store
        await store.aclose()

    async def test_probe_leaves_no_version_behind(self, store: ArchiveStore, archive: Archive) -> None:
        """Not even a delete marker of the probe stays, which a listing of objects would not show."""
        await store.probe("v1/probe/")
        listed = eyes(archive).list_object_versions(Bucket=archive.bucket)
        assert not listed.get("Versions")
        assert not listed.get("DeleteMarkers")

    async def test_others_see_what_was_written(self, store: ArchiveStore, archive: Archive) -> None:
        """An S3 client of somebody else's finds type, metadata and the SHA-256 checksum."""
        body = b"RIFF"
        await store.put("a", body, sha256=digest(body), content_type="audio/wav", metadata={"sha256": digest(body)})
        seen = eyes(archive).head_object(Bucket=archive.bucket, Key="a", ChecksumMode="ENABLED")
        assert (seen["ContentType"], seen["Metadata"]) == ("audio/wav", {"sha256": digest(body)})
        assert base64.b64decode(seen["ChecksumSHA256"]).hex() == digest(body)


class TestVersionedS3Store(TestS3Store):
    can = moto_can(versioned=True, object_lock=False)


class TestLockedS3Store(TestS3Store):
    can = moto_can(versioned=True, object_lock=True)
    object_lock = True
