"""Locks in S3: asked for with the bytes, read back on the version that was written, repaired where they were dropped.

RGW and moto drop the headers of a multipart upload without a word, so nothing counts as locked that was not seen
to be. Locks only grow here: what stands already is joined with what is asked for.
"""

from datetime import UTC, datetime
from hashlib import sha256

from config.events import Event
from config.logs import get_logger
from config.retention import LockMode
from storage.errors import LockMissing
from storage.lock import Lock, no_object_lock
from storage.s3.refusals import Operation
from storage.s3.transport import Request, Transport
from storage.s3.writing import proof_headers
from storage.store import Capabilities

_MODE, _UNTIL = "x-amz-object-lock-mode", "x-amz-object-lock-retain-until-date"
_NAMESPACE = "http://s3.amazonaws.com/doc/2006-03-01/"

log = get_logger()


def lock_headers(transport: Transport, lock: Lock | None, can: Capabilities, key: str) -> dict[str, str]:
    """Return the headers that lock what they are written with. NoObjectLock where the bucket can lock nothing."""
    if lock is None:
        return {}
    if can.object_lock is False:
        raise no_object_lock(transport.address.bucket, key)
    return {_MODE: lock.mode.upper(), _UNTIL: _text(lock.until)}


async def standing(transport: Transport, key: str, version_id: str | None) -> Lock | None:
    """Return the lock of a version; None where it has none that can be read. ObjectMissing."""
    query = {"versionId": version_id} if version_id else {}
    answer = await transport.call(Request("HEAD", Operation.HEAD_VERSION, key, query))
    try:
        mode = LockMode(answer.headers.get(_MODE, "").lower())
        until = datetime.fromisoformat(answer.headers.get(_UNTIL, ""))
    except ValueError:
        return None
    return Lock(mode, until.replace(tzinfo=UTC) if until.tzinfo is None else until.astimezone(UTC))


async def secure(transport: Transport, key: str, version_id: str | None, lock: Lock, can: Capabilities) -> Lock:
    """See to it that a version just written carries its lock, and return what it carries. LockMissing where not."""
    found = await extended(transport, key, version_id, lock, can)
    if not found.covers(lock):
        raise _missing(key, version_id, lock, found)
    return found


async def extended(transport: Transport, key: str, version_id: str | None, lock: Lock, can: Capabilities) -> Lock:
    """Have a version locked at least until that date, and return its lock; the mode of one that stands, stays."""
    found = await standing(transport, key, version_id)
    wanted = lock.on(found)
    if found == wanted:
        return wanted
    await _retain(transport, key, version_id, wanted, can)
    found = await standing(transport, key, version_id)
    if found is None or not found.covers(wanted):
        raise _missing(key, version_id, wanted, found)
    return found


def _missing(key: str, version_id: str | None, lock: Lock, found: Lock | None) -> LockMissing:
    asked, stands = (f"{it.mode} until {_text(it.until)}" if it else "no lock" for it in (lock, found))
    log.error(Event.LOCK_MISSING, key=key, version=version_id, asked=asked, found=stands)
    return LockMissing(
        f"{key} (version {version_id}) should be locked, {asked}, and the store has {stands} after all: it takes locks"
        " and does not keep them. It counts as not archived; find out what the store does with x-amz-object-lock"
        " headers and PutObjectRetention",
        key,
    )


async def _retain(transport: Transport, key: str, version_id: str | None, lock: Lock, can: Capabilities) -> None:
    body = (
        f'<Retention xmlns="{_NAMESPACE}"><Mode>{lock.mode.upper()}</Mode>'
        f"<RetainUntilDate>{_text(lock.until)}</RetainUntilDate></Retention>"
    ).encode()
    digest = sha256(body).hexdigest()
    query = {"retention": "", **({"versionId": version_id} if version_id else {})}
    headers = {"Content-Type": "application/xml", **proof_headers(body, digest, can, locked=True)}
    await transport.call(Request("PUT", Operation.RETAIN, key, query, headers, body, digest))


def _text(until: datetime) -> str:
    return until.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
