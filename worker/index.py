"""What of a source is settled: held or on record as a gap. Read from the bucket, remembered in the state.

The bucket is asked day by day and only for days that are looked at, so the cost of a poll grows with what
is listed, not with what is held. A recording counts as held when its sidecar exists on its own day or a day
beside it: a vendor whose clock or zone was corrected may move the same recording over midnight. One that was
destroyed counts as held too, by the note that says so: its time is over, and it is not to be archived again. Notes are
listed in every pass: who destroys need not share the state in which the rest is remembered.
"""

import hashlib
import json
import re
from collections.abc import AsyncIterator, Mapping
from datetime import date, datetime, timedelta
from typing import Any

from config.settings import Source
from storage.keys import NO_DATE
from storage.state_records import moment_or_none
from worker.model import Window
from worker.runtime import Services

_DAY = timedelta(days=1)
_DAYS = re.compile(r"date=[0-9]{4}-[0-9]{2}-[0-9]{2}/")  # other folders are somebody else's
_MONTH = 31
_WATERMARK_DAYS = 40  # newest days looked at for a watermark before giving up
_LOOKS_BACK = (_WATERMARK_DAYS, 400, 0)  # days, one look after the other; 0: all there are
_WATERMARK_LOOKS = 3  # newest sidecars looked at per day

WATERMARK = "watermark"
"""Name of the metadata entry with which each sidecar carries the watermark of the moment it was written."""
LISTED = "listed"
"""Name of the metadata entry of a gap record: fingerprint of the vendor's record as it was listed."""


def fingerprint(record: Mapping[str, Any]) -> str:
    """Return sixteen hex digits that change when a vendor's record does."""
    text = json.dumps(record, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


class Index:
    """The settled recordings of one source, for the length of one pass."""

    def __init__(self, services: Services, source: Source) -> None:
        self._services = services
        self._source = source
        self._held: dict[date, frozenset[str]] = {}
        self._destroyed: dict[date, frozenset[str]] = {}
        self._gaps: dict[date, dict[str, str]] = {}

    async def held(self, rid: str, day: date) -> bool:
        """Tell whether the recording is held."""
        for near in (day, day - _DAY, day + _DAY):
            if rid in await self._held_on(near):
                return True
        return rid in await self._destroyed_on(NO_DATE)  # its start may not have been readable then

    async def held_in(self, rid: str, span: Window) -> bool:
        """Tell whether the recording is held on any day of a span, for rows whose own day cannot be read.

        Looks at a month at most: such rows come with spans of days, and a wrong no costs a gap record.
        """
        days = min((span.end - span.start) // _DAY + 1, _MONTH)
        for ago in range(days + 1):
            if rid in await self._held_on(span.end.date() - ago * _DAY):
                return True
        return rid in await self._destroyed_on(NO_DATE)

    def forget_before(self, day: date) -> None:
        """Free what is remembered of days before this one and the one beside it: whoever goes by days needs two."""
        self._held = {known: rids for known, rids in self._held.items() if known >= day - _DAY}
        self._destroyed = {
            known: rids for known, rids in self._destroyed.items() if known >= day - _DAY or known == NO_DATE
        }
        self._gaps = {known: rids for known, rids in self._gaps.items() if known >= day}

    async def gap(self, rid: str, day: date) -> str | None:
        """Return the fingerprint of the record a gap was written for; None where there is no gap."""
        return (await self._gaps_on(day)).get(rid)

    async def _held_on(self, day: date) -> frozenset[str]:
        """Return what is held, and what was destroyed: a note is written before its sidecar goes, so that one of the
        two, asked for in this order, shows each.
        """
        if day not in self._held:
            state, name = self._services.state, self._source.name
            known = await state.held(name, day)
            if known is None:
                known = frozenset(await self._named_in("recordings", day))
                await state.remember_held(name, day, known)
            self._held[day] = known | await self._destroyed_on(day)
        return self._held[day]

    async def _destroyed_on(self, day: date) -> frozenset[str]:
        if day not in self._destroyed:
            self._destroyed[day] = frozenset(await self._named_in("destroyed", day))
        return self._destroyed[day]

    async def _named_in(self, kind: str, day: date) -> list[str]:
        prefix, suffix = self._services.partition(kind, self._source, day), ".json"
        return [
            found.key[len(prefix) : -len(suffix)]
            async for found in self._services.store.objects(prefix)
            if found.key.endswith(suffix)
        ]

    async def _gaps_on(self, day: date) -> dict[str, str]:
        if day not in self._gaps:
            self._gaps[day] = await self._read_gaps(day)
        return self._gaps[day]

    async def _read_gaps(self, day: date) -> dict[str, str]:
        """List the day's gap records; only those written since the last look cost a request each."""
        services, prefix = self._services, self._services.partition("gaps", self._source, day)
        note = f"gaps:{self._source.name}:{day}"
        known = await services.state.noted(note)
        fresh: dict[str, str] = {}
        async for found in services.store.objects(prefix):
            rid = found.key[len(prefix) :].removesuffix(".json")
            mark = f"{found.modified.timestamp()}:{found.bytes}:"
            if not known.get(rid, "").startswith(mark):
                info = await services.store.head(found.key)
                fresh[rid] = mark + (info.metadata.get(LISTED, "") if info else "")
            else:
                fresh[rid] = known[rid]
        if fresh != known:
            await services.state.note(note, fresh)
        return {rid: value.rpartition(":")[2] for rid, value in fresh.items()}


async def gaps_on_record(services: Services, source: Source) -> int:
    """Return of how many recordings the source has a gap record and no sidecar, over all days.

    Costs a listing of all gap records, and of what is held on the days that have any.
    """
    index, count = Index(services, source), 0
    async for found in services.store.objects(services.keys.days("gaps", source.name)):
        parsed = services.keys.parse(found.key)
        if parsed is None:
            continue  # somebody else's
        index.forget_before(parsed.day)
        count += not await index.held(parsed.rid, parsed.day)
    return count


async def archived_watermark(services: Services, source: Source) -> datetime | None:
    """Return the newest watermark that any of the latest sidecars carries; None where none does.

    Each is a lower bound of the true one, which only moves forward, so looking at a few is safe: it costs at
    most a listing that goes further back than needed.
    """
    looked = 0
    async for day in _days_latest_first(services, source):
        sidecars = [found async for found in services.store.objects(day) if found.key.endswith(".json")]
        sidecars.sort(key=lambda found: found.modified)
        marks = []
        for found in sidecars[-_WATERMARK_LOOKS:]:
            info = await services.store.head(found.key)
            if info and (mark := moment_or_none(info.metadata.get(WATERMARK))):
                marks.append(mark)
        looked += 1
        if marks or looked == _WATERMARK_DAYS:
            return max(marks, default=None)
    return None


async def _days_latest_first(services: Services, source: Source) -> AsyncIterator[str]:
    """Iterate over the folders of the source's days.

    Those of the last weeks are listed first, and older ones only if they are asked for: an archive of ten years is
    not listed for its end.
    """
    folder, today = services.keys.days("recordings", source.name), services.clock.now().date()
    seen: set[str] = set()
    for ago in _LOOKS_BACK:
        after = f"{folder}date={today - timedelta(days=ago)}" if ago else ""
        found = await services.store.folders(folder, start_after=after)
        days = [day for day in found if _DAYS.fullmatch(day[len(folder) :]) and day not in seen]
        seen.update(days)
        for day in reversed(days):
            yield day
