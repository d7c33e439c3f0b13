"""Locks and legal holds in S3: asked for with the bytes, read back on the version written, repaired where dropped.

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
from storage.store import Capabilities, Protection

_MODE, _UNTIL = "x-amz-object-lock-mode", "x-amz-object-lock-retain-until-date"
_HOLD = "x-amz-object-lock-legal-hold"
_NAMESPACE = "http://s3.amazonaws.com/doc/2006-03-01/"

log = get_logger()


def lock_headers(
    transport: Transport, lock: Lock | None, can: Capabilities, key: str, *, legal_hold: bool = False
) -> dict[str, str]:
    """Return the headers that protect what they are written with. NoObjectLock where the bucket can lock nothing."""
    if lock is None and not legal_hold:
        return {}
    if can.object_lock is False:
        raise no_object_lock(transport.address.bucket, key)
    locked = {_MODE: lock.mode.upper(), _UNTIL: _text(lock.until)} if lock else {}
    return locked | ({_HOLD: "ON"} if legal_hold else {})


async def standing(transport: Transport, key: str, version_id: str | None) -> Protection:
    """Return what protects a version; a lock that cannot be read is none. ObjectMissing."""
    query = {"versionId": version_id} if version_id else {}
    answer = await transport.call(Request("HEAD", Operation.HEAD_VERSION, key, query))
    held = answer.headers.get(_HOLD, "").upper() == "ON"
    try:
        mode = LockMode(answer.headers.get(_MODE, "").lower())
        until = datetime.fromisoformat(answer.headers.get(_UNTIL, ""))
    except ValueError:
        return Protection(None, held)
    return Protection(Lock(mode, until.replace(tzinfo=UTC) if until.tzinfo is None else until.astimezone(UTC)), held)


async def secure(
    transport: Transport,
    key: str,
    version_id: str | None,
    lock: Lock | None,
    can: Capabilities,
    *,
    legal_hold: bool = False,
) -> Lock | None:
    """See to it that a version just written carries its lock and its hold, and return the lock. LockMissing.

    Nothing is asked where neither was wanted.
    """
    if lock is None and not legal_hold:
        return None
    found = await standing(transport, key, version_id)
    if legal_hold and not found.legal_hold:
        await set_hold(transport, key, version_id, can, on=True)
    if lock is None:
        return None
    secured = await _extended(transport, key, version_id, lock, found.lock, can)
    if not secured.covers(lock):
        raise _missing(key, version_id, lock, secured)
    return secured


async def set_hold(transport: Transport, key: str, version_id: str | None, can: Capabilities, *, on: bool) -> None:
    """Set or lift a legal hold, and see that it was done. ObjectMissing, NoObjectLock, LockMissing where it was not."""
    status = "ON" if on else "OFF"
    body = f'<LegalHold xmlns="{_NAMESPACE}"><Status>{status}</Status></LegalHold>'.encode()
    await _alter(transport, Operation.HOLD, "legal-hold", key, version_id, body, can)
    if (await standing(transport, key, version_id)).legal_hold is on:
        return
    log.error(Event.LOCK_MISSING, key=key, version=version_id, asked=f"legal hold {status}", found="the opposite")
    raise LockMissing(
        f"{key} (version {version_id}) was to have its legal hold {status}, and the store does not show it so after"
        " all. Grant s3:GetObjectLegalHold, without which S3 shows none; else find out what the store does with"
        " PutObjectLegalHold",
        key,
    )


async def extended(transport: Transport, key: str, version_id: str | None, lock: Lock, can: Capabilities) -> Lock:
    """Have a version locked at least until that date, and return its lock; the mode of one that stands, stays."""
    found = await standing(transport, key, version_id)
    return await _extended(transport, key, version_id, lock, found.lock, can)


async def _extended(
    transport: Transport, key: str, version_id: str | None, lock: Lock, found: Lock | None, can: Capabilities
) -> Lock:
    wanted = lock.on(found)
    if found == wanted:
        return wanted
    await _retain(transport, key, version_id, wanted, can)
    found = (await standing(transport, key, version_id)).lock
    if found is None or not found.covers(wanted):
        raise _missing(key, version_id, wanted, found)
    return found


def in_words(found: Protection) -> str:
    """Say what protects a version."""
    lock = f"{found.lock.mode} until {_text(found.lock.until)}" if found.lock else ""
    return " and ".join(filter(None, (lock, "legal hold" if found.legal_hold else ""))) or "no lock"


def _missing(key: str, version_id: str | None, lock: Lock, found: Lock | None) -> LockMissing:
    asked, stands = (in_words(Protection(it, legal_hold=False)) for it in (lock, found))
    log.error(Event.LOCK_MISSING, key=key, version=version_id, asked=asked, found=stands)
    return LockMissing(
        f"{key} (version {version_id}) should be locked, {asked}, and the store has {stands} after all: it takes locks"
        " and does not keep them. It counts as not archived. Grant s3:GetObjectRetention, without which S3 shows none;"
        " else find out what the store does with x-amz-object-lock headers and PutObjectRetention",
        key,
    )


async def _retain(transport: Transport, key: str, version_id: str | None, lock: Lock, can: Capabilities) -> None:
    body = (
        f'<Retention xmlns="{_NAMESPACE}"><Mode>{lock.mode.upper()}</Mode>'
        f"<RetainUntilDate>{_text(lock.until)}</RetainUntilDate></Retention>"
    ).encode()
    await _alter(transport, Operation.RETAIN, "retention", key, version_id, body, can)


async def _alter(
    transport: Transport,
    operation: Operation,
    subresource: str,
    key: str,
    version_id: str | None,
    body: bytes,
    can: Capabilities,
) -> None:
    if can.object_lock is False:
        raise no_object_lock(transport.address.bucket, key)
    digest = sha256(body).hexdigest()
    query = {subresource: "", **({"versionId": version_id} if version_id else {})}
    headers = {"Content-Type": "application/xml", **proof_headers(body, digest, can, locked=True)}
    await transport.call(Request("PUT", operation, key, query, headers, body, digest))


def _text(until: datetime) -> str:
    return until.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
