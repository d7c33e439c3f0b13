"""One expiry run: what was begun is finished, erasures whose date has come are carried out, then what is due goes.
Last, what was erased before is looked at: whether it is still gone.

Day by day and in batches, at most so many recordings. The first thing that should not be there stops the run: what
was begun by then is completed truthfully, and nothing more is.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time
from functools import partial
from itertools import islice
from typing import Any

from config.events import Event
from config.logs import get_logger
from storage.certificate import Cause, DoomedRecording, Erasure
from storage.holds import Hold
from storage.retention import Because, Kept, Yardstick
from worker.abreast import abreast
from worker.certificates import unfinished
from worker.destroy import BATCH, Batch, destroy, finish
from worker.due import Due, Held, Surprise, Verdict, judge
from worker.entries import Day, days, read_day, sources
from worker.erase import Outcome, carry_out, requests
from worker.remains import look
from worker.runtime import Services

_JUDGED = 64  # recordings judged before the first of them is acted on
_TOLD = 1000  # recordings that a dry run names
_NAMED = {"source", "recording_id", "started_at", "bytes", "kept_until", "because", "rule"}

log = get_logger()


@dataclass(slots=True)
class Figures:
    """What became of the recordings of one source whose promise is over."""

    destroyed: int = 0
    """By this run; of a dry run, what it would destroy."""
    bytes: int = 0
    """Of their media."""
    erased: int = 0
    """How many of them because somebody had asked for it."""
    held: int = 0
    """Kept by a matter."""
    locked: int = 0
    """Kept by a lock that is longer than the promise."""


@dataclass(slots=True)
class Expired:
    """An expiry run, in numbers and sentences."""

    dry_run: bool = False
    sources: dict[str, Figures] = field(default_factory=dict)
    certificates: list[str] = field(default_factory=list)
    due: list[dict[str, Any]] = field(default_factory=list)
    """Of a dry run: what it would destroy, the first thousand by name."""
    more: bool = False
    """Whether there is more to do: the limit was reached, or the time was over."""
    limited: bool = False
    """Whether it was the limit."""
    errors: list[str] = field(default_factory=list)
    """What is left to do, and who has to look at what."""
    stopped: bool = False
    """Whether a surprise ended it."""

    unfinished: int = 0
    """Of a dry run: certificates that were begun and not completed; a run goes on with them first."""

    @property
    def destroyed(self) -> int:
        """Return how many recordings were destroyed."""
        return sum(figures.destroyed for figures in self.sources.values())

    def count(self, item: DoomedRecording, *, erased: bool = False) -> None:
        """Add a recording that was destroyed, or would be."""
        figures = self.figures(item.source)
        figures.destroyed += 1
        figures.bytes += item.bytes
        figures.erased += erased

    def figures(self, source: str) -> Figures:
        """Return the figures of a source, to be added to."""
        return self.sources.setdefault(source, Figures())

    def public(self) -> dict[str, Any]:
        """Return the form that `--json` prints."""
        names = ("destroyed", "bytes", "erased", "held", "locked")
        by_source = {source: {name: getattr(told, name) for name in names} for source, told in self.sources.items()}
        sums = {name: sum(told[name] for told in by_source.values()) for name in names}
        rest = {name: getattr(self, name) for name in ("certificates", "more", "stopped", "errors")}
        due = {"unfinished": self.unfinished, "due": self.due} if self.dry_run else {}
        return {"dry_run": self.dry_run, **sums, "sources": by_source, **rest, **due}


GoOn = Callable[[], bool]
Told = Callable[[Expired], Awaitable[None]]


def _always() -> bool:
    return True


async def _nobody(report: Expired) -> None:
    """Tell nobody."""


async def expire(
    services: Services, *, by: str, limit: int, dry_run: bool = False, go_on: GoOn = _always, told: Told = _nobody
) -> Expired:
    """Destroy what is due, `limit` recordings at most. StoreError where the bucket cannot be used.

    `go_on` is asked before each batch, `told` after it. A dry run deletes and writes nothing.
    """
    report = Expired(dry_run=dry_run)
    run = _Run(services, report, by, limit, go_on, told)
    try:
        await run.all()
    except Surprise as surprise:
        report.stopped = True
        report.errors.append(surprise.message)
        log.error(Event.EXPIRY_STOPPED, detail=surprise.message)
    log.info(
        Event.EXPIRY_FINISHED, by=by, **{key: value for key, value in report.public().items() if isinstance(value, int)}
    )
    return report


class _Over(Exception):
    """The limit is reached, or the time is over."""


class _Run:
    def __init__(self, services: Services, report: Expired, by: str, limit: int, go_on: GoOn, told: Told) -> None:
        self._services = services
        self._report = report
        self._by = by
        self._limit = limit
        self._go_on = go_on
        self._told = told
        self._yardstick = Yardstick(services.settings.retention)
        self._matters: Sequence[Hold] = ()

    async def all(self) -> None:
        """Do everything in its order."""
        with suppress(_Over):
            if self._report.dry_run:
                self._report.unfinished = len(await unfinished(self._services))
            else:
                await self._begun_before()
                await self._asked_for()
            await self._due()
            if not self._report.dry_run:
                await self._still_gone()

    async def _begun_before(self) -> None:
        for key in await unfinished(self._services):
            self._check()
            await self._count(await finish(self._services, key))

    async def _asked_for(self) -> None:
        async for asked in requests(self._services):
            if asked.state == "deferred" and (asked.until is None or asked.until <= self._services.clock.now()):
                self._check()
                await self._carry_out(asked)

    async def _carry_out(self, asked: Erasure) -> None:
        answer = await carry_out(self._services, asked, by=self._by)
        if answer.batch is not None:
            await self._count(answer.batch)
        elif answer.outcome is Outcome.REFUSED:
            self._report.figures(asked.source).held += 1
        elif answer.outcome is Outcome.MISSING:
            self._report.errors.append(answer.detail)

    async def _still_gone(self) -> None:
        """Destroy what was erased and came back. There are more to look at each year, and most nights nothing is found:
        so it comes last, many at once, and where the time is over that is no reason for another turn.
        """
        some: list[Erasure] = []
        async for asked in requests(self._services):
            some += [asked] if asked.state == "erased" else []
            if len(some) == _JUDGED:
                if not await self._looked_after(some):
                    return
                some = []
        await self._looked_after(some)

    async def _looked_after(self, erased: list[Erasure]) -> bool:
        """Do so for some of them; False when the time or the limit is over."""

        async def well(asked: Erasure) -> bool:
            day = date.fromisoformat(asked.date)
            remains = (await look(self._services, asked.source, day, asked.rid)).get(asked.rid)
            return remains is not None and remains.noted and not remains.versions

        for asked, is_well in zip(erased, await abreast(well, erased), strict=True):
            if not is_well:
                self._check()
                await self._carry_out(asked)
        return self._go_on()

    async def _due(self) -> None:
        """Destroy in batches what is found; what is found above the limit is only known to be there."""
        waiting: list[Due] = []
        async for due in self._found():
            if self._report.destroyed + len(waiting) >= self._limit:
                self._report.more = self._report.limited = True
                break
            waiting.append(due)
            if len(waiting) == BATCH:
                await self._destroy(waiting)
                waiting = []
        if waiting:
            await self._destroy(waiting)

    async def _found(self) -> AsyncIterator[Due]:
        self._matters = await self._services.matters.active()
        for source in await sources(self._services):
            for day in await days(self._services, source):
                if self._young(day):
                    break  # and so are those after it
                self._check_time()
                if not self._over(await read_day(self._services, source, day, indexed=True)):
                    continue
                found = iter((await look(self._services, source, day)).values())
                while some := list(islice(found, _JUDGED)):
                    for verdict in await abreast(partial(judge, self._services), some):
                        if isinstance(verdict, Due):
                            yield verdict
                        else:
                            self._note(source, verdict)

    def _young(self, day: date) -> bool:
        """Tell whether no call of that day can be over yet."""
        ends = self._services.settings.retention.first_end(datetime.combine(day, time(), UTC))
        return ends is None or ends > self._services.clock.now()

    def _over(self, day: Day) -> bool:
        """Tell whether a day has to be looked at: something may be due, or is not as it was listed before.

        The day's index may say that something is not due, or that a matter is about it, and saves reading it each night
        for years; that something is due is never taken from it.
        """
        now, locked, held = self._services.clock.now(), 0, 0
        for entry in day.entries:
            until = self._yardstick.kept(entry)
            if until is not None and until.until <= now:
                if not any(m.scope.covers(entry.source, entry.recording_id, entry.call) for m in self._matters):
                    return True
                held += 1
            locked += until is not None and until.until > now and until.because is Because.LOCK
        if day.unreadable or day.gone:
            return True
        if locked or held:
            figures = self._report.figures(day.source)
            figures.locked, figures.held = figures.locked + locked, figures.held + held
        return False

    def _note(self, source: str, verdict: Verdict) -> None:
        figures = self._report.figures(source)
        if isinstance(verdict, Held):
            figures.held += 1
        elif isinstance(verdict, Kept) and verdict.because is Because.LOCK:
            figures.locked += 1

    async def _destroy(self, due: list[Due]) -> None:
        self._check_time()
        if not self._report.dry_run:
            await self._count(await destroy(self._services, due, cause=Cause.RETENTION, by=self._by))
            return
        for item in (one.item for one in due):
            self._report.count(item)
            if len(self._report.due) < _TOLD:
                told = item.model_dump(mode="json", include=_NAMED)
                self._report.due.append(told)

    async def _count(self, batch: Batch) -> None:
        """Add a batch to the report, and stop where it met a surprise."""
        report, erased = self._report, batch.certificate.cause is Cause.ERASURE
        report.certificates.append(batch.key)
        for item in batch.destroyed:
            report.count(item, erased=erased)
        report.errors += batch.waiting
        for item in batch.kept if batch.surprise is None else ():
            report.errors.append(f"{item.source}/{item.recording_id} is kept: {item.kept_because}")
        await self._told(report)
        if batch.surprise is not None:
            raise batch.surprise

    def _check(self) -> None:
        """Raise _Over where nothing more may be destroyed."""
        if self._report.destroyed >= self._limit:
            self._report.more = self._report.limited = True
            raise _Over
        self._check_time()

    def _check_time(self) -> None:
        if not self._go_on():
            self._report.more, self._report.limited = True, False
            raise _Over
