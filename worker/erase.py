"""Erasing a recording because somebody asked: at once, at the date on which it may go, or not, with the reason.

What is not refused is put on record below `v1/erasures/`: a deferred request is carried out by the expiry run, which
also looks whether what was erased is still gone.
"""

from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace
from datetime import date, datetime
from enum import StrEnum
from functools import partial

from pydantic import ValidationError

from config.events import Event
from config.logs import get_logger
from storage.certificate import Cause, Erasure, Fate
from storage.errors import IntegrityError, ObjectMissing
from storage.keys import rid as rid_of
from storage.retention import Kept
from worker.abreast import abreast
from worker.certificates import read_certificate, read_note, unfinished, write
from worker.destroy import Batch, destroy, finish
from worker.due import Due, Held, Surprise, Verdict, judge, why
from worker.remains import look, owner
from worker.runtime import Services

_KINDS = ("recordings", "gaps", "quarantine", "destroyed")
_MAX_ERASURE = 1024 * 1024
_READ = 64  # requests read before the first of them is acted on

log = get_logger()


class Outcome(StrEnum):
    """What came of a request, the best first."""

    ERASED = "erased"
    DEFERRED = "deferred"
    REFUSED = "refused"
    MISSING = "missing"


@dataclass(slots=True)
class Answer:
    """What whoever asked is told."""

    outcome: Outcome
    detail: str
    until: datetime | None = None
    """Until when it is kept, where that is why."""
    rule: str | None = None
    matters: list[str] = field(default_factory=list)
    certificates: list[str] = field(default_factory=list)
    batch: Batch | None = None
    """What was done for it now, where anything was."""


async def erase(services: Services, source: str, recording_id: str, *, reason: str, by: str) -> Answer:
    """Erase a recording, whatever there is of it under any day. Surprise, StoreError."""
    await _finish_earlier(services, source, recording_id)
    answers = []
    for day in await _days_with(services, source, rid_of(recording_id)):
        asked = Erasure(
            source=source,
            date=day.isoformat(),
            rid=rid_of(recording_id),
            recording_id=recording_id,
            reason=reason,
            by=by,
            asked_at=services.clock.now(),
            state="deferred",
            until=None,
            because=None,
            rule=None,
        )
        answers.append(await carry_out(services, asked, by=by))
    if answers:
        worst = max(answers, key=lambda one: list(Outcome).index(one.outcome))
        certificates = [key for one in answers for key in one.certificates]
        answer = replace(worst, certificates=sorted(set(certificates)))
    else:
        answer = Answer(
            Outcome.MISSING,
            f"{source}/{recording_id} is not in the archive, neither as a recording nor as a gap; ids are those of the"
            " phone system, as in `recording_id` of a sidecar",
        )
    log.info(
        Event.ERASURE_ASKED,
        source=source,
        recording=recording_id,
        by=by,
        outcome=answer.outcome.value,
        detail=answer.detail,
    )
    return answer


async def carry_out(services: Services, asked: Erasure, *, by: str) -> Answer:
    """Erase what lies under the day of a request, or say why not, and bring what is on record of it up to date."""
    name, day = f"{asked.source}/{asked.recording_id}", date.fromisoformat(asked.date)
    remains = (await look(services, asked.source, day, asked.rid)).get(asked.rid)
    if remains is None or not remains.versions:
        note = await read_note(services, asked.source, asked.date, asked.rid)
        if note is None:
            return Answer(
                Outcome.MISSING, f"{name} of {day} is gone, and no certificate says how; find out who deletes here"
            )
        await _record(services, asked, state="erased", certificate=note.certificate)
        return Answer(Outcome.ERASED, f"{name} was destroyed, see {note.certificate}", certificates=[note.certificate])
    verdict = await judge(services, remains, asked=asked.recording_id)
    if isinstance(verdict, Due):
        return await _destroyed(services, asked, verdict, by)
    return await _not_now(services, asked, verdict)


async def requests(services: Services) -> AsyncIterator[Erasure]:
    """Yield all requests on record. Surprise for one that cannot be read: whoever asked would wait for ever."""
    keys: list[str] = []
    async for found in services.store.objects(services.keys.sources("erasures")):
        if services.keys.parse(found.key) is not None:  # else somebody else's
            keys.append(found.key)
        if len(keys) == _READ:
            for asked in await abreast(partial(_request, services), keys):
                yield asked
            keys = []
    for asked in await abreast(partial(_request, services), keys):
        yield asked


async def _request(services: Services, key: str) -> Erasure:
    try:
        return Erasure.model_validate_json(await services.store.get(key, max_bytes=_MAX_ERASURE))
    except (ValidationError, IntegrityError) as error:
        raise Surprise(
            f"{key} is no request to erase that can be read ({type(error).__name__}), and would be forgotten;"
            " put it right"
        ) from error


async def _destroyed(services: Services, asked: Erasure, due: Due, by: str) -> Answer:
    name = f"{asked.source}/{asked.recording_id}"
    batch = await destroy(services, [due], cause=Cause.ERASURE, by=by, reason=asked.reason)
    item = batch.certificate.recordings[0]
    if item.fate is Fate.DESTROYED:
        await _record(services, asked, state="erased", certificate=batch.key)
        return Answer(Outcome.ERASED, f"{name} is erased", certificates=[batch.key], batch=batch)
    detail = batch.waiting[0] if batch.waiting else f"{name} is not erased: {item.kept_because}"
    return Answer(Outcome.REFUSED, detail, certificates=[batch.key], batch=batch)


async def _not_now(services: Services, asked: Erasure, verdict: Verdict) -> Answer:
    name = f"{asked.source}/{asked.recording_id}"
    if isinstance(verdict, Held):
        detail = f"{name} is not erased: {verdict.detail}; ask again once it is released"
        return Answer(Outcome.REFUSED, detail, matters=list(verdict.matters))
    if not isinstance(verdict, Kept):  # gone since it was listed
        return Answer(Outcome.MISSING, f"{name} is being destroyed just now; ask again")
    if not services.settings.retention.expire:
        detail = f"{name} is not erased: {why(verdict)}. With expire = true in [retention] it would be erased then"
        return Answer(Outcome.REFUSED, detail, verdict.until, verdict.rule)
    await _record(services, asked, state="deferred", verdict=verdict)
    return Answer(Outcome.DEFERRED, f"{name} is {why(verdict)}, and erased then", verdict.until, verdict.rule)


async def _record(
    services: Services, asked: Erasure, *, state: str, certificate: str | None = None, verdict: Kept | None = None
) -> None:
    """Write the request as it stands, unless that is what it says; the first one who asked stays on record."""
    key = services.keys.erasure(asked.source, date.fromisoformat(asked.date), asked.rid)
    try:
        before = Erasure.model_validate_json(await services.store.get(key, max_bytes=_MAX_ERASURE))
    except ObjectMissing:
        before = None
    update: dict[str, object] = {"state": state, "certificate": certificate}
    if verdict is not None:
        update |= {"until": verdict.until, "because": verdict.because, "rule": verdict.rule}
    after = (before or asked).model_copy(update=update)
    if after != before:
        await write(services, key, after, create_only=False)


async def _finish_earlier(services: Services, source: str, recording_id: str) -> None:
    """Go on with an erasure of this recording whose process died."""
    for key in await unfinished(services):
        certificate = await read_certificate(services, key)
        named = [(item.source, item.recording_id) for item in certificate.recordings]
        if certificate.cause is Cause.ERASURE and (source, recording_id) in named:
            batch = await finish(services, key)
            if batch.surprise is not None:
                raise batch.surprise


async def _days_with(services: Services, source: str, rid: str) -> list[date]:
    """Return the days under which there is anything of a recording: a listing for each day of the source."""
    found: set[date] = set()
    for kind in _KINDS:

        async def there(folder: str) -> None:
            async for version in services.store.versions(folder + rid):
                parsed = services.keys.parse(version.key)
                if parsed and owner(parsed) == rid:
                    found.add(parsed.day)
                    return

        await abreast(there, await services.store.folders(services.keys.days(kind, source)))
    return sorted(found)
