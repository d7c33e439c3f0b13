"""The audit: every version of recordings, gaps, evidence, certificates and the like, beside what it is to carry.

Sidecars are read anew each time: nothing rests on an earlier audit, but for the question what became of what it saw.
One day of one source is in memory at a time. What a single version is compared with is `worker.drift`, the days of
recordings are `worker.audit_day`.
"""

from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import date
from functools import partial

from config.events import Event
from config.logs import get_logger
from worker.audit_day import Auditor
from worker.drift import Audited
from worker.entries import days, sources
from worker.indexing import indexed_days
from worker.runtime import Services

GoOn = Callable[[], bool]
Told = Callable[[Audited], Awaitable[None]]
Look = Callable[[], Awaitable[None]]

log = get_logger()


def _always() -> bool:
    return True


async def _nobody(report: Audited) -> None:
    """Tell nobody."""


async def audit(
    services: Services, report: Audited | None = None, *, go_on: GoOn = _always, told: Told = _nobody
) -> Audited:
    """Look at everything, and return what was found; an unfinished `report` is gone on with.

    `go_on` is asked before each day and `told` called after it. StoreError where the bucket cannot be used.
    """
    report = report or Audited()
    await services.matters.all()  # what was placed a moment ago counts
    async for place, look in _places(services, Auditor(services, report)):
        if place <= report.at:
            continue
        if not go_on():
            return report
        await look()
        report.at = place
        await told(report)
    report.done = True
    log.info(Event.AUDIT_FINISHED, **report.figures())
    return report


async def _places(services: Services, auditor: Auditor) -> AsyncIterator[tuple[str, Look]]:
    """Iterate over what is looked at in one go, each with a name; the names ascend."""
    keys = services.keys
    for prefix, source, day in await _days(services, "recordings"):
        yield f"0 {prefix}", partial(auditor.recordings, source, day)
    for prefix, *_ in await _days(services, "gaps"):
        yield f"1 {prefix}", partial(auditor.gaps, prefix)
    for prefix, source, day in await _days(services, "quarantine"):
        yield f"2 {prefix}", partial(auditor.quarantine, source, day)
    for prefix, *_ in await _days(services, "destroyed"):
        yield f"3 {prefix}", partial(auditor.records, prefix)
    for prefix, *_ in await _days(services, "erasures"):
        yield f"4 {prefix}", partial(auditor.records, prefix)
    for prefix in await services.store.folders(keys.certificates()):
        yield f"5 {prefix}", partial(auditor.records, prefix)
    yield f"6 {keys.hold('')}", partial(auditor.records, keys.hold(""))


async def _days(services: Services, kind: str) -> list[tuple[str, str, date]]:
    """Return prefix, source and day of all days of a kind; of recordings also those of which only the index is left."""
    found = []
    lost = kind == "recordings"
    names = {*await sources(services, kind), *(await sources(services, "index") if lost else ())}
    for source in names:
        there = {*await days(services, source, kind), *(await indexed_days(services, source) if lost else ())}
        found += [(services.keys.partition(kind, source, day), source, day) for day in there]
    return sorted(found)
