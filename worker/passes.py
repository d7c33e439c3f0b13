"""One archive pass over a source in this process, from listing to sidecars: what `callvault run` does.

The scheduled counterpart, which hands batches to other processes, is `worker.polling`.
"""

from functools import partial
from typing import Protocol

from config.events import Event
from config.logs import get_logger
from config.settings import Source
from storage.errors import StoreError
from worker.batch import archive_many, patiently
from worker.discovery import FAR, discover
from worker.errors import SourceError
from worker.gaps import write_unreadable
from worker.model import Recording, Unreadable, Window
from worker.outcome import Outcome, Report
from worker.runtime import Desk, Services
from worker.span import current_watermark, window_of

LIMIT = 1000
"""Recordings held in memory between listing and archiving."""

log = get_logger()


class Watcher(Protocol):
    """Somebody who looks on, such as a progress bar."""

    def planned(self, source: str, count: int) -> None:
        """So many more recordings are about to be archived."""
        ...

    def settled(self, source: str, recording: Recording, outcome: Outcome) -> None:
        """One of them is settled or put off."""
        ...


async def run_source(
    services: Services, source: Source, window: Window | None = None, watcher: Watcher | None = None
) -> Report:
    """Archive what the window holds (by default what is due) and report; trouble is in the report, not raised."""
    report = Report()
    try:
        desk = services.desk(source)
        await patiently(desk.gate, source.name, _pass(services, desk, window, report, watcher))
    except SourceError as error:
        note_trouble(report, source, error)
    except StoreError as error:
        report.store_failed = True
        report.errors.append(error.message)
        log.error(Event.STORE_FAILED, source=source.name, detail=error.message)
    return report


def note_trouble(report: Report, source: Source, error: SourceError) -> None:
    """Write a source's trouble into its report and the log."""
    report.errors.append(error.message)
    report.unusable = report.listed == 0
    log.error(Event.SOURCE_STOPPED, source=source.name, error=type(error).__name__, detail=error.message)


async def settle_rows(services: Services, desk: Desk, rows: list[Unreadable], report: Report) -> None:
    """Put unreadable rows on record where they have an id; the others are errors of the report."""
    for row in rows:
        log.warning(Event.ROW_UNREADABLE, source=desk.source.name, recording=row.id, detail=row.detail)
        if row.id is None:
            report.errors.append(f"{desk.source.name} listed a row that cannot be read: {row.detail}")
        else:
            report.listed += 1
            report.count(await write_unreadable(services, desk, row))


async def _pass(services: Services, desk: Desk, asked: Window | None, report: Report, watcher: Watcher | None) -> None:
    name, now = desk.source.name, services.clock.now()
    window = asked or window_of(desk.source, await current_watermark(services, desk.source), now)
    listener = partial(watcher.settled, name) if watcher else None
    unsettled = FAR
    while True:
        found = await discover(services, desk, window, report, LIMIT)
        await settle_rows(services, desk, found.unreadable, report)
        if watcher:
            watcher.planned(name, len(found.to_archive))
        watermark = None if asked else min(found.watermark, unsettled)
        left = await archive_many(services, desk, found.to_archive, report, watermark=watermark, listener=listener)
        unsettled = min(unsettled, found.unsettled, left or FAR)
        if found.resume_at is None:
            break
        window = Window(found.resume_at, window.end)
    report.watermark = None if asked else min(unsettled, window.end)
