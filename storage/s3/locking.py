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
    """See to it that a version carries at least this lock, and return the one it carries. LockMissing where not."""
    found = await standing(transport, key, version_id)
    if found is not None and found.covers(lock):
        return found
    wanted = lock.joined(found)
    await _retain(transport, key, version_id, wanted, can)
    found = await standing(transport, key, version_id)
    if found is not None and found.covers(wanted):
        return found
    stands = f"{found.mode} until {_text(found.until)}" if found else "none"
    asked = f"{wanted.mode} until {_text(wanted.until)}"
    log.error(Event.LOCK_MISSING, key=key, version=version_id, asked=asked, found=stands)
    raise LockMissing(
        f"{key} (version {version_id}) should be locked, {asked}, and the store has {stands}, also after it was asked"
        " again: it takes locks and does not keep them. Nothing more is archived into this bucket until it does",
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
