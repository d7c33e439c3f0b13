"""The store in memory keeps the contract of stores."""

from collections.abc import Callable
from datetime import timedelta

import pytest

from config.retention import LockMode
from storage.errors import IntegrityError, ObjectMissing, StoreRefused
from storage.lock import Lock
from storage.memory import MemoryStore
from storage.store import ArchiveStore, Capabilities
from tests.contract.store_contract import StoreContract, digest
from tests.support.clock import FakeClock


class TestMemoryStore(StoreContract):
    can = Capabilities(
        create_only=True,
        create_only_multipart=True,
        checksum=True,
        payload_hash=True,
        versioned=False,
        object_lock=False,
    )

    @pytest.fixture
    async def store(self) -> ArchiveStore:
        return MemoryStore()

    @pytest.fixture
    def hide(self, store: MemoryStore) -> Callable[[str], str | None]:
        return store.hide

    async def test_wrong_hash_is_refused(self, store: ArchiveStore) -> None:
        """Bytes that do not fit their SHA-256 are not stored, neither whole nor as a part."""
        with pytest.raises(IntegrityError):
            await store.put("a", b"x", sha256=digest(b"y"), content_type="audio/wav")
        async with await store.upload("a", content_type="audio/wav") as upload:
            with pytest.raises(IntegrityError):
                await upload.part(b"x", digest(b"y"))
        assert await store.head("a") is None

    async def test_times_are_the_clocks(self) -> None:
        """Objects and the age of uploads go by the clock handed in; closing is harmless."""
        clock = FakeClock()
        store = MemoryStore(clock=clock)
        await store.put("a", b"", sha256=digest(b""), content_type="audio/wav")
        await store.upload("b", content_type="audio/wav")
        clock.advance(3600)
        info = await store.head("a")
        assert info is not None
        assert clock.now() - info.modified == timedelta(hours=1)
        assert await store.abort_stale_uploads("", timedelta(hours=1), clock.now()) == 0
        clock.advance(1)
        assert await store.abort_stale_uploads("", timedelta(hours=1), clock.now()) == 1
        await store.aclose()


class TestVersionedMemoryStore(TestMemoryStore):
    can = Capabilities(
        create_only=True,
        create_only_multipart=True,
        checksum=True,
        payload_hash=True,
        versioned=True,
        object_lock=False,
    )

    @pytest.fixture
    async def store(self) -> ArchiveStore:
        return MemoryStore(versioned=True)


class TestLockedMemoryStore(TestMemoryStore):
    can = Capabilities(
        create_only=True,
        create_only_multipart=True,
        checksum=True,
        payload_hash=True,
        versioned=True,
        object_lock=True,
    )

    @pytest.fixture
    async def store(self) -> ArchiveStore:
        return MemoryStore(object_lock=True)

    async def test_a_lock_in_the_past_is_refused(self) -> None:
        """As S3 refuses it; and so is one for a version that is not there."""
        clock = FakeClock()
        store = MemoryStore(object_lock=True, clock=clock)
        lock = Lock(LockMode.GOVERNANCE, clock.now())
        with pytest.raises(StoreRefused, match="in the past"):
            await store.put("a", b"", sha256=digest(b""), content_type="audio/wav", lock=lock)
        await store.put("a", b"", sha256=digest(b""), content_type="audio/wav")
        with pytest.raises(ObjectMissing, match="of version v9"):
            await store.protection("a", "v9")
