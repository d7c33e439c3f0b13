"""What this store really does: each ability tried out once, on one object that is removed again.

Stores differ more than their documentation says, and an ignored header looks exactly like an obeyed one, so every
check here does something wrong on purpose and expects to be refused. On a store that does all it should, one small
object is written, one version of it, and removed. Where removal is not allowed (no right, or a bucket whose default
retention locks it) the object stays, below `v1/probe/` and named for what it is.
"""

import uuid
from contextlib import suppress
from dataclasses import replace
from hashlib import sha256

from storage.errors import StoreError, StoreRefused
from storage.s3.answers import Answer, document
from storage.s3.listing import versions_of
from storage.s3.refusals import Operation, explain
from storage.s3.transport import Request, Transport
from storage.s3.upload import begin, completion, create, drop, shielded
from storage.s3.writing import CREATE_ONLY, checksum_headers, description_headers
from storage.store import Capabilities

_RIGHT = b"callvault probe: this object may be deleted\n"
_OTHER = b"callvault probe: other bytes of the same key\n"
_REFUSES_HEADER = frozenset({400, 501})
_ORDINARY = Capabilities(create_only=True, create_only_multipart=True, checksum=True, payload_hash=True, versioned=True)


async def probe(transport: Transport, prefix: str) -> Capabilities:
    """Try the store out below `prefix`. Raises what an archive write would raise where nothing can be written."""
    trial = _Trial(transport, f"{prefix}{uuid.uuid4().hex}")
    try:
        return await trial.run()
    finally:
        await shielded(trial.clean())


async def try_write(transport: Transport, prefix: str) -> None:
    """Send a part of an upload and abort it. Raises what an archive write would raise where nothing can be written.

    It needs the rights of a write, yet no object ever exists: in a bucket whose default retention locks whatever is
    written, a health check a minute would leave one behind each time, and nobody could remove them.
    """
    try:
        await _begin_and_abort(transport, prefix, _ORDINARY)
    except StoreRefused:  # some stores refuse the checksum alone; where it is something else, it is said again
        await _begin_and_abort(transport, prefix, replace(_ORDINARY, checksum_headers=False))


async def _begin_and_abort(transport: Transport, prefix: str, can: Capabilities) -> None:
    key = f"{prefix}{uuid.uuid4().hex}"
    async with await begin(transport, key, "text/plain", {}, can, page_size=1) as upload:
        await upload.part(_RIGHT, _sha256(_RIGHT))


class _Trial:
    """One probe object and what was written under its key."""

    def __init__(self, transport: Transport, key: str) -> None:
        self._transport = transport
        self._key = key
        self._written: set[str | None] = set()
        self._headers = description_headers("text/plain", {})

    async def run(self) -> Capabilities:
        checksum_taken = True
        first = await self._put(_RIGHT, checksum_headers(_sha256(_RIGHT)))
        if first.status in _REFUSES_HEADER:
            again = await self._put(_RIGHT, {})
            if again.ok:
                first, checksum_taken = again, False
        if not first.ok:
            raise explain(first, Operation.PUT, self._key, self._transport.address)
        checks = checksum_headers if checksum_taken else lambda _: {}
        return Capabilities(
            create_only=(await self._put(_OTHER, {**checks(_sha256(_OTHER)), **CREATE_ONLY})).status == 412,
            create_only_multipart=await self._completion_is_create_only(checks(_sha256(_OTHER))),
            checksum=checksum_taken and (await self._put(_OTHER, checks(_sha256(_RIGHT)))).status == 400,
            # without the checksum header, or that would be what is refused; some stores answer 403
            payload_hash=(await self._put(_OTHER, {}, signed=_sha256(_RIGHT))).status in (400, 403),
            versioned=first.version_id is not None,
            object_lock=await self._object_lock(),
            checksum_headers=checksum_taken,
        )

    async def clean(self) -> None:
        """Remove the object in all versions; what may not be removed stays."""
        with suppress(StoreError):  # the right to list versions is not needed for anything else
            self._written |= {v.version_id for v in await versions_of(self._transport, self._key, 1000)}
        for version_id in self._written:
            query = {"versionId": version_id} if version_id not in (None, "null") else {}
            with suppress(StoreError):
                await self._transport.call(Request("DELETE", Operation.DELETE, self._key, query), expected={404})

    async def _put(self, body: bytes, headers: dict[str, str], *, signed: str = "") -> Answer:
        return self._noted(
            await self._transport.send(
                Request(
                    "PUT",
                    Operation.PUT,
                    self._key,
                    headers={**self._headers, **headers},
                    body=body,
                    sha256=signed or _sha256(body),
                )
            )
        )

    async def _completion_is_create_only(self, checks: dict[str, str]) -> bool:
        upload_id = await create(self._transport, self._key, self._headers)
        try:
            part = await self._transport.call(
                Request(
                    "PUT",
                    Operation.PART,
                    self._key,
                    {"partNumber": "1", "uploadId": upload_id},
                    checks,
                    body=_OTHER,
                    sha256=_sha256(_OTHER),
                )
            )
            parts = [f"<Part><PartNumber>1</PartNumber><ETag>{part.headers.get('ETag', '')}</ETag></Part>"]
            answer = self._noted(await self._transport.send(completion(self._key, upload_id, parts, create_only=True)))
            return answer.status == 412 or answer.code == "PreconditionFailed"
        finally:
            await shielded(drop(self._transport, self._key, upload_id))

    async def _object_lock(self) -> bool | None:
        answer = await self._transport.send(Request("GET", Operation.LOCK, query={"object-lock": ""}))
        if answer.status == 404:  # ObjectLockConfigurationNotFoundError
            return False
        if not answer.ok:
            return None
        return document(answer.body, "ObjectLockConfiguration").findtext("ObjectLockEnabled") == "Enabled"

    def _noted(self, answer: Answer) -> Answer:
        if answer.ok:
            self._written.add(answer.version_id)
        return answer


def _sha256(body: bytes) -> str:
    return sha256(body).hexdigest()
