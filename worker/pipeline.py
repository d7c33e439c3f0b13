"""One recording from listed to settled: held, on record as a gap, or pending with a time for the next try.

The tries within a pass are here, and the table from errors to fates; one try is `worker.transfer`.
"""

import asyncio
import random
from collections.abc import Mapping
from datetime import datetime, timedelta

from config.events import Event
from config.logs import get_logger
from storage.errors import StoreError
from storage.keys import rid
from storage.sidecar import GapReason
from storage.state import Attempt, StateUnavailable
from worker.claim import Taken, claimed
from worker.errors import GiveUp, MediaNotFound, NotAudio, NotYet, Retry, SourceError, StopSource, Truncated, WaitUntil
from worker.gaps import write_gap
from worker.model import Readiness, Recording, Unreadable
from worker.outcome import Fate, Outcome
from worker.rows import fit
from worker.runtime import Desk, Services
from worker.transfer import Doubtful, Transfer

MAX_CRASHES = 3
"""A recording during whose transfer the worker died this often becomes a gap `crashed`."""

_TRIES = 3
_PAUSE = 1.0  # seconds before the second try within a pass, tripled for the third
_SYNCHRONISED = timedelta(minutes=15)  # nodes of a cluster may show a recording before they can serve it
_FIRST_BACKOFF = timedelta(minutes=2)
_LONGEST_BACKOFF = timedelta(hours=1)

log = get_logger()


async def archive_one(
    services: Services,
    desk: Desk,
    recording: Recording,
    watermark: datetime | None,
    tried: Mapping[str, Attempt] | None = None,
) -> Outcome:
    """Archive a recording, and say what became of it. `tried` are the source's retries, where they are known already.

    Raises what concerns more than this recording: StopSource and WaitUntil for the source, StoreError for
    the bucket. Everything else is an outcome; the unforeseen is logged with its traceback and tried again.
    """
    name = rid(recording.id)
    known = await services.state.attempt(desk.source.name, name) if tried is None else tried.get(name)
    try:
        async with asyncio.timeout(services.recording_seconds) as limit:
            outcome = await _archived(services, desk, recording, known, watermark)
    except (StopSource, WaitUntil, StoreError, StateUnavailable):
        raise
    except Taken as error:
        log.info(Event.RECORDING_PENDING, source=desk.source.name, recording=recording.id, tries=0, detail=str(error))
        return Outcome(recording.id, Fate.PENDING, detail=error.message)
    except NotYet as error:
        return await _later(services, desk, recording, known, error.message, GapReason.GAVE_UP, failed=False)
    except MediaNotFound as error:
        if services.clock.now() < recording.ended_by(services.clock.now()) + _SYNCHRONISED:
            detail = f"{error.message}; nodes may still synchronise"
            return await _later(services, desk, recording, known, detail, GapReason.MEDIA_MISSING, failed=False)
        return Outcome(recording.id, Fate.GAP, reason=GapReason.MEDIA_MISSING, detail=error.message)
    except (GiveUp, NotAudio) as error:
        return Outcome(recording.id, Fate.GAP, reason=error.reason, detail=error.message)
    except SourceError as error:
        reason = GapReason.TRUNCATED if isinstance(error, Truncated) else GapReason.GAVE_UP
        return await _later(services, desk, recording, known, error.message, reason)
    except Exception as error:
        if limit.expired():
            detail = f"not archived within {services.recording_seconds:.0f} s; is the network wide enough for its size?"
            return await _later(services, desk, recording, known, detail, GapReason.GAVE_UP)
        log.exception(Event.BUG, source=desk.source.name, recording=recording.id)
        detail = f"unexpected {type(error).__name__}; see the log"
        return await _later(services, desk, recording, known, detail, GapReason.GAVE_UP)
    if known is not None:
        await services.state.forget_attempt(desk.source.name, rid(recording.id))
    return outcome


async def settle_gap(services: Services, desk: Desk, recording: Recording, outcome: Outcome) -> Outcome:
    """Put an outcome that is a gap on record. Apart from `archive_one`, so that a whole batch can be judged first."""
    assert outcome.reason is not None  # noqa: S101 - gaps have one
    known = await services.state.attempt(desk.source.name, rid(recording.id))
    tries = known.tries + 1 if known else 1
    return await write_gap(
        services,
        desk,
        recording,
        outcome.reason,
        outcome.detail,
        tries=tries,
        first_try_at=known.first_try_at if known else None,
    )


async def put_off(services: Services, desk: Desk, recording: Recording, outcome: Outcome) -> Outcome:
    """Keep a recording pending that looked like a gap, because the source is to blame; too old a failure stays one."""
    assert outcome.reason is not None  # noqa: S101 - gaps have one
    known = await services.state.attempt(desk.source.name, rid(recording.id))
    later = await _later(services, desk, recording, known, outcome.detail, outcome.reason)
    return await settle_gap(services, desk, recording, later) if later.fate is Fate.GAP else later


async def _archived(
    services: Services, desk: Desk, recording: Recording, known: Attempt | None, watermark: datetime | None
) -> Outcome:
    if recording.readiness is Readiness.NEVER:
        raise GiveUp(f"the phone system says {recording.vendor_state!r}", GapReason.VENDOR_ERROR)
    if recording.readiness is Readiness.NOT_YET:
        raise Retry(f"still {recording.vendor_state!r} at the phone system")
    if known is not None and known.crashes >= MAX_CRASHES:
        raise GiveUp(f"the worker died {known.crashes} times while archiving it", GapReason.CRASHED)
    async with claimed(services, desk.source.name, rid(recording.id)) as keep:
        described = await _described(services, desk, recording, known)
        return await _tried(services, Transfer(services, desk, described, watermark, keep))


async def _tried(services: Services, transfer: Transfer) -> Outcome:
    attempt = 0
    while True:
        attempt += 1
        try:
            return await transfer.attempt()
        except Retry as error:
            if attempt == _TRIES:
                raise
            if not isinstance(error, Doubtful):
                await services.clock.sleep(_PAUSE * 3 ** (attempt - 1) * random.uniform(0.5, 1))  # noqa: S311 - jitter


async def _described(services: Services, desk: Desk, recording: Recording, known: Attempt | None) -> Recording:
    """Ask for what enriches the sidecar; when that has failed for too long, the audio is archived without it."""
    try:
        described = await desk.vendor.describe(recording)
    except Retry as error:
        if known is None or services.clock.now() - known.first_try_at < desk.source.give_up_after:
            raise
        return recording.noting(f"details could not be had: {error.message}")
    if described is recording:  # it was looked at when it was listed
        return recording
    kept = fit(described, desk.rest.hidden)
    if isinstance(kept, Unreadable):
        raise GiveUp(f"with its details, {kept.detail}", GapReason.VENDOR_ERROR)
    return kept


async def _later(
    services: Services,
    desk: Desk,
    recording: Recording,
    known: Attempt | None,
    detail: str,
    reason: GapReason,
    *,
    failed: bool = True,
) -> Outcome:
    """Remember the failure and when to try again; too old a failure is a gap."""
    now = services.clock.now()
    first = known.first_try_at if known else now
    tries = known.tries + 1 if known else 1
    since = max(first, recording.ended_by(now))
    if known is not None and now - since >= desk.source.give_up_after:
        return Outcome(recording.id, Fate.GAP, reason=reason, detail=f"{detail} ({tries} tries since {first:%F %R}Z)")
    backoff = timedelta(0) if tries == 1 else min(_FIRST_BACKOFF * 2 ** min(tries - 2, 10), _LONGEST_BACKOFF)
    crashes = known.crashes if known else 0
    attempt = Attempt(first, tries, now + backoff, detail, crashes, recording.to_json())
    await services.state.save_attempt(desk.source.name, rid(recording.id), attempt)
    log.warning(Event.RECORDING_PENDING, source=desk.source.name, recording=recording.id, tries=tries, detail=detail)
    return Outcome(recording.id, Fate.PENDING, reason=reason, detail=detail, failed=failed)
