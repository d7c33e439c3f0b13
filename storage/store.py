"""What the archive asks of a store, in words a second implementation can be written from.

Implementations: `storage.s3.store.S3Store` (the real one) and `storage.memory.MemoryStore` (tests, dry runs).
Both pass `tests/contract/store_contract.py`. Keys come from `storage.keys`; errors are those of `storage.errors`.
"""

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Protocol, Self

from storage.lock import Lock

Body = bytes | memoryview
"""Bytes to be written; a view lends a buffer for the length of the call, so that nothing is copied."""


@dataclass(frozen=True, slots=True)
class Written:
    """What a write left behind. `version_id` is None where the bucket keeps no versions.

    `lock` is what the version was seen to carry; None where none was asked for.
    """

    key: str
    bytes: int
    version_id: str | None
    lock: Lock | None = None


@dataclass(frozen=True, slots=True)
class ObjectInfo:
    """One object as listed or asked for. Listings fill `key`, `bytes` and `modified` only."""

    key: str
    bytes: int
    modified: datetime
    version_id: str | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Version:
    """One version of a key, as listed.

    `version_id` is None in a bucket that keeps none. In one that began to keep them later, `null` names what was there
    before: writes told None then, and what is to be done to exactly that version needs the name.
    """

    key: str
    version_id: str | None
    bytes: int
    modified: datetime
    latest: bool
    marker: bool = False
    """A delete marker: no bytes; it makes the key look gone while what it hides is all there."""
    etag: str = ""
    """Two versions with the same size and ETag hold the same bytes, as far as S3 tells."""


def unnamed(key: str) -> ValueError:
    """Return the error for a version that is to be destroyed and is not named."""
    return ValueError(f"{key} has versions: which of them is to be destroyed must be said")


@dataclass(frozen=True, slots=True)
class Protection:
    """What keeps one version from being deleted."""

    lock: Lock | None
    legal_hold: bool

    def forbids(self, now: datetime) -> bool:
        """Tell whether the store has to refuse the deletion."""
        return self.legal_hold or (self.lock is not None and self.lock.until > now)


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What a store was seen to do, by trying it under `v1/probe/`.

    `create_only`: a second PUT with `If-None-Match: *` is refused. `create_only_multipart`: the same when an
    upload is completed. `checksum`: a wrong `x-amz-checksum-sha256` is refused. `payload_hash`: a wrong
    signed payload hash is refused. `versioned`: writes report a version. `object_lock`: None where it could
    not be read, else whether the bucket has it switched on. `checksum_headers`: writes that carry
    `x-amz-checksum-sha256` are taken at all.
    """

    create_only: bool
    create_only_multipart: bool
    checksum: bool
    payload_hash: bool
    versioned: bool
    object_lock: bool | None = None
    checksum_headers: bool = True

    def shortcomings(self) -> list[str]:
        """Return a sentence for each ability that is missing: what it means and what callvault does instead."""
        found = []
        if not self.create_only:
            found.append(
                "the store ignores If-None-Match: callvault lets one worker at a recording, looks before each write and"
                " counts versions after it"
            )
        elif not self.create_only_multipart:
            found.append(
                "the store ignores If-None-Match when a large upload is completed: callvault lets one worker at a"
                " recording, and looks before and after"
            )
        if not self.checksum_headers:
            found.append(
                "the store refuses x-amz-checksum-sha256: callvault leaves it out and relies on the signed payload hash"
            )
        elif not self.checksum:
            found.append("the store accepts a wrong x-amz-checksum-sha256: callvault relies on the signed payload hash")
        if not self.payload_hash:
            found.append(
                "the store accepts bytes that differ from the signed SHA-256: damage on the way there goes unnoticed"
            )
        return found


class Upload(Protocol):
    """A large object on its way: parts in order, then `complete` or `abort`; exactly one of the two takes effect.

    As an async context manager it aborts on every exit without `complete`, cancellation included, and the
    abort itself is shielded from cancellation. Nothing is visible before `complete`.
    """

    async def part(self, body: Body, sha256: str) -> None:
        """Send the next part; every one but the last has at least 5 MiB. `sha256` is the part's, in hex."""
        ...

    async def complete(self) -> Written:
        """Make the object visible, create-only. AlreadyExists when the key was taken meanwhile."""
        ...

    async def abort(self) -> None:
        """Drop all parts. May be called twice; after `complete` it does nothing."""
        ...

    async def __aenter__(self) -> Self:
        """Begin nothing: the upload was begun when it was made."""
        ...

    async def __aexit__(self, *exc_info: object) -> None:
        """Abort unless completed."""
        ...


class ArchiveStore(Protocol):
    """A bucket. Safe to use from many coroutines of one event loop; retries trouble that passes by itself.

    Every method may raise StoreUnavailable (retries spent) and StoreRefused (credentials, rights, no bucket).

    A write with a `lock` or a `legal_hold` sends it with the bytes and returns when the version written was seen to
    carry it, given again where the store had dropped it: LockMissing, a StoreRefused, where it does not carry it even
    then. A lock must end in the future. Locks only grow.
    """

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
        """Write one object in one request. `sha256` is the body's, in hex; it is signed and sent as checksum.

        With `create_only` an existing object raises AlreadyExists and stays as it is, whoever wrote it: this
        call itself, in a try whose answer was lost, included. Metadata values are ASCII.
        """
        ...

    async def upload(
        self,
        key: str,
        *,
        content_type: str,
        metadata: Mapping[str, str] | None = None,
        lock: Lock | None = None,
        legal_hold: bool = False,
    ) -> Upload:
        """Begin a large, create-only object, locked and held when it is complete."""
        ...

    async def protection(self, key: str, version_id: str | None) -> Protection:
        """Return what protects a version, the current one where that is None. ObjectMissing, for delete markers too."""
        ...

    async def set_legal_hold(self, key: str, version_id: str | None, *, on: bool) -> None:
        """Set or lift a version's legal hold, and see that the store did. ObjectMissing, NoObjectLock, LockMissing."""
        ...

    async def extend_lock(self, key: str, version_id: str | None, lock: Lock) -> Lock:
        """Have a version locked at least until that date, and return the lock it carries then. ObjectMissing.

        What stands is never shortened, and keeps its mode: to change that takes a right which callvault must not have.
        """
        ...

    async def head(self, key: str) -> ObjectInfo | None:
        """Return size, time, version and metadata of the current object; None when there is none."""
        ...

    async def get(self, key: str, *, max_bytes: int) -> bytes:
        """Return an object's bytes. ObjectMissing when there is none, IntegrityError above `max_bytes`."""
        ...

    async def sha256(self, key: str) -> str:
        """Return the SHA-256 of the stored bytes, in hex, reading them in bounded memory. ObjectMissing."""
        ...

    def objects(self, prefix: str, *, start_after: str = "") -> AsyncIterator[ObjectInfo]:
        """Iterate over the objects below `prefix`, in the order of their keys' bytes, page by page."""
        ...

    async def folders(self, prefix: str, *, start_after: str = "") -> list[str]:
        """Return the distinct next path segments below `prefix` (which ends in `/`), each as a full prefix."""
        ...

    def versions(self, prefix: str) -> AsyncIterator[Version]:
        """Iterate over all versions below `prefix`, delete markers included, in the order of their keys' bytes.

        Of one key the newest comes first. In a bucket without versions each object is its own only version.
        """
        ...

    async def delete_version(self, key: str, version_id: str | None) -> None:
        """Destroy exactly one version, or delete marker; where it is gone already, that is well.

        Nothing is ever hidden behind a new delete marker: None is a ValueError except in a bucket without versions.
        No right to bypass a lock is used: VersionLocked where a lock or a legal hold forbids it.
        """
        ...

    async def count_versions(self, key: str) -> int:
        """Return how many versions `key` has, delete markers not counted; 1 or 0 in an unversioned bucket."""
        ...

    async def abort_stale_uploads(self, prefix: str, older_than: timedelta, now: datetime) -> int:
        """Abort unfinished multipart uploads below `prefix` begun before `now - older_than`; return how many."""
        ...

    async def ensure_probed(self) -> Capabilities:
        """Return what the store was seen to do; it is tried out the first time, and raises as `probe` does."""
        ...

    async def probe(self, prefix: str) -> Capabilities:
        """Try out what the store does, on objects below `prefix` that are removed again, versions included."""
        ...

    async def try_write(self, prefix: str) -> None:
        """Prove that bytes can be written below `prefix`, and leave nothing, in a bucket that locks objects either."""
        ...

    async def aclose(self) -> None:
        """Close connections. The store is not used after this."""
        ...
