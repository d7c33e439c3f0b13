"""What every archive store promises. A store passes by a subclass with a `store` fixture.

The store's listings are cut into pages of three, so that a handful of objects makes several pages.
"""

import asyncio
import hashlib
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import ClassVar

import pytest

from config.retention import LockMode
from storage.errors import (
    AlreadyExists,
    IntegrityError,
    NoObjectLock,
    ObjectMissing,
    StoreError,
    StoreRefused,
    StoreUnavailable,
    VersionLocked,
)
from storage.lock import Lock
from storage.store import ArchiveStore, Capabilities, Protection, Upload, Written

PAGE_SIZE = 3
MIB5 = 5 * 1024 * 1024
NEVER = datetime(2000, 1, 1, tzinfo=UTC)
SOMEDAY = datetime(2100, 1, 1, tzinfo=UTC)
DAY = timedelta(days=1)
IN_TWO_DAYS = datetime.now(UTC).replace(microsecond=0) + 2 * DAY
SHORT, LONG = Lock(LockMode.GOVERNANCE, IN_TWO_DAYS), Lock(LockMode.GOVERNANCE, IN_TWO_DAYS + DAY)
FIRM = Lock(LockMode.COMPLIANCE, IN_TWO_DAYS)


def digest(body: bytes) -> str:
    """Return the SHA-256 in hex."""
    return hashlib.sha256(body).hexdigest()


async def put(
    store: ArchiveStore,
    key: str,
    body: bytes = b"RIFF",
    *,
    create_only: bool = True,
    lock: Lock | None = None,
    legal_hold: bool = False,
) -> Written:
    """Write one object."""
    return await store.put(
        key,
        body,
        sha256=digest(body),
        content_type="audio/wav",
        create_only=create_only,
        lock=lock,
        legal_hold=legal_hold,
    )


async def put_in_parts(store: ArchiveStore, key: str, lock: Lock | None = None, *, legal_hold: bool = False) -> Written:
    """Write one object in parts."""
    async with await store.upload(key, content_type="audio/wav", lock=lock, legal_hold=legal_hold) as upload:
        await upload.part(b"RIFF", digest(b"RIFF"))
        return await upload.complete()


async def keys(store: ArchiveStore, prefix: str = "", start_after: str = "") -> list[str]:
    """Return all keys that are listed."""
    return [found.key async for found in store.objects(prefix, start_after=start_after)]


async def left_over(store: ArchiveStore) -> int:
    """Return how many uploads were neither completed nor aborted (and abort them)."""
    return await store.abort_stale_uploads("", DAY, SOMEDAY)


async def versions(store: ArchiveStore, prefix: str = "") -> list[tuple[str, str | None, bool]]:
    """Return key, version and whether it is the latest of all versions that are listed."""
    return [(found.key, found.version_id, found.latest) async for found in store.versions(prefix)]


async def lock_of(store: ArchiveStore, key: str, version_id: str | None) -> Lock | None:
    """Return the lock of a version."""
    return (await store.protection(key, version_id)).lock


class StoreContract:
    """Subclass, override `store`, and say what a probe must find."""

    can: ClassVar[Capabilities]
    lists_markers_apart: ClassVar[bool] = False
    """Whether delete markers are listed after all versions of a page, with times too coarse to bring them in order."""
    hides_folders: ClassVar[bool] = True
    """Whether a folder is not listed when all in it is hidden."""
    nothing_to_hold: ClassVar[type[StoreError]] = ObjectMissing
    """What is said when something is to be held that is not there."""

    @pytest.fixture
    async def store(self) -> ArchiveStore:
        raise NotImplementedError

    @pytest.fixture
    def hide(self, store: ArchiveStore) -> Callable[[str], str | None]:
        """Return a function that deletes a key without naming a version, and returns the delete marker's."""
        raise NotImplementedError

    @pytest.mark.parametrize("size", [0, 1, 48_000, MIB5 - 1, MIB5, MIB5 + 1])
    async def test_what_was_put_is_read_back(self, store: ArchiveStore, size: int) -> None:
        """Bytes, size and hash come back as they were written, empty and large objects included."""
        body = b"RIFF"[:size] + b"x" * max(0, size - 4)
        written = await put(store, "v1/a.wav", body)
        assert (written.key, written.bytes) == ("v1/a.wav", size)
        assert await store.get("v1/a.wav", max_bytes=size) == body
        assert await store.sha256("v1/a.wav") == digest(body)
        info = await store.head("v1/a.wav")
        assert info is not None
        assert (info.bytes, info.version_id) == (size, written.version_id)

    async def test_metadata_and_time_come_back(self, store: ArchiveStore) -> None:
        """Head gives the metadata as written, and an aware time."""
        await store.put("a", b"x", sha256=digest(b"x"), content_type="audio/wav", metadata={"sha256": digest(b"x")})
        info = await store.head("a")
        assert info is not None
        assert dict(info.metadata) == {"sha256": digest(b"x")}
        assert info.modified.utcoffset() == timedelta(0)

    @pytest.mark.parametrize("metadata", [{"note": "Grüezi"}, {"note": "a\r\nb: c"}, {"Note": "x"}, {"note": ""}])
    async def test_metadata_that_would_not_survive_are_refused(
        self, store: ArchiveStore, metadata: dict[str, str]
    ) -> None:
        """Metadata that a header cannot carry are a mistake of the caller's, for one request and for uploads."""
        with pytest.raises(ValueError, match=r"(?i)note"):
            await store.put("a", b"x", sha256=digest(b"x"), content_type="audio/wav", metadata=metadata)
        with pytest.raises(ValueError, match=r"(?i)note"):
            await store.upload("a", content_type="audio/wav", metadata=metadata)

    async def test_versions_are_reported_where_there_are_any(self, store: ArchiveStore) -> None:
        """A version id is told exactly where the bucket keeps versions."""
        written = await put(store, "a")
        assert (written.version_id is not None) is self.can.versioned

    async def test_create_only_keeps_what_is_there(self, store: ArchiveStore) -> None:
        """A second create-only write is refused by name and changes nothing."""
        await put(store, "a", b"first")
        with pytest.raises(AlreadyExists) as refused:
            await put(store, "a", b"other")
        assert refused.value.key == "a"
        assert await store.get("a", max_bytes=100) == b"first"
        assert await store.count_versions("a") == 1

    async def test_overwriting_is_possible_when_asked_for(self, store: ArchiveStore) -> None:
        """Without create_only the newer bytes are current; a versioned bucket keeps both."""
        await put(store, "a", b"first", create_only=False)
        await put(store, "a", b"other", create_only=False)
        assert await store.get("a", max_bytes=100) == b"other"
        assert await store.count_versions("a") == (2 if self.can.versioned else 1)

    async def test_of_many_writers_one_wins(self, store: ArchiveStore) -> None:
        """32 create-only writes of one key at once: one is told that it wrote, the others that it is there.

        Where the store cannot refuse the others, nobody is told to have written alone who did not.
        """
        outcomes = await asyncio.gather(
            *(put(store, "a", f"writer {n}".encode()) for n in range(32)), return_exceptions=True
        )
        won = [n for n, outcome in enumerate(outcomes) if isinstance(outcome, Written)]
        refused = sum(isinstance(outcome, AlreadyExists) for outcome in outcomes)
        met = sum(isinstance(outcome, IntegrityError) for outcome in outcomes)
        assert len(won) + refused + met == 32
        versions = await store.count_versions("a")
        if self.can.create_only:
            assert (len(won), met, versions) == (1, 0, 1)
            assert await store.get("a", max_bytes=100) == f"writer {won[0]}".encode()
        else:
            assert versions == len(won) + met
            assert len(won) <= 1
            assert met or versions == 1

    async def test_what_is_missing_is_missing(self, store: ArchiveStore) -> None:
        """Head says None, reading raises, no version is counted."""
        assert await store.head("a") is None
        with pytest.raises(ObjectMissing):
            await store.get("a", max_bytes=1)
        with pytest.raises(ObjectMissing):
            await store.sha256("a")
        assert await store.count_versions("a") == 0

    async def test_no_more_is_read_than_allowed(self, store: ArchiveStore) -> None:
        """An object larger than the caller can hold raises instead of filling memory."""
        await put(store, "a", b"12345")
        with pytest.raises(IntegrityError):
            await store.get("a", max_bytes=4)

    async def test_listing_is_in_byte_order_over_pages(self, store: ArchiveStore) -> None:
        """All objects below the prefix and no others, ordered by bytes, sizes included, however many pages."""
        names = ["b", "a~20b", "a", "B", "é", "a-1", "a.1", "~", "日"]
        for number, name in enumerate(names):
            await put(store, f"p/{name}", b"x" * number)
        await put(store, "q/other")
        found = [(o.key, o.bytes) async for o in store.objects("p/")]
        expected = sorted(((f"p/{name}", number) for number, name in enumerate(names)), key=lambda row: row[0].encode())
        assert found == expected
        assert await keys(store, "p/", "p/a") == [key for key, _ in expected if key.encode() > b"p/a"]
        assert await keys(store, "nothing/") == []

    @pytest.mark.parametrize(
        "key", ["v1/a~2Fb~.wav", "v 1/a+b&c=d%20?e#f", "v1/'\"<x>;:@,$!*()[]{}|\\^`", "v1//../a/./", "voice/é日🙂"]
    )
    async def test_odd_keys_stay_as_they_are(self, store: ArchiveStore, key: str) -> None:
        """A key is written, read, listed and found again exactly, whatever it is made of."""
        await put(store, key, key.encode())
        assert await store.get(key, max_bytes=1000) == key.encode()
        assert await keys(store) == [key]
        assert await store.count_versions(key) == 1

    async def test_folders_are_the_next_segments(self, store: ArchiveStore) -> None:
        """The distinct next path segments, as full prefixes, in order, over pages and after a start."""
        for day in range(1, 9):
            for name in ("a", "b"):
                await put(store, f"v1/source=hq/date=2026-03-0{day}/{name}.json")
        await put(store, "v1/source=hq/no-folder.json")
        days = [f"v1/source=hq/date=2026-03-0{day}/" for day in range(1, 9)]
        assert await store.folders("v1/source=hq/") == days
        assert await store.folders("v1/source=hq/", start_after=days[3]) == days[4:]
        assert await store.folders("v1/") == ["v1/source=hq/"]
        assert await store.folders("v2/") == []

    async def test_versions_are_those_of_one_key(self, store: ArchiveStore) -> None:
        """Keys that begin alike are not counted, more versions than a page are."""
        for key in ("a", "aa", "a.json"):
            await put(store, key)
        for number in range(5):
            await put(store, "a", f"{number}".encode(), create_only=False)
        assert await store.count_versions("a") == (6 if self.can.versioned else 1)
        assert await store.count_versions("aa") == 1

    @pytest.mark.parametrize("sizes", [(), (0,), (10,), (MIB5, 0), (MIB5, MIB5 + 1, 7)])
    async def test_parts_become_one_object(self, store: ArchiveStore, sizes: tuple[int, ...]) -> None:
        """An upload is invisible until it is complete, then it is all of its parts in order."""
        parts = [bytes([65 + n]) * size for n, size in enumerate(sizes)]
        async with await store.upload("v1/a~.wav", content_type="audio/wav", metadata={"vendor": "x"}) as upload:
            for part in parts:
                await upload.part(part, digest(part))
            assert await store.head("v1/a~.wav") is None
            written = await upload.complete()
        info = await store.head("v1/a~.wav")
        assert info is not None
        assert written == Written("v1/a~.wav", sum(sizes), info.version_id)
        assert (written.version_id is not None) is self.can.versioned
        assert dict(info.metadata) == {"vendor": "x"}
        assert await store.sha256("v1/a~.wav") == digest(b"".join(parts))
        assert await left_over(store) == 0

    async def test_completing_is_create_only(self, store: ArchiveStore) -> None:
        """An upload whose key was taken meanwhile is refused, and nothing of it stays."""
        async with await store.upload("a", content_type="audio/wav") as upload:
            await upload.part(b"large", digest(b"large"))
            await put(store, "a", b"first")
            with pytest.raises(AlreadyExists):
                await upload.complete()
        assert await store.get("a", max_bytes=100) == b"first"
        assert await store.count_versions("a") == 1
        assert await left_over(store) == 0

    async def test_small_parts_are_refused(self, store: ArchiveStore) -> None:
        """A part below 5 MiB that is not the last is refused in the end, and nothing becomes visible."""
        async with await store.upload("a", content_type="audio/wav") as upload:
            await upload.part(b"1", digest(b"1"))
            await upload.part(b"2", digest(b"2"))
            with pytest.raises(StoreRefused):
                await upload.complete()
        assert await store.head("a") is None
        assert await left_over(store) == 0

    @pytest.mark.parametrize("parts", [0, 1])
    async def test_abort_leaves_nothing(self, store: ArchiveStore, parts: int) -> None:
        """An aborted upload is gone, aborting twice is fine, and using it afterwards says that it is over."""
        upload = await store.upload("a", content_type="audio/wav")
        for _ in range(parts):
            await upload.part(b"x", digest(b"x"))
        await upload.abort()
        await upload.abort()
        assert await store.head("a") is None
        assert await left_over(store) == 0
        with pytest.raises(StoreUnavailable):
            await upload.complete()
        with pytest.raises(StoreUnavailable):
            await upload.part(b"x", digest(b"x"))

    async def test_abort_after_complete_does_nothing(self, store: ArchiveStore) -> None:
        """What is complete stays."""
        upload = await store.upload("a", content_type="audio/wav")
        await upload.complete()
        await upload.abort()
        assert await store.get("a", max_bytes=1) == b""

    @pytest.mark.parametrize("leave", ["exception", "return", "cancel"])
    async def test_every_exit_without_complete_aborts(self, store: ArchiveStore, leave: str) -> None:
        """An exception keeps its type, a forgotten complete and a cancellation leave nothing either."""
        stages: dict[str, Callable[[Upload], Awaitable[None]]] = {
            "exception": _fail,
            "return": _return,
            "cancel": _wait_for_ever,
        }
        begun = asyncio.Event()

        async def work() -> None:
            async with await store.upload("a", content_type="audio/wav") as upload:
                await upload.part(b"x", digest(b"x"))
                begun.set()
                await stages[leave](upload)

        task = asyncio.create_task(work())
        await begun.wait()
        if leave == "cancel":
            task.cancel()
        (outcome,) = await asyncio.gather(task, return_exceptions=True)
        expected = {"exception": ZeroDivisionError, "return": type(None), "cancel": asyncio.CancelledError}
        assert isinstance(outcome, expected[leave])
        assert await store.head("a") is None
        assert await left_over(store) == 0

    async def test_stale_uploads_are_aborted_and_others_kept(self, store: ArchiveStore) -> None:
        """Age and prefix decide; the count is told."""
        ours = await store.upload("p/source=a/b~20&+ é<%3D>.wav", content_type="audio/wav")
        await store.upload("q/b", content_type="audio/wav")
        assert await store.abort_stale_uploads("p/", DAY, NEVER) == 0
        assert await store.abort_stale_uploads("p/", DAY, SOMEDAY) == 1
        assert await store.abort_stale_uploads("p/", DAY, SOMEDAY) == 0
        assert await left_over(store) == 1
        await ours.abort()

    @pytest.mark.parametrize("lock", [SHORT, FIRM], ids=lambda lock: lock.mode)
    @pytest.mark.parametrize("write", [put, put_in_parts])
    async def test_what_is_locked_at_write_is_seen_to_be_locked(
        self, store: ArchiveStore, write: Callable[..., Awaitable[Written]], lock: Lock
    ) -> None:
        """Mode and date stand on the version that was written; in a bucket that cannot lock, nothing is written."""
        if not self.can.object_lock:
            with pytest.raises(NoObjectLock, match="no Object Lock"):
                await write(store, "a", lock=lock)
            assert await store.head("a") is None
            return
        written = await write(store, "a", lock=lock)
        assert written.lock == lock
        assert await lock_of(store, "a", written.version_id) == lock
        assert await lock_of(store, "a", None) == lock

    @pytest.mark.parametrize("write", [put, put_in_parts])
    async def test_without_a_lock_nothing_is_locked(
        self, store: ArchiveStore, write: Callable[..., Awaitable[Written]]
    ) -> None:
        """A write that asks for none gets none, whatever the bucket can."""
        written = await write(store, "a")
        assert written.lock is None
        assert await lock_of(store, "a", written.version_id) is None

    @pytest.mark.parametrize("mode", LockMode)
    async def test_locks_grow_and_never_shrink(self, store: ArchiveStore, mode: LockMode) -> None:
        """A later date is taken on, an earlier changes nothing; the mode stays, whichever is asked for."""
        if not self.can.object_lock:
            return
        short, long = Lock(mode, SHORT.until), Lock(mode, LONG.until)
        version = (await put(store, "a", lock=short)).version_id
        for asked in (LONG, SHORT, FIRM):
            assert await store.extend_lock("a", version, asked) == long
        assert await lock_of(store, "a", version) == long

    async def test_each_version_has_a_lock_of_its_own(self, store: ArchiveStore) -> None:
        """What is written again is locked by itself, and a version without a lock can be given one."""
        if not self.can.object_lock:
            return
        first = (await put(store, "a", create_only=False, lock=LONG)).version_id
        second = (await put(store, "a", b"2", create_only=False)).version_id
        assert (await lock_of(store, "a", first), await lock_of(store, "a", second)) == (LONG, None)
        assert await lock_of(store, "a", None) is None
        assert await store.extend_lock("a", None, SHORT) == SHORT
        assert (await lock_of(store, "a", first), await lock_of(store, "a", second)) == (LONG, SHORT)

    async def test_what_is_missing_has_no_lock(self, store: ArchiveStore) -> None:
        """Asking for the lock of nothing says that there is nothing."""
        with pytest.raises(ObjectMissing):
            await lock_of(store, "a", None)
        if self.can.object_lock:
            with pytest.raises(ObjectMissing):
                await store.extend_lock("a", None, SHORT)

    @pytest.mark.parametrize("lock", [None, SHORT, FIRM], ids=lambda lock: lock.mode if lock else "unlocked")
    @pytest.mark.parametrize("write", [put, put_in_parts])
    async def test_what_is_held_at_write_is_seen_to_be_held(
        self, store: ArchiveStore, write: Callable[..., Awaitable[Written]], lock: Lock | None
    ) -> None:
        """The hold stands on the version that was written, with a lock or alone; where there is none, nothing is."""
        if not self.can.object_lock:
            with pytest.raises(NoObjectLock):
                await write(store, "a", lock=lock, legal_hold=True)
            assert await store.head("a") is None
            return
        written = await write(store, "a", lock=lock, legal_hold=True)
        assert written.lock == lock
        assert await store.protection("a", written.version_id) == Protection(lock, legal_hold=True)

    async def test_each_version_is_held_by_itself(self, store: ArchiveStore) -> None:
        """A hold is set and lifted, twice over or not, on one version; locks are another matter."""
        first = (await put(store, "a", create_only=False)).version_id
        if not self.can.object_lock:
            with pytest.raises(NoObjectLock):
                await store.set_legal_hold("a", first, on=True)
            return
        await store.extend_lock("a", first, SHORT)
        second = (await put(store, "a", b"2", create_only=False)).version_id
        for on in (True, True, False, False):
            await store.set_legal_hold("a", first, on=on)
            assert await store.protection("a", first) == Protection(SHORT, legal_hold=on)
            assert await store.protection("a", second) == Protection(None, legal_hold=False)
        await store.set_legal_hold("a", None, on=True)
        assert await store.protection("a", second) == Protection(None, legal_hold=True)

    async def test_what_is_missing_cannot_be_held(self, store: ArchiveStore) -> None:
        """Holding nothing says that there is nothing."""
        if self.can.object_lock:
            with pytest.raises(self.nothing_to_hold):
                await store.set_legal_hold("a", None, on=True)

    async def test_every_version_is_listed(self, store: ArchiveStore, hide: Callable[[str], str | None]) -> None:
        """By the keys' bytes, the newest of each first, delete markers included, over any number of pages."""
        ids: dict[str, list[str | None]] = {}
        for key in ("v1/b", "v1/a.json", "v1/a", "v1/é", "v1/日/c"):
            ids[key] = [(await put(store, key, b"x" * n, create_only=False)).version_id for n in range(3)]
            ids[key].append(hide(key))
            ids[key].append((await put(store, key, b"last", create_only=False)).version_id)
        await put(store, "v2/other")
        found = [row async for row in store.versions("v1/")]
        in_order = sorted(ids, key=str.encode)
        if not self.can.versioned:
            assert [(row.key, row.version_id, row.latest, row.bytes) for row in found] == [
                (key, None, True, 4) for key in in_order
            ]
            assert not any(row.marker for row in found)
            return
        everything = [(key, version) for key in in_order for version in reversed(ids[key])]
        markers = {ids[key][3] for key in in_order}
        listed = [(row.key, row.version_id) for row in found]
        assert sorted(listed) == sorted(everything)
        assert [row for row in listed if row[1] not in markers] == [row for row in everything if row[1] not in markers]
        assert self.lists_markers_apart or listed == everything
        assert [row.version_id for row in found if row.latest] == [ids[key][4] for key in in_order]
        assert {row.version_id for row in found if row.marker} == markers
        sizes = {version: size for key in ids for version, size in zip(ids[key], (0, 1, 2, 0, 4), strict=True)}
        assert {row.version_id: row.bytes for row in found} == sizes
        assert all(row.modified.utcoffset() == timedelta(0) for row in found)

    async def test_nothing_has_no_versions(self, store: ArchiveStore) -> None:
        """A listing of nothing ends at once."""
        assert await versions(store) == []

    async def test_what_is_hidden_looks_gone_and_is_all_there(
        self, store: ArchiveStore, hide: Callable[[str], str | None]
    ) -> None:
        """Behind a delete marker: not read, not listed, no folder, not in the way of a new one; still a version."""
        written = await put(store, "v1/day/a", b"first")
        await put(store, "v1/b")
        marker = hide("v1/day/a")
        assert await store.head("v1/day/a") is None
        with pytest.raises(ObjectMissing):
            await store.get("v1/day/a", max_bytes=100)
        with pytest.raises(ObjectMissing):
            await store.sha256("v1/day/a")
        for version in (None, marker):
            with pytest.raises(ObjectMissing):
                await store.protection("v1/day/a", version)
        assert await keys(store) == ["v1/b"]
        assert await store.folders("v1/") == ([] if self.hides_folders else ["v1/day/"])
        assert await store.count_versions("v1/day/a") == int(self.can.versioned)
        if self.can.versioned:
            assert await versions(store, "v1/day/") == [
                ("v1/day/a", marker, True),
                ("v1/day/a", written.version_id, False),
            ]
            assert await lock_of(store, "v1/day/a", written.version_id) is None
        # where callvault itself must count versions, it says that there is another
        await put(store, "v1/day/a", b"again", create_only=self.can.create_only)
        assert await store.get("v1/day/a", max_bytes=100) == b"again"
        assert await store.folders("v1/") == ["v1/day/"]

    async def test_one_version_is_destroyed(self, store: ArchiveStore, hide: Callable[[str], str | None]) -> None:
        """Exactly the one that is named, or delete marker; what it hid is current again, the last one ends the key."""
        first = (await put(store, "a", b"first", create_only=False)).version_id
        await put(store, "a.json")
        if not self.can.versioned:
            await store.delete_version("a", None)
            assert await versions(store) == [("a.json", None, True)]
            return
        second = (await put(store, "a", b"second", create_only=False)).version_id
        marker = hide("a")
        await store.delete_version("a", marker)
        assert await store.get("a", max_bytes=100) == b"second"
        await store.delete_version("a", second)
        assert await store.get("a", max_bytes=100) == b"first"
        assert await versions(store, "a") == [("a", first, True), ("a.json", (await _id(store, "a.json")), True)]
        await store.delete_version("a", first)
        assert await store.head("a") is None
        assert [key for key, _, _ in await versions(store)] == ["a.json"]

    async def test_what_is_gone_is_destroyed_already(self, store: ArchiveStore) -> None:
        """A second time, or of a key that never was, is well; other versions stay."""
        version = (await put(store, "a", create_only=False)).version_id
        later = (await put(store, "a", b"later", create_only=False)).version_id
        for key in ("a", "a", "b"):
            await store.delete_version(key, version)
        assert await versions(store) == ([("a", later, True)] if self.can.versioned else [])

    async def test_in_a_bucket_with_versions_one_must_be_named(self, store: ArchiveStore) -> None:
        """Deleting a key would hide it: that cannot be asked for."""
        if not self.can.versioned:
            return
        version = (await put(store, "a")).version_id
        with pytest.raises(ValueError, match="a has versions"):
            await store.delete_version("a", None)
        assert await versions(store) == [("a", version, True)]

    @pytest.mark.parametrize("write", [put, put_in_parts])
    @pytest.mark.parametrize("lock", [SHORT, FIRM], ids=lambda lock: lock.mode)
    async def test_what_is_locked_is_not_destroyed(
        self, store: ArchiveStore, write: Callable[..., Awaitable[Written]], lock: Lock
    ) -> None:
        """A lock protects its version and no other, in either mode."""
        if not self.can.object_lock:
            return
        version = (await write(store, "a", lock=lock)).version_id
        other = (await put(store, "a", b"2", create_only=False)).version_id
        with pytest.raises(VersionLocked) as told:
            await store.delete_version("a", version)
        assert told.value.key == "a"
        await store.delete_version("a", other)
        assert await versions(store) == [("a", version, True)]

    async def test_what_is_held_is_not_destroyed_until_it_is_free(self, store: ArchiveStore) -> None:
        """A hold needs no lock, and nothing of it stays when it is lifted."""
        if not self.can.object_lock:
            return
        version = (await put(store, "a", legal_hold=True)).version_id
        with pytest.raises(VersionLocked):
            await store.delete_version("a", version)
        await store.set_legal_hold("a", version, on=False)
        await store.delete_version("a", version)
        assert await versions(store) == []

    async def test_probe_tells_and_leaves_nothing(self, store: ArchiveStore) -> None:
        """The probe finds what is known of this store, and no object or upload of it stays."""
        await put(store, "v1/recordings/a")
        assert await store.probe("v1/probe/") == self.can
        assert await keys(store) == ["v1/recordings/a"]
        assert await left_over(store) == 0

    async def test_trying_to_write_leaves_nothing(self, store: ArchiveStore) -> None:
        """Not an object, not a version, not an unfinished upload, however often it is done."""
        await store.try_write("v1/probe/")
        await store.try_write("v1/probe/")
        assert await keys(store) == []
        assert await left_over(store) == 0


async def _id(store: ArchiveStore, key: str) -> str | None:
    found = await store.head(key)
    assert found
    return found.version_id


async def _fail(upload: Upload) -> None:
    raise ZeroDivisionError


async def _return(upload: Upload) -> None:
    return


async def _wait_for_ever(upload: Upload) -> None:
    await asyncio.Event().wait()
