"""One source, one window: which recordings are there, which of them are settled, and which are to be archived now.

Only the oldest `limit` recordings to archive are kept, so a backlog of any length is caught up oldest first
in bounded memory. Nothing is written here; `worker.pipeline` does that.
"""

import heapq
from array import array
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from storage.keys import NO_DATE, rid, utc_date
from storage.state import Attempt
from worker.errors import BadAnswer, SourceError
from worker.index import Index, fingerprint
from worker.model import Readiness, Recording, Unreadable, Window
from worker.outcome import Report
from worker.paging import listed
from worker.rows import fit
from worker.runtime import Desk, Services

FAR = datetime.max.replace(tzinfo=UTC)
LIMIT = 2000
"""Recordings taken by one look, and held in memory until they are archived or handed over: 4 MB at 2 kB each."""
_UNFILTERED = 5
"""A phone system that cannot be asked for a span lists everything at each look, so each look takes that many times
more: 20 MB."""
_LEAST = timedelta(minutes=1)


@dataclass(slots=True)
class Found:
    """What a look at the source showed."""

    to_archive: list[Recording] = field(default_factory=list)
    """The oldest first."""
    unreadable: list[Unreadable] = field(default_factory=list)
    resume_at: datetime | None = None
    """Where the next look begins, when there were more than `limit`; all that started before it was looked at."""
    unsettled: datetime = FAR
    """Start of the oldest recording that must wait; the far future where none must."""
    vanished: list[tuple[Recording, Attempt]] = field(default_factory=list)
    """Recordings that failed, are listed no more, and have been waited for long enough."""
    trouble: SourceError | None = None
    """Why the listing is not whole; what was listed is good, and the watermark stays before what is missing."""
    watermark: datetime = FAR
    """Every recording of the window that started before this is held or a gap."""

    @property
    def stretch(self) -> timedelta:
        """Return how long a span to list for as many again, and a few more, lest it fall short by a few."""
        return max(1.125 * (self.to_archive[-1].started_at - self.to_archive[0].started_at), _LEAST)


class _Oldest:
    """The `limit` oldest recordings of all that are offered."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._heap: list[tuple[float, int, Recording]] = []
        self.offered = 0

    def offer(self, recording: Recording) -> None:
        self.offered += 1
        entry = (-recording.started_at.timestamp(), -self.offered, recording)
        if len(self._heap) < self._limit:
            heapq.heappush(self._heap, entry)
        else:
            heapq.heappushpop(self._heap, entry)

    @property
    def full(self) -> bool:
        return len(self._heap) == self._limit

    def kept(self) -> tuple[list[Recording], datetime | None]:
        """Return the kept ones, oldest first, and where to cut: all that started before the cut are among them.

        None where nothing was dropped. Recordings at the cut itself are left for the next look, unless all
        that were kept started in that same instant.
        """
        kept = [entry[2] for entry in sorted(self._heap, reverse=True)]
        if self.offered <= self._limit:
            return kept, None
        cut = kept[-1].started_at
        return [r for r in kept if r.started_at < cut] or kept, cut


async def discover(
    services: Services, desk: Desk, window: Window, report: Report, limit: int, first: timedelta | None = None
) -> Found:
    """Look at the window and sort what is there; counts go to `report`, work to the result.

    `first` is how long a span to list at first, where that is known to hold about enough: a busy time is so taken in
    small pieces.
    Raises the errors of `worker.errors` where the source cannot be listed.
    """
    longest = desk.vendor.info.max_window
    limit = limit if longest else limit * _UNFILTERED
    look = _Look(services, desk, await services.state.attempts(desk.source.name))
    oldest = _Oldest(limit)
    found = Found()
    unlisted = FAR
    start, length = window.start, min(first, longest) if first and longest else longest
    while start < window.end:
        span = Window(start, min(start + length, window.end) if length else window.end)
        start, offered = span.end, oldest.offered
        try:
            async for page in listed(desk.vendor, span):
                for row in (fit(row, desk.rest.hidden) for row in page.unreadable + page.recordings):
                    if isinstance(row, Recording):
                        if await look.wants(row):
                            oldest.offer(row)
                        continue
                    if row.id is None:  # held for as long as a failing recording is
                        unlisted = min(unlisted, max(span.start, look.patience_ends))
                    if await look.wants_row(row, span):
                        if len(found.unreadable) < limit:
                            found.unreadable.append(row)
                        else:  # those on record by then leave room for these in the next look
                            unlisted = min(unlisted, span.start)
        except SourceError as error:  # what was listed before it is good
            found.trouble = found.trouble or error
            unlisted = min(unlisted, span.start)
            if not isinstance(error, BadAnswer):
                break
        if oldest.full and span.end < window.end:
            found.resume_at = span.end
            break
        if length and longest and oldest.offered - offered < limit // 4:  # a quiet time costs few requests
            length = min(2 * length, longest)
    if found.trouble and not look.any and not found.unreadable:
        raise found.trouble
    found.to_archive, cut = oldest.kept()
    found.resume_at = cut or found.resume_at
    if found.trouble is None and found.resume_at is None:
        found.vanished = await look.vanished(window)
    for name in look.settled:  # its process died between settling it and forgetting that it was to be tried again
        await services.state.forget_attempt(desk.source.name, name)
    look.tell(report, cut)
    found.unsettled = min(look.oldest_unsettled(), unlisted)
    found.watermark = min([r.started_at for r in found.to_archive] + [found.unsettled, found.resume_at or window.end])
    return found


class _Look:
    """The judgement on each listed recording: settled, not yet, or to be archived."""

    def __init__(self, services: Services, desk: Desk, attempts: dict[str, Attempt]) -> None:
        self._index = Index(services, desk.source)
        self._source = desk.source
        self._now = services.clock.now()
        self._attempts = attempts
        self._rows: set[str] = set()
        self._unseen = dict(attempts)
        self.patience_ends = self._now - desk.source.give_up_after
        self.settled: list[str] = []
        """Recordings that are held or gaps, and are still remembered as being retried."""
        # start times by judgement, eight bytes each: a cut made later tells which of them count in this look
        self._starts = {name: array("d") for name in ("listed", "held", "pending", "to_retry", "gaps_on_record")}

    async def wants(self, recording: Recording) -> bool:
        """Take note of the recording, and tell whether it is to be archived now."""
        self._note("listed", recording)
        name, day = rid(recording.id), utc_date(recording.started_at)
        tried = self._unseen.pop(name, None) is not None
        if await self._index.held(name, day):
            self._note("held", recording)
            self.settled += [name] if tried else []
            return False
        gap = await self._index.gap(name, day)
        if gap is not None and gap == fingerprint(recording.record):
            self._note("gaps_on_record", recording)
            self.settled += [name] if tried else []
            return False
        if self._must_wait(recording, self._attempts.get(name)):
            self._note("pending", recording)
            return False
        return True

    def tell(self, report: Report, cut: datetime | None) -> None:
        """Add the counts of what started before the cut, or of everything, to the report."""
        limit = cut.timestamp() if cut else float("inf")
        for name, starts in self._starts.items():
            setattr(report, name, getattr(report, name) + sum(1 for start in starts if start < limit))

    def oldest_unsettled(self) -> datetime:
        """Return the start of the oldest recording that must wait; the far future where none must."""
        pending = self._starts["pending"]
        return datetime.fromtimestamp(min(pending), UTC) if pending else FAR

    @property
    def any(self) -> bool:
        """Tell whether anything was listed."""
        return bool(self._starts["listed"])

    def _note(self, name: str, recording: Recording) -> None:
        self._starts[name].append(recording.started_at.timestamp())

    async def vanished(self, window: Window) -> list[tuple[Recording, Attempt]]:
        """Return what failed, was not listed again, and is too old to be waited for; the rest stays pending."""
        gone = []
        for name, attempt in self._unseen.items():
            recording = Recording.kept(attempt.recording)
            if recording is None or recording.started_at not in window:
                continue
            day = utc_date(recording.started_at)
            on_record = await self._index.gap(name, day) == fingerprint(recording.record)
            if on_record or await self._index.held(name, day):
                self.settled.append(name)
                continue
            if max(attempt.first_try_at, recording.ended_by(self._now)) <= self.patience_ends:
                gone.append((recording, attempt))
            else:
                self._note("pending", recording)
                self._note("to_retry", recording)
        return gone

    async def wants_row(self, row: Unreadable, span: Window) -> bool:
        """Tell whether an unreadable row is news: it has no id, or is neither held nor on record as it is."""
        if row.id is None:
            return True
        if row.id in self._rows:
            return False
        self._rows.add(row.id)
        if await self._index.held_in(rid(row.id), span):
            return False
        if await self._index.gap(rid(row.id), NO_DATE) == fingerprint(row.record):
            self._starts["gaps_on_record"].append(0.0)
            return False
        return True

    def _must_wait(self, recording: Recording, attempt: Attempt | None) -> bool:
        if recording.readiness is Readiness.NEVER:
            return False
        if attempt is not None and attempt.not_before > self._now:
            self._note("to_retry", recording)
            return True
        ended = recording.ended_by(self._now)
        if recording.readiness is Readiness.NOT_YET:
            # one that stays unfinished for longer than the source's patience is looked at, and becomes a gap
            return ended + self._source.give_up_after > self._now
        return ended + self._source.settle > self._now
