"""Many recordings of one source at once: concurrency, a deadline, and judging what went wrong as a whole.

What concerns the source or the bucket ends the batch; what concerns one recording is that recording's
outcome. When many fail in the same way and none succeeds, it is the source that is at fault, not each
recording: then nothing becomes a gap for it yet.
"""

import asyncio
from collections import Counter, defaultdict, deque
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Sequence
from contextlib import suppress
from datetime import date, datetime
from itertools import islice

from config.events import Event
from config.logs import get_logger
from storage.keys import rid, utc_date
from storage.sidecar import GapReason
from storage.state import State, StateUnavailable
from worker.errors import StopSource
from worker.limits import PATIENCE, Gate
from worker.model import Recording
from worker.outcome import Fate, Outcome, Report
from worker.pipeline import archive_one, put_off, settle_gap
from worker.runtime import Desk, Services
from worker.steps import Step, reached

Listener = Callable[[Recording, Outcome], None]
"""Told of each outcome, for progress bars."""

_SUSPICIOUS = 10
"""So many gaps of one reason, with nothing archived beside them, are blamed on the source."""
_HOPELESS = 20
"""So many failures, with nothing archived before them, end the batch: each costs three tries and some patience."""
_BLAMELESS = frozenset({
    GapReason.TOO_LARGE, GapReason.HASH_MISMATCH, GapReason.CONFLICT, GapReason.CRASHED, GapReason.VENDOR_ERROR,
    GapReason.GAVE_UP, GapReason.TRUNCATED,
})  # fmt: skip
"""Reasons that were established for each recording by itself, whatever happens to the others."""
log = get_logger()

_TOLD_TOGETHER = 25
"""Recordings whose being held is told to the state in one go; as many are downloaded again after a worker's death."""
_AHEAD = 8  # recordings, the one that begins included
_LOOK_EVERY = 1.0  # seconds between two looks of the watchdog
_LOOKS_PER_SIGN = 5  # leases last 15 s: two renewals may be lost


async def archive_many(
    services: Services,
    desk: Desk,
    recordings: Iterable[Recording],
    report: Report,
    *,
    watermark: datetime | None,
    listener: Listener | None = None,
    starting: Callable[[Sequence[Recording]], Awaitable[None]] | None = None,
    ended: Callable[[Recording], None] | None = None,
    closing: asyncio.Event | None = None,
) -> datetime | None:
    """Archive recordings, the oldest first, several at once; return the start of the oldest left unsettled.

    `starting` is awaited before each begins, with it and the few that come next; `ended` is told when it has ended.
    Raises StopSource, WaitUntil and StoreError after the others were cancelled cleanly; the report has
    what was settled until then. Recordings that failed before come last, so that old trouble does not keep
    new recordings waiting; and where nothing but failures comes, the rest is left for the next pass.
    """
    tried = await services.state.attempts(desk.source.name)
    waiting = deque(sorted(recordings, key=lambda recording: rid(recording.id) in tried))
    before, failed_before = report.archived, report.to_retry
    unsettled: list[datetime] = []
    held = _Held(services.state, desk.source.name)
    gaps: list[tuple[Recording, Outcome]] = []

    def settle(recording: Recording, outcome: Outcome) -> None:
        report.count(outcome)
        if outcome.fate is Fate.PENDING:
            unsettled.append(recording.started_at)
        if outcome.fate is Fate.ARCHIVED:
            log.info(Event.RECORDING_ARCHIVED, source=desk.source.name, recording=recording.id, bytes=outcome.bytes)
        if listener:
            listener(recording, outcome)

    def hopeless() -> bool:
        return report.archived == before and report.to_retry - failed_before >= _HOPELESS

    async def work() -> None:
        while waiting:
            coming = tuple(islice(waiting, _AHEAD))
            recording = waiting.popleft()
            if hopeless() or (closing is not None and closing.is_set()):
                settle(recording, Outcome(recording.id, Fate.PENDING, detail="left for the next pass", failed=True))
                continue
            if starting:
                await starting(coming)
            reached(Step.BEGUN)
            outcome = await archive_one(services, desk, recording, watermark, tried)
            if ended:
                ended(recording)
            if outcome.fate is Fate.GAP:
                gaps.append((recording, outcome))
            else:
                if outcome.fate in (Fate.ARCHIVED, Fate.HELD):
                    await held.add(recording)
                settle(recording, outcome)
                reached(Step.SETTLED)

    try:
        # twice the connections: while one half writes to the archive, the other half downloads
        await _together(work, min(services.transfers, 2 * desk.source.max_connections))
    finally:
        with suppress(StateUnavailable):  # then they are downloaded once more, and found to be there
            await held.tell()
        blamed = _blamed(gaps) if report.archived == before else frozenset()
        for recording, outcome in gaps:
            decide = put_off if outcome.reason in blamed else settle_gap
            settle(recording, await decide(services, desk, recording, outcome))
    if blamed:
        reasons = ", ".join(sorted(blamed))
        _tell(
            report,
            desk.source.name,
            f"{len(gaps)} recordings failed in the same way ({reasons}) and none was archived: {gaps[-1][1].detail}",
        )
    if hopeless():
        _tell(
            report,
            desk.source.name,
            f"{_HOPELESS} recordings in a row failed and none was archived; the rest is left for the next pass",
        )
    return min(unsettled, default=None)


def _tell(report: Report, source: str, trouble: str) -> None:
    report.errors.append(f"{source}: {trouble}")
    log.error(Event.SOURCE_STOPPED, source=source, error="AllFailed", detail=trouble)


class _Held:
    """What is held by now, told to the state some at a time."""

    def __init__(self, state: State, source: str) -> None:
        self._state = state
        self._source = source
        self._untold: dict[date, list[str]] = defaultdict(list)

    async def add(self, recording: Recording) -> None:
        self._untold[utc_date(recording.started_at)].append(rid(recording.id))
        if sum(map(len, self._untold.values())) >= _TOLD_TOGETHER:
            await self.tell()

    async def tell(self) -> None:
        untold, self._untold = self._untold, defaultdict(list)  # others go on adding meanwhile
        for day, rids in untold.items():
            await self._state.add_held(self._source, day, rids)


def _blamed(gaps: list[tuple[Recording, Outcome]]) -> frozenset[GapReason]:
    counts = Counter(outcome.reason for _, outcome in gaps if outcome.reason)
    return frozenset(r for r, count in counts.items() if count >= _SUSPICIOUS and r not in _BLAMELESS)


async def _together(work: Callable[[], Coroutine[None, None, None]], count: int) -> None:
    """Run `count` workers; the first error cancels the others and is raised by itself, not in a group."""
    tasks = [asyncio.create_task(work()) for _ in range(count)]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def patiently(
    gate: Gate, source: str, work: Awaitable[None], sign_of_life: Callable[[], Awaitable[object]] | None = None
) -> None:
    """Await the work, and end it with StopSource when the source makes no progress for a minute.

    The work is expected to be many requests. `sign_of_life` is awaited every few seconds meanwhile, to renew leases.
    """
    async with gate.at_work():
        task = asyncio.ensure_future(work)
        try:
            looks = 0
            while not task.done():
                await asyncio.wait({task}, timeout=_LOOK_EVERY)
                looks += 1
                if sign_of_life and looks % _LOOKS_PER_SIGN == 0:
                    await sign_of_life()
                if not task.done() and gate.idle_seconds() > PATIENCE:
                    raise StopSource(f"{source} made no progress for {PATIENCE:.0f} s; given up for this pass")
            await task
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
