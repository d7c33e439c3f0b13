"""Trying gaps again because somebody asked: what `callvault retry` does. Nothing else tries an unchanged gap again.

A gap record holds no way to the audio, so each recording is looked up at the phone system, in a narrow span around
its start. What fails again stays a gap, its record brought up to date; what succeeds is archived, and the record
stays as history. Passes leave both alone: the one is on record as it is listed, the other is held.
"""

import asyncio
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from config.settings import Source
from storage.keys import rid
from storage.sidecar import GapReason, GapRecord
from worker.batch import archive_many
from worker.errors import BadAnswer, SourceError
from worker.gaps import read_gap, write_gap
from worker.index import Index
from worker.model import Recording, Window
from worker.outcome import Fate, Outcome, Report
from worker.paging import listed
from worker.passes import Watcher, reported
from worker.runtime import Desk, Services

AROUND = timedelta(hours=1)
"""How far before and after the start on record a recording is looked for: the zone may have been corrected since."""
CHUNK = 500
"""Gap records held in memory at a time."""
_READS = 16  # gap records read at once
_TOLD = 1000  # recordings that are told one by one
_UNDATED = (
    "its row had no readable start, so it cannot be looked up; once the row can be read, `run --from --to` over "
    "its day archives it"
)
_GONE = "; asked for again, and the phone system lists it no more"


@dataclass(slots=True)
class Retried(Report):
    """What became of the gaps that were to be tried again; `held` counts those whose recording is held by now."""

    on_record: int = 0
    """Gap records of recordings that were not held already."""
    settled: int = 0
    """How many of them are archived or brought up to date."""
    still: list[dict[str, Any]] = field(default_factory=list)
    """What is missing still, the first thousand in words."""

    @property
    def not_tried(self) -> int:
        """Return how many were left as they were: no readable start, or trouble with source or bucket came first."""
        return self.on_record - self.settled

    def tell(self, recording_id: str, reason: GapReason, detail: str) -> None:
        """Note that a recording is missing still."""
        if len(self.still) < _TOLD:
            self.still.append({"recording_id": recording_id, "reason": reason.value, "detail": detail})

    def public(self) -> dict[str, Any]:
        """Return the form that `--json` prints."""
        names = ("on_record", "archived", "held", "gaps", "not_tried", "bytes", "errors", "still")
        return {name: getattr(self, name) for name in names}


async def retry_gaps(services: Services, source: Source, wanted: str | None, watcher: Watcher | None = None) -> Retried:
    """Try the gap of one recording again, named by its id or by its `rid`, or all of the source's with None.

    Trouble is in the report, not raised.
    """
    report = Retried()

    async def work(desk: Desk) -> None:
        chunk: list[GapRecord] = []
        async for gap in _on_record(services, source, wanted, report):
            chunk.append(gap)
            if len(chunk) == CHUNK:
                await _try_again(services, desk, chunk, report, watcher)
                chunk = []
        await _try_again(services, desk, chunk, report, watcher)

    await reported(services, source, report, work)
    return report


async def _on_record(
    services: Services, source: Source, wanted: str | None, report: Retried
) -> AsyncIterator[GapRecord]:
    """Yield the gap records that are to be tried again, the oldest day first; what is held by now is not."""
    index, names = Index(services, source), {wanted, rid(wanted)} if wanted else set()
    keys: list[str] = []

    async def read() -> AsyncIterator[GapRecord]:
        told = await asyncio.gather(*(read_gap(services, key) for key in keys))
        for key, gap in zip(keys, told, strict=True):
            if gap is None:
                report.errors.append(f"{key} is no gap record: somebody else wrote it, or it is gone")
            else:
                yield gap
        keys.clear()

    async for there in services.store.objects(services.keys.days("gaps", source.name)):
        parsed = services.keys.parse(there.key)
        if parsed is None or (wanted and parsed.rid not in names):
            continue
        index.forget_before(parsed.day)
        if await index.held(parsed.rid, parsed.day):
            report.held += 1
            continue
        report.on_record += 1
        keys.append(there.key)
        if len(keys) == _READS:
            async for gap in read():
                yield gap
    async for gap in read():
        yield gap


async def _try_again(
    services: Services, desk: Desk, gaps: list[GapRecord], report: Retried, watcher: Watcher | None
) -> None:
    """Look the recordings up, archive what is listed, and bring the records of the others up to date."""
    name = desk.source.name
    listing = await _looked_up(desk, gaps)
    report.listed += len(listing.found)
    for gap, why in listing.left:
        report.errors.append(f"{name}: {gap.recording_id} was not tried: {why}")
        report.tell(gap.recording_id, gap.reason, gap.detail)
    for recording in listing.found:  # deaths of workers and earlier failures are forgotten: this is a new beginning
        await services.state.forget_attempt(name, rid(recording.id))
    failed: list[tuple[Recording, Outcome]] = []

    def settled(recording: Recording, outcome: Outcome) -> None:
        if outcome.fate is Fate.PENDING:
            failed.append((recording, outcome))
        else:
            report.settled += 1
        if outcome.fate is Fate.GAP and outcome.reason:
            report.tell(recording.id, outcome.reason, outcome.detail)
        if watcher:
            watcher.settled(name, recording, outcome)

    if watcher:
        watcher.planned(name, len(listing.found))
    try:
        await archive_many(services, desk, listing.found, report, watermark=None, listener=settled)
    finally:
        for recording, outcome in failed:
            report.pending -= 1
            report.to_retry -= outcome.failed
            if outcome.reason:  # else it was not tried at all, because all before it failed
                await _missing_still(services, desk, recording, outcome.reason, outcome.detail, report)
    for gap in listing.gone:
        recording = Recording(gap.recording_id, gap.call, gap.vendor_record)
        detail = gap.detail.removesuffix(_GONE) + _GONE
        await _missing_still(services, desk, recording, gap.reason, detail, report)
    if listing.trouble:
        raise listing.trouble


async def _missing_still(
    services: Services, desk: Desk, recording: Recording, reason: GapReason, detail: str, report: Retried
) -> None:
    """Bring the gap record up to date, in place of the next try that a pass would make of a failure by itself."""
    report.count(await write_gap(services, desk, recording, reason, detail))
    report.settled += 1
    report.tell(recording.id, reason, detail)


@dataclass(slots=True)
class _Listing:
    """What the phone system says of the wanted recordings."""

    found: list[Recording] = field(default_factory=list)
    gone: list[GapRecord] = field(default_factory=list)
    left: list[tuple[GapRecord, str]] = field(default_factory=list)
    """Those it could not be asked about, and why."""
    trouble: SourceError | None = None


async def _looked_up(desk: Desk, gaps: list[GapRecord]) -> _Listing:
    told, dated = _Listing(), {gap.recording_id: gap for gap in gaps if gap.call.started_at}
    told.left += [(gap, _UNDATED) for gap in gaps if gap.call.started_at is None]
    for window in _windows(dated.values(), whole=desk.vendor.info.max_window is None):
        here = {name: gap for name, gap in dated.items() if gap.call.started_at in window}  # type: ignore[operator]
        found: dict[str, Recording] = {}
        unread: dict[str, str] = {}
        try:
            async for page in listed(desk.vendor, window):
                found |= {r.id: r for r in page.recordings if r.id in here}
                unread |= {row.id: row.detail for row in page.unreadable if row.id in here}
        except BadAnswer as error:  # of this span alone
            unread = dict.fromkeys(here, error.message) | unread
        except SourceError as error:
            told.trouble = error
            unread = dict.fromkeys(here, error.message) | unread
        told.found += sorted(found.values(), key=lambda recording: recording.started_at)
        told.left += [(gap, unread[name]) for name, gap in here.items() if name in unread and name not in found]
        told.gone += [gap for name, gap in here.items() if name not in unread and name not in found]
        if told.trouble:
            break
    return told


def _windows(gaps: Iterable[GapRecord], *, whole: bool) -> list[Window]:
    """Return the spans to list: around each start, joined where they touch, or one where no span can be asked for."""
    joined: list[Window] = []
    for start in sorted(gap.call.started_at for gap in gaps if gap.call.started_at):
        if joined and (whole or start - AROUND <= joined[-1].end):
            joined[-1] = Window(joined[-1].start, start + AROUND)
        else:
            joined.append(Window(start - AROUND, start + AROUND))
    return joined
