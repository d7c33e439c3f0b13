"""The archive in memory: `storage.store.ArchiveStore` as a dictionary, for tests and dry runs.

It behaves as a store that does everything right: create-only is atomic, a wrong SHA-256 is refused, uploads are
invisible until they are complete, a delete marker hides and destroys nothing. Listings cost what they list, not what
is stored: decades are simulated on it.
"""

import asyncio
import hashlib
import itertools
from bisect import bisect_left, bisect_right, insort
from collections import UserDict
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Self

from config.clock import Clock, SystemClock
from storage.errors import (
    AlreadyExists,
    IntegrityError,
    ObjectMissing,
    StoreRefused,
    StoreUnavailable,
    VersionLocked,
)
from storage.lock import Lock, no_object_lock
from storage.metadata import checked
from storage.store import ArchiveStore, Body, Capabilities, ObjectInfo, Protection, Upload, Version, Written, unnamed

LEAST_PART = 5 * 1024 * 1024
"""Bytes of every part but the last, as S3 wants it."""


@dataclass(frozen=True, slots=True)
class Stored:
    """One version of an object."""

    body: bytes
    content_type: str
    metadata: Mapping[str, str]
    modified: datetime
    version_id: str | None
    lock: Lock | None = None
    legal_hold: bool = False
    marker: bool = False


@dataclass(slots=True)
class _Unfinished:
    key: str
    content_type: str
    metadata: Mapping[str, str]
    begun_at: datetime
    lock: Lock | None
    legal_hold: bool
    parts: list[bytes] = field(default_factory=list)


class _Ordered(UserDict[str, list[Stored]]):
    """A dictionary that keeps its keys in order too, which for strings is the order of their UTF-8 bytes."""

    def __init__(self) -> None:
        super().__init__()
        self.ordered: list[str] = []

    def __setitem__(self, key: str, rows: list[Stored]) -> None:
        if key not in self.data:
            insort(self.ordered, key)
        super().__setitem__(key, rows)

    def __delitem__(self, key: str) -> None:
        super().__delitem__(key)
        del self.ordered[bisect_left(self.ordered, key)]


class MemoryStore:
    """A bucket of its own, empty at first. `versions_of` is open to tests: per key all versions, the newest last."""

    def __init__(self, *, versioned: bool = False, object_lock: bool = False, clock: Clock | None = None) -> None:
        self.versions_of = _Ordered()
        self._versioned = versioned or object_lock
        self._object_lock = object_lock
        self._clock = clock or SystemClock()
        self._uploads: dict[int, _Unfinished] = {}
        self._numbers = itertools.count(1)

    async def put(
        self,
        key: str,
        body: Body,
        *,
        sha256: str,
        content_type: str,
        metadata: Mapping[str, str] | None = None,
        create_only: bool = True,
        lock: Lock | None = None,
        legal_hold: bool = False,
    ) -> Written:
        """Write one object. ValueError for metadata that is not plain ASCII."""
        described = checked(metadata)
        await asyncio.sleep(0)  # others have their turn, as they would over a network
        _compare(key, body, sha256)
        self._must_lock(key, lock, legal_hold=legal_hold)
        stored = Stored(bytes(body), content_type, described, self._clock.now(), None, lock, legal_hold)
        return self._write(key, stored, create_only=create_only)

    async def upload(
        self,
        key: str,
        *,
        content_type: str,
        metadata: Mapping[str, str] | None = None,
        lock: Lock | None = None,
        legal_hold: bool = False,
    ) -> Upload:
        """Begin a large, create-only object."""
        described = checked(metadata)
        await asyncio.sleep(0)
        self._must_lock(key, lock, legal_hold=legal_hold)
        number = next(self._numbers)
        self._uploads[number] = _Unfinished(key, content_type, described, self._clock.now(), lock, legal_hold)
        return _MemoryUpload(self, number, key)

    async def protection(self, key: str, version_id: str | None) -> Protection:
        """Return what protects a version. ObjectMissing."""
        await asyncio.sleep(0)
        rows, place = self._place(key, version_id)
        return Protection(rows[place].lock, rows[place].legal_hold)

    async def set_legal_hold(self, key: str, version_id: str | None, *, on: bool) -> None:
        """Set or lift a version's legal hold. ObjectMissing, NoObjectLock."""
        await asyncio.sleep(0)
        rows, place = self._place(key, version_id)
        self._must_lock(key, None, legal_hold=True)
        rows[place] = replace(rows[place], legal_hold=on)

    async def extend_lock(self, key: str, version_id: str | None, lock: Lock) -> Lock:
        """Have a version locked at least until that date, and return its lock. ObjectMissing."""
        await asyncio.sleep(0)
        rows, place = self._place(key, version_id)
        wanted = lock.on(rows[place].lock)
        if wanted != rows[place].lock:
            self._must_lock(key, wanted)
            rows[place] = replace(rows[place], lock=wanted)
        return wanted

    async def head(self, key: str) -> ObjectInfo | None:
        """Return what is known of the current object; None when there is none."""
        await asyncio.sleep(0)
        found = self._current(key)
        if found is None:
            return None
        return ObjectInfo(key, len(found.body), found.modified, found.version_id, found.metadata)

    async def get(self, key: str, *, max_bytes: int) -> bytes:
        """Return an object's bytes. ObjectMissing, or IntegrityError above `max_bytes`."""
        body = await self._body(key)
        if len(body) > max_bytes:
            raise IntegrityError(f"{key} is larger than the {max_bytes} bytes expected of it at most", key)
        return body

    async def sha256(self, key: str) -> str:
        """Return the SHA-256 of the stored bytes, in hex. ObjectMissing."""
        return hashlib.sha256(await self._body(key)).hexdigest()

    async def objects(self, prefix: str, *, start_after: str = "") -> AsyncIterator[ObjectInfo]:
        """Iterate over the objects below `prefix`, in the order of their keys' bytes, as they are at the start."""
        await asyncio.sleep(0)
        for key, found in [(key, self._current(key)) for key in self._keys(prefix, start_after)]:
            if found:
                yield ObjectInfo(key, len(found.body), found.modified)

    async def folders(self, prefix: str, *, start_after: str = "") -> list[str]:
        """Return the distinct next path segments below `prefix`, each as a full prefix."""
        await asyncio.sleep(0)
        found: list[str] = []
        keys = self.versions_of.ordered
        at = bisect_right(keys, max(prefix, start_after))
        while at < len(keys) and keys[at].startswith(prefix):
            segment, slash, _ = keys[at][len(prefix) :].partition("/")
            end = bisect_left(keys, f"{prefix}{segment}0", at) if slash else at + 1  # "0" is what follows "/"
            folder = f"{prefix}{segment}/"
            if slash and folder > start_after and any(self._current(keys[n]) for n in range(at, end)):
                found.append(folder)
            at = end
        return found

    async def versions(self, prefix: str) -> AsyncIterator[Version]:
        """Iterate over all versions below `prefix`, as they are at the start."""
        await asyncio.sleep(0)
        for key, rows in [(key, list(self.versions_of[key])) for key in self._keys(prefix)]:
            for row in reversed(rows):
                yield Version(key, row.version_id, len(row.body), row.modified, row is rows[-1], row.marker)

    async def delete_version(self, key: str, version_id: str | None) -> None:
        """Destroy one version, or delete marker. VersionLocked; ValueError where the version must be named."""
        await asyncio.sleep(0)
        if version_id is None and self._versioned:
            raise unnamed(key)
        rows = self.versions_of.get(key, [])
        for place, found in enumerate(rows):
            if found.version_id == version_id:
                if Protection(found.lock, found.legal_hold).forbids(self._clock.now()):
                    raise VersionLocked(f"{key} (version {version_id}) stays: it is locked or held", key)
                self._keep(key, rows[:place] + rows[place + 1 :])

    def hide(self, key: str) -> str | None:
        """Do as S3 does when somebody deletes a key without naming a version: it looks gone, behind a delete marker.

        Returns the marker's version. Without versions the object is gone indeed. callvault itself never asks for this.
        """
        if not self._versioned:
            self._keep(key, [])
            return None
        marker = Stored(b"", "", {}, self._clock.now(), f"v{next(self._numbers)}", marker=True)
        self._keep(key, [*self.versions_of.get(key, []), marker])
        return marker.version_id

    async def count_versions(self, key: str) -> int:
        """Return how many versions `key` has."""
        await asyncio.sleep(0)
        return sum(not row.marker for row in self.versions_of.get(key, []))

    async def abort_stale_uploads(self, prefix: str, older_than: timedelta, now: datetime) -> int:
        """Abort unfinished uploads below `prefix` begun before `now - older_than`; return how many."""
        await asyncio.sleep(0)
        stale = [n for n, u in self._uploads.items() if u.key.startswith(prefix) and u.begun_at < now - older_than]
        for number in stale:
            del self._uploads[number]
        return len(stale)

    async def ensure_probed(self) -> Capabilities:
        """Return what this store does."""
        return await self.probe("")

    async def probe(self, prefix: str) -> Capabilities:  # noqa: ARG002 - there is nothing to find out
        """Return what this store does; nothing is written for it."""
        await asyncio.sleep(0)
        return Capabilities(
            create_only=True,
            create_only_multipart=True,
            checksum=True,
            payload_hash=True,
            versioned=self._versioned,
            object_lock=self._object_lock,
        )

    async def try_write(self, prefix: str) -> None:  # noqa: ARG002 - memory can always be written
        """Find nothing wrong."""
        await asyncio.sleep(0)

    async def aclose(self) -> None:
        """Nothing is open; what was stored stays readable to tests."""

    async def _body(self, key: str) -> bytes:
        await asyncio.sleep(0)
        found = self._current(key)
        if found is None:
            raise ObjectMissing(f"there is no {key}", key)
        return found.body

    def _current(self, key: str) -> Stored | None:
        rows = self.versions_of.get(key)
        return rows[-1] if rows and not rows[-1].marker else None

    def _keys(self, prefix: str, after: str = "") -> Iterator[str]:
        keys = self.versions_of.ordered
        at = bisect_right(keys, after) if after >= prefix else bisect_left(keys, prefix)
        while at < len(keys) and keys[at].startswith(prefix):
            yield keys[at]
            at += 1

    def _keep(self, key: str, rows: list[Stored]) -> None:
        if rows:
            self.versions_of[key] = rows
        else:
            self.versions_of.pop(key, None)

    def _must_lock(self, key: str, lock: Lock | None, *, legal_hold: bool = False) -> None:
        if (lock or legal_hold) and not self._object_lock:
            raise no_object_lock("in memory", key)
        if lock and lock.until <= self._clock.now():
            raise StoreRefused(f"the lock of {key} would end in the past", key)

    def _place(self, key: str, version_id: str | None) -> tuple[list[Stored], int]:
        rows = self.versions_of.get(key, [])
        wanted = version_id or (rows[-1].version_id if rows else None)
        for place, found in enumerate(rows):
            if found.version_id == wanted and not found.marker:
                return rows, place
        raise ObjectMissing(f"there is no {key}" + (f" of version {version_id}" if version_id else ""), key)

    def _write(self, key: str, stored: Stored, *, create_only: bool) -> Written:
        if create_only and self._current(key):
            raise AlreadyExists(f"{key} is already there", key)
        stored = replace(stored, version_id=f"v{next(self._numbers)}" if self._versioned else None)
        self._keep(key, [*(self.versions_of.get(key, []) if self._versioned else []), stored])
        return Written(key, len(stored.body), stored.version_id, stored.lock)


class _MemoryUpload:
    """Implements `storage.store.Upload`."""

    def __init__(self, store: MemoryStore, number: int, key: str) -> None:
        self._store = store
        self._number = number
        self._key = key

    async def part(self, body: Body, sha256: str) -> None:
        """Keep the next part."""
        await asyncio.sleep(0)
        _compare(self._key, body, sha256)
        self._open().parts.append(bytes(body))

    async def complete(self) -> Written:
        """Make the object visible, create-only."""
        await asyncio.sleep(0)
        begun = self._open()
        if any(len(part) < LEAST_PART for part in begun.parts[:-1]):
            raise StoreRefused(f"a part of {self._key} other than the last is smaller than 5 MiB", self._key)
        stored = Stored(
            b"".join(begun.parts),
            begun.content_type,
            begun.metadata,
            self._store._clock.now(),  # noqa: SLF001 - the two are one thing
            None,
            begun.lock,
            begun.legal_hold,
        )
        written = self._store._write(self._key, stored, create_only=True)  # noqa: SLF001 - the two are one thing
        await self.abort()
        return written

    async def abort(self) -> None:
        """Drop all parts."""
        self._store._uploads.pop(self._number, None)  # noqa: SLF001 - the two are one thing

    async def __aenter__(self) -> Self:
        """Begin nothing: the upload was begun when it was made."""
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        """Abort unless completed."""
        await self.abort()

    def _open(self) -> _Unfinished:
        begun = self._store._uploads.get(self._number)  # noqa: SLF001 - the two are one thing
        if begun is None:
            raise StoreUnavailable(f"the upload of {self._key} is over: begin another", self._key)
        return begun


def _compare(key: str, body: Body, sha256: str) -> None:
    if hashlib.sha256(body).hexdigest() != sha256:
        raise IntegrityError(f"{key} arrived with other bytes than its SHA-256 says", key)


_fits: type[ArchiveStore] = MemoryStore
