"""The archive in S3: `storage.store.ArchiveStore` over HTTP.

botocore supplies the credentials; signatures (`storage.s3.signing`) and HTTP (`storage.s3.wire`) are our own, which
costs a small part of boto3's processor time per object, and one way of retrying and explaining serves the hot path and
the rare calls alike. What one bucket can be relied on to refuse is found out by `probe`, before the first create-only
write unless the caller knows it already.
"""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial

from config.clock import Clock
from config.events import Event
from config.logs import get_logger
from config.settings import Archive
from storage.errors import IntegrityError
from storage.keys import Keys
from storage.lock import Lock
from storage.metadata import checked
from storage.s3 import listing, upload
from storage.s3.address import address_of
from storage.s3.answers import http_date
from storage.s3.destroying import NULL, destroy
from storage.s3.locking import extended, lock_headers, secure, set_hold, standing
from storage.s3.probe import probe, try_write
from storage.s3.refusals import Operation
from storage.s3.signing import Signer
from storage.s3.transport import Patience, Request, Transport
from storage.s3.writing import (
    CREATE_ONLY,
    confirm,
    description_headers,
    proof_headers,
    refuse_existing,
    refuse_rival,
)
from storage.store import ArchiveStore, Body, Capabilities, ObjectInfo, Protection, Upload, Version, Written, unnamed

log = get_logger()

_META = "x-amz-meta-"
_PAGE = 1000
"""Keys a page of a listing: S3's most."""


class S3Store:
    """One bucket. Nothing is sent before the first call; `aclose` ends its connections.

    `capabilities` may be handed in where an earlier probe of the same bucket is known, which saves this one's.
    """

    def __init__(
        self,
        archive: Archive,
        clock: Clock,
        *,
        capabilities: Capabilities | None = None,
        patience: Patience | None = None,
        page_size: int = _PAGE,
    ) -> None:
        address = address_of(archive)
        signer = Signer(archive, address.region, clock)
        self._transport = Transport(address, signer, clock, patience or Patience())
        self._name = archive.bucket
        self._probe_prefix = Keys(archive.prefix).probe("")
        self._page_size = page_size
        self._probing = asyncio.Lock()
        self.capabilities = capabilities
        """What the bucket was seen to do; None until it is needed."""

    async def ensure_probed(self) -> Capabilities:
        """Return the capabilities, trying the bucket out the first time. Raises as `probe` does."""
        async with self._probing:
            if self.capabilities is None:
                self.capabilities = await self.probe(self._probe_prefix)
                log.info(Event.STORE_PROBED, bucket=self._name, missing=self.capabilities.shortcomings())
            return self.capabilities

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
        """Write one object in one request. ValueError for metadata that is not plain ASCII.

        On a store that ignores `If-None-Match`, two writers at the same moment raise AlreadyExists for the same bytes
        and IntegrityError for different ones.
        """
        headers = description_headers(content_type, checked(metadata))
        can = await self.ensure_probed()
        protecting = lock_headers(self._transport, lock, can, key, legal_hold=legal_hold)
        headers |= proof_headers(body, sha256, can, locked=bool(protecting)) | protecting
        guarded = create_only and can.create_only
        look = partial(refuse_existing, self._transport, key) if create_only and not guarded else None
        if guarded:
            headers |= CREATE_ONLY
        if look:
            await look()
        answer = await self._transport.call(
            Request("PUT", Operation.PUT, key, headers=headers, body=body, sha256=sha256), again=look
        )
        confirm(answer, sha256, key)
        seen = await secure(self._transport, key, answer.version_id, lock, can, legal_hold=legal_hold)
        if look:
            await refuse_rival(self._transport, key, self._page_size)
        return Written(key, len(body), answer.version_id, seen)

    async def upload(
        self,
        key: str,
        *,
        content_type: str,
        metadata: Mapping[str, str] | None = None,
        lock: Lock | None = None,
        legal_hold: bool = False,
    ) -> Upload:
        """Begin a large, create-only object. ValueError for metadata that is not plain ASCII."""
        described = checked(metadata)
        can = await self.ensure_probed()
        return await upload.begin(
            self._transport, key, content_type, described, can, self._page_size, lock, legal_hold=legal_hold
        )

    async def protection(self, key: str, version_id: str | None) -> Protection:
        """Return what protects a version. ObjectMissing."""
        return await standing(self._transport, key, version_id)

    async def set_legal_hold(self, key: str, version_id: str | None, *, on: bool) -> None:
        """Set or lift a version's legal hold. ObjectMissing, NoObjectLock, LockMissing."""
        await set_hold(self._transport, key, version_id, await self.ensure_probed(), on=on)

    async def extend_lock(self, key: str, version_id: str | None, lock: Lock) -> Lock:
        """Have a version locked at least until that date; return its lock. ObjectMissing, LockMissing."""
        return await extended(self._transport, key, version_id, lock, await self.ensure_probed())

    async def head(self, key: str) -> ObjectInfo | None:
        """Return size, time, version and metadata; None for a missing object (or bucket: HEAD does not say)."""
        answer = await self._transport.call(Request("HEAD", Operation.HEAD, key), expected={404})
        if not answer.ok:
            return None
        return ObjectInfo(
            key,
            int(answer.headers.get("Content-Length", "0")),
            http_date(answer.headers.get("Last-Modified", "")) or datetime.min.replace(tzinfo=UTC),
            answer.version_id,
            {n.lower()[len(_META) :]: v for n, v in answer.headers.items() if n.lower().startswith(_META)},
        )

    async def get(self, key: str, *, max_bytes: int) -> bytes:
        """Return an object's bytes. ObjectMissing, or IntegrityError above `max_bytes`."""

        async def whole(content: AsyncIterator[bytes]) -> bytes:
            chunks, size = [], 0
            async for chunk in content:
                chunks.append(chunk)
                size += len(chunk)
                if size > max_bytes:
                    raise IntegrityError(f"{key} is larger than the {max_bytes} bytes expected of it at most", key)
            return b"".join(chunks)

        return (await self._transport.call(Request("GET", Operation.GET, key), sink=whole)).body

    async def sha256(self, key: str) -> str:
        """Return the SHA-256 of the stored bytes, in hex, read in bounded memory. ObjectMissing."""

        async def hashed(content: AsyncIterator[bytes]) -> bytes:
            digest = hashlib.sha256()
            async for chunk in content:
                digest.update(chunk)
            return digest.digest()

        return (await self._transport.call(Request("GET", Operation.GET, key), sink=hashed)).body.hex()

    def objects(self, prefix: str, *, start_after: str = "") -> AsyncIterator[ObjectInfo]:
        """Iterate over the objects below `prefix`, in the order of their keys' bytes, page by page."""
        return listing.objects(self._transport, prefix, start_after, self._page_size)

    async def folders(self, prefix: str, *, start_after: str = "") -> list[str]:
        """Return the distinct next path segments below `prefix`, each as a full prefix."""
        return await listing.folders(self._transport, prefix, start_after, self._page_size)

    async def versions(self, prefix: str) -> AsyncIterator[Version]:
        """Iterate over all versions below `prefix`, in the order of their keys' bytes, page by page."""
        async for found in listing.versions(self._transport, prefix, self._page_size):
            alone = found.version_id == NULL and found.latest and not (await self.ensure_probed()).versioned
            yield replace(found, version_id=None) if alone else found

    async def delete_version(self, key: str, version_id: str | None) -> None:
        """Destroy exactly one version, or delete marker. VersionLocked; ValueError where the version must be named."""
        if version_id is None and (await self.ensure_probed()).versioned:
            raise unnamed(key)
        await destroy(self._transport, key, version_id)

    async def count_versions(self, key: str) -> int:
        """Return how many versions `key` has, delete markers not counted."""
        return sum(1 for v in await listing.versions_of(self._transport, key, self._page_size) if not v.marker)

    async def abort_stale_uploads(self, prefix: str, older_than: timedelta, now: datetime) -> int:
        """Abort unfinished uploads below `prefix` begun before `now - older_than`; return how many."""
        stale = [
            u
            async for u in listing.unfinished(self._transport, prefix, self._page_size)
            if u.begun_at < now - older_than
        ]
        return sum([await upload.drop(self._transport, u.key, u.upload_id) for u in stale])

    async def probe(self, prefix: str) -> Capabilities:
        """Try out what the store does, on an object below `prefix` that is removed again, versions included."""
        return await probe(self._transport, prefix)

    async def try_write(self, prefix: str) -> None:
        """Prove that bytes can be written: they are sent as a part of an upload that is then aborted."""
        await try_write(self._transport, prefix)

    async def aclose(self) -> None:
        """Close connections."""
        await self._transport.aclose()


_fits: type[ArchiveStore] = S3Store
