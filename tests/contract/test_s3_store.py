"""The store in S3 keeps the contract of stores: on moto over HTTP, and on a real server, Ceph RGW.

Each with a plain, a versioned and a locked bucket. Where a server falls short, `can` and the other expectations of
its classes say so and are asserted: a server that begins to do better, or worse, fails here. What else the two do
otherwise than AWS is in `test_server_gaps`.
"""

import base64
from collections.abc import AsyncIterator, Callable, Iterator
from typing import ClassVar

import pytest

from config.clock import Clock, SystemClock
from config.settings import Archive
from storage.errors import StoreUnavailable
from storage.s3.store import S3Store
from storage.store import ArchiveStore
from tests.contract.store_contract import PAGE_SIZE, StoreContract, digest
from tests.support.clock import FakeClock
from tests.support.s3 import eyes, moto, moto_can, new_bucket, rgw_can


@pytest.fixture(scope="module")
def moto_url() -> Iterator[str]:
    """One moto for all tests of this file."""
    with moto() as url:
        yield url


class S3Contract(StoreContract):
    """Subclass, override `endpoint`, and say what the server tells and which clock it believes."""

    tells_checksum: ClassVar[bool]
    """Whether HEAD reports the SHA-256 that came with the object."""
    clock: ClassVar[type[Clock]]

    @pytest.fixture
    def endpoint(self) -> str:
        raise NotImplementedError

    @pytest.fixture
    def archive(self, endpoint: str) -> Archive:
        return new_bucket(endpoint, versioned=self.can.versioned, object_lock=bool(self.can.object_lock))

    @pytest.fixture
    async def store(self, archive: Archive) -> AsyncIterator[ArchiveStore]:
        store = S3Store(archive, self.clock(), page_size=PAGE_SIZE, capabilities=self.can)
        yield store
        await store.aclose()

    @pytest.fixture
    def hide(self, archive: Archive) -> Callable[[str], str | None]:
        def hiding(key: str) -> str | None:
            deleted = eyes(archive).delete_object(Bucket=archive.bucket, Key=key)
            return str(deleted["VersionId"]) if self.can.versioned else None

        return hiding

    async def test_probe_leaves_no_version_behind(self, store: ArchiveStore, archive: Archive) -> None:
        """Not even a delete marker of the probe stays, which a listing of objects would not show."""
        await store.probe("v1/probe/")
        listed = eyes(archive).list_object_versions(Bucket=archive.bucket)
        assert not listed.get("Versions")
        assert not listed.get("DeleteMarkers")

    async def test_others_see_what_was_written(self, store: ArchiveStore, archive: Archive) -> None:
        """An S3 client of somebody else's finds type, metadata and, from a server that keeps it, the checksum."""
        body = b"RIFF"
        await store.put("a", body, sha256=digest(body), content_type="audio/wav", metadata={"sha256": digest(body)})
        seen = eyes(archive).head_object(Bucket=archive.bucket, Key="a", ChecksumMode="ENABLED")
        assert (seen["ContentType"], seen["Metadata"]) == ("audio/wav", {"sha256": digest(body)})
        kept = base64.b64encode(bytes.fromhex(digest(body))).decode() if self.tells_checksum else None
        assert seen.get("ChecksumSHA256") == kept


class TestMoto(S3Contract):
    can = moto_can(versioned=False, object_lock=False)
    lists_markers_apart = True
    nothing_to_hold = StoreUnavailable  # it stumbles over itself, with a 500
    tells_checksum = True
    clock = FakeClock

    @pytest.fixture
    def endpoint(self, moto_url: str) -> str:
        return moto_url


class TestVersionedMoto(TestMoto):
    can = moto_can(versioned=True, object_lock=False)
    hides_folders = False


class TestLockedMoto(TestVersionedMoto):
    can = moto_can(versioned=True, object_lock=True)


class TestRgw(S3Contract):
    can = rgw_can(versioned=False, object_lock=False)
    tells_checksum = False
    clock = SystemClock  # a real server refuses what was signed long ago

    @pytest.fixture
    def endpoint(self, rgw: str) -> str:
        return rgw


class TestVersionedRgw(TestRgw):
    can = rgw_can(versioned=True, object_lock=False)


class TestLockedRgw(TestRgw):
    can = rgw_can(versioned=True, object_lock=True)
