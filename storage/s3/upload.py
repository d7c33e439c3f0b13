"""A large object on its way to S3: parts in order, completed create-only, or aborted whatever happens.

AWS ends an upload id with a 409 on its completion, so that cannot be tried again with the same parts: the caller
gets StoreUnavailable and begins anew. Small objects are `storage.s3.store`.
"""

import asyncio
from collections.abc import Coroutine, Mapping, Sequence
from contextlib import suppress
from functools import partial
from hashlib import sha256 as hash_of
from typing import Any, Self, TypeVar
from xml.sax.saxutils import escape

from storage.errors import AlreadyExists, StoreError, StoreUnavailable
from storage.lock import Lock
from storage.s3.answers import document
from storage.s3.locking import lock_headers, secure
from storage.s3.refusals import Operation, explain
from storage.s3.transport import EMPTY_SHA256, Request, Transport
from storage.s3.writing import (
    CREATE_ONLY,
    confirm,
    description_headers,
    exists,
    proof_headers,
    refuse_existing,
    refuse_rival,
)
from storage.store import Body, Capabilities, Written

T = TypeVar("T")


async def shielded(work: Coroutine[Any, Any, T]) -> T:
    """Run to the end even if the caller is cancelled meanwhile; the cancellation then follows."""
    task = asyncio.ensure_future(work)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait({task})
        if not task.cancelled():
            task.exception()  # looked at, so that asyncio does not report it as forgotten
        raise


class S3Upload:
    """Implements `storage.store.Upload`. One part at a time: the caller awaits each."""

    def __init__(
        self,
        transport: Transport,
        key: str,
        upload_id: str,
        capabilities: Capabilities,
        page_size: int,
        lock: Lock | None = None,
        *,
        legal_hold: bool = False,
    ) -> None:
        self._transport = transport
        self._key = key
        self._id = upload_id
        self._can = capabilities
        self._page_size = page_size
        self._lock = lock
        self._legal_hold = legal_hold
        self._parts: list[str] = []
        self._bytes = 0
        self._over = False

    async def part(self, body: Body, sha256: str) -> None:
        """Send the next part."""
        self._must_be_open()
        number = len(self._parts) + 1
        answer = await self._transport.call(
            Request(
                "PUT",
                Operation.PART,
                self._key,
                {"partNumber": str(number), "uploadId": self._id},
                proof_headers(body, sha256, self._can, locked=self._lock is not None or self._legal_hold),
                body,
                sha256,
            )
        )
        confirm(answer, sha256, self._key)
        etag = escape(answer.headers.get("ETag", ""))
        told = answer.headers.get("x-amz-checksum-sha256")  # a store that keeps none would not know the element
        checksum = f"<ChecksumSHA256>{escape(told)}</ChecksumSHA256>" if told else ""
        self._parts.append(f"<Part><PartNumber>{number}</PartNumber><ETag>{etag}</ETag>{checksum}</Part>")
        self._bytes += len(body)

    async def complete(self) -> Written:
        """Make the object visible, create-only. An upload without parts becomes an object without bytes."""
        self._must_be_open()
        if not self._parts:
            await self.part(b"", EMPTY_SHA256)
        guarded = self._can.create_only_multipart
        look = None if guarded else partial(refuse_existing, self._transport, self._key)
        if look:
            await look()
        answer = await self._transport.call(
            completion(self._key, self._id, self._parts, create_only=guarded), expected={404}, again=look
        )
        if not answer.ok:
            if answer.code == "NoSuchUpload" and await exists(self._transport, self._key):
                # an earlier try whose answer was lost, or another writer: either way, the caller compares
                raise AlreadyExists(f"{self._key} is already there and its upload is over", self._key)
            raise explain(answer, Operation.COMPLETE, self._key, self._transport.address)
        self._over = True
        version_id = answer.version_id
        if version_id is None and self._can.versioned:  # some stores tell it on HEAD only
            head = await self._transport.call(Request("HEAD", Operation.HEAD, self._key))
            version_id = head.version_id
        lock = await secure(self._transport, self._key, version_id, self._lock, self._can, legal_hold=self._legal_hold)
        if look:  # after the lock: a version that met a rival stays too
            await refuse_rival(self._transport, self._key, self._page_size)
        return Written(self._key, self._bytes, version_id, lock)

    async def abort(self) -> None:
        """Drop all parts; to the end, even if the caller is cancelled."""
        if not self._over:
            self._over = True
            await shielded(drop(self._transport, self._key, self._id))

    async def __aenter__(self) -> Self:
        """Begin nothing: the upload was begun when it was made."""
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        """Abort unless completed. A failing abort never hides the error that led to it: the daily task repeats it."""
        try:
            await self.abort()
        except StoreError:
            if exc_info[0] is None:
                raise

    def _must_be_open(self) -> None:
        if self._over:
            raise StoreUnavailable(f"the upload of {self._key} is over: begin another", self._key)


async def create(transport: Transport, key: str, headers: Mapping[str, str]) -> str:
    """Begin an upload and return its id."""
    answer = await transport.call(Request("POST", Operation.BEGIN, key, {"uploads": ""}, headers))
    upload_id = document(answer.body, "InitiateMultipartUploadResult").findtext("UploadId")
    if not upload_id:
        raise StoreUnavailable(f"the store began an upload of {key} without giving its id", key)
    return upload_id


async def drop(transport: Transport, key: str, upload_id: str) -> bool:
    """Abort an upload; False where it was over already."""
    return (await transport.call(Request("DELETE", Operation.ABORT, key, {"uploadId": upload_id}), expected={404})).ok


def completion(key: str, upload_id: str, parts: Sequence[str], *, create_only: bool) -> Request:
    """Return the request that makes an upload visible; `parts` are its `<Part>` elements."""
    namespace = "http://s3.amazonaws.com/doc/2006-03-01/"
    body = f'<CompleteMultipartUpload xmlns="{namespace}">{"".join(parts)}</CompleteMultipartUpload>'.encode()
    headers = {"Content-Type": "application/xml", **(CREATE_ONLY if create_only else {})}
    return Request("POST", Operation.COMPLETE, key, {"uploadId": upload_id}, headers, body, hash_of(body).hexdigest())


async def begin(
    transport: Transport,
    key: str,
    content_type: str,
    metadata: Mapping[str, str],
    capabilities: Capabilities,
    page_size: int,
    lock: Lock | None = None,
    *,
    legal_hold: bool = False,
) -> S3Upload:
    """Begin an upload. Cancelled while the store answers, it is aborted again."""
    locked = lock_headers(transport, lock, capabilities, key, legal_hold=legal_hold)

    async def created() -> str:
        headers = description_headers(content_type, metadata) | locked
        if capabilities.checksum_headers:
            headers["x-amz-checksum-algorithm"] = "SHA256"
        return await create(transport, key, headers)

    async def forgotten() -> None:
        with suppress(StoreError):  # then there is none, or the daily task finds it
            await drop(transport, key, await task)

    task = asyncio.ensure_future(created())
    try:
        upload_id = await asyncio.shield(task)
    except asyncio.CancelledError:
        await shielded(forgotten())
        raise
    return S3Upload(transport, key, upload_id, capabilities, page_size, lock, legal_hold=legal_hold)
