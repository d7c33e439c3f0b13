"""Putting a gap on record: a finished recording that could not be archived, and why.

A gap record is the one object that may be written again: a later try that fails too brings `last_try_at`
and `tries` up to date, and keeps `first_seen_at`. It is locked and held as the recording would have been; written
again, it is a new version with a lock and a hold of its own.
"""

import hashlib
from datetime import datetime

from config.events import Event
from config.logs import get_logger
from storage.errors import AlreadyExists, IntegrityError, ObjectMissing
from storage.keys import rid, utc_date
from storage.lock import Lock
from storage.retention import promised
from storage.sidecar import CallFacts, GapReason, GapRecord, canonical
from worker.holding import Holding
from worker.index import LISTED, fingerprint
from worker.model import Recording, Unreadable
from worker.outcome import Fate, Outcome
from worker.runtime import Desk, Services
from worker.steps import Step, reached

_MAX_RECORD = 16 * 1024 * 1024

log = get_logger()


async def write_gap(
    services: Services,
    desk: Desk,
    recording: Recording,
    reason: GapReason,
    detail: str,
    *,
    tries: int = 1,
    first_try_at: datetime | None = None,
) -> Outcome:
    """Write or update the gap record of a listed recording and forget that it was being retried."""
    await _put(services, desk, recording.id, recording.call, reason, detail, recording.record, tries, first_try_at)
    reached(Step.GAP_WRITTEN)
    await services.state.forget_attempt(desk.source.name, rid(recording.id))
    return Outcome(recording.id, Fate.GAP, reason=reason, detail=detail)


async def write_unreadable(services: Services, desk: Desk, row: Unreadable) -> Outcome:
    """Put a listed row that has an id but cannot be understood on record, under the date 1970-01-01."""
    assert row.id is not None  # noqa: S101 - rows without an id cannot be named, the caller reports them
    call = CallFacts(started_at=None)
    await _put(services, desk, row.id, call, GapReason.VENDOR_ERROR, row.detail, row.record, 1, None)
    return Outcome(row.id, Fate.GAP, reason=GapReason.VENDOR_ERROR, detail=row.detail)


async def read_gap(services: Services, key: str) -> GapRecord | None:
    """Return a gap record; None when it is gone or somebody wrote something else there."""
    try:
        return GapRecord.model_validate_json(await services.store.get(key, max_bytes=_MAX_RECORD))
    except (ObjectMissing, ValueError, IntegrityError):  # gone, no such record, or larger than any
        return None


async def _put(
    services: Services,
    desk: Desk,
    recording_id: str,
    call: CallFacts,
    reason: GapReason,
    detail: str,
    record: dict[str, object],
    tries: int,
    first_try_at: datetime | None,
) -> None:
    source, now = desk.source, services.clock.now()
    key = services.keys.gap(source.name, utc_date(call.started_at), rid(recording_id))
    gap = GapRecord(
        source=source.name,
        vendor=source.vendor,
        recording_id=recording_id,
        call=call,
        reason=reason,
        detail=detail,
        first_seen_at=first_try_at or now,
        last_try_at=now,
        tries=tries,
        vendor_record=record,
    )
    metadata = {LISTED: fingerprint(record)}
    promise = promised(services.settings.retention, source.name, call, now)
    lock = promise.lock(now) if promise else None
    holding = Holding(services, source.name, recording_id, call)
    try:
        await _write(services, key, gap, metadata, lock, holding, create_only=True)
    except AlreadyExists:
        before = await read_gap(services, key)
        if before is not None:
            gap = gap.model_copy(update={"first_seen_at": before.first_seen_at, "tries": before.tries + tries})
        await _write(services, key, gap, metadata, lock, holding, create_only=False)
    log.warning(Event.RECORDING_GAP, source=source.name, recording=recording_id, reason=reason.value, detail=detail)


async def _write(
    services: Services,
    key: str,
    gap: GapRecord,
    metadata: dict[str, str],
    lock: Lock | None,
    holding: Holding,
    *,
    create_only: bool,
) -> None:
    body, held = canonical(gap), await holding.wanted()
    written = await services.store.put(
        key,
        body,
        sha256=hashlib.sha256(body).hexdigest(),
        content_type="application/json",
        metadata=metadata,
        create_only=create_only,
        lock=lock,
        legal_hold=held,
    )
    await holding.settle_late([(key, written.version_id)], held=held)
